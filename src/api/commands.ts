/**
 * Workflows with a route of their own. Each request makes a session. The answer is `202` with the session; with
 * `Prefer: wait=SECONDS` it is `200` with the output, or a problem with the error. Path, body, answer, scope and words
 * of the route come from the workflow.
 */
import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import type { Context } from 'hono'
import { z } from 'zod'
import { sha256Of } from '../artifacts/store.ts'
import type { Route } from '../domains/operation.ts'
import type { WorkflowInfo } from '../engine/registry.ts'
import { ended } from '../engine/session.ts'
import { DarkroomError, sessionError, workflowError, type FieldProblem } from '../errors.ts'
import { traceIn } from '../trace.ts'
import { needs } from './auth.ts'
import { refuseBody } from './body.ts'
import type { ApiParts, App, AppEnv } from './context.ts'
import { json, keyed, problems } from './route.ts'
import { shownSession } from './sessions/shown.ts'
import { SessionView } from './sessions/views.ts'
import { present, viewOf } from './view.ts'
import { afterWait, IdempotencyKey, Prefer } from './wait.ts'

/** Commands run before pictures: a person waits for the answer. */
const priority = 9

type Fields = Record<string, unknown>

/**
 * The routes of the newest version of each workflow that has one.
 * @throws DarkroomError `workflow.broken` for a route that does not fit its input
 */
export function commandRoutes(parts: ApiParts): App {
  const routes = new OpenAPIHono<AppEnv>()
  const byVersion = parts.engine.workflows().toSorted((a, b) => a.version - b.version)
  const newest = new Map(byVersion.map((workflow) => [workflow.name, workflow]))
  for (const workflow of newest.values()) if (workflow.route) addRoute(routes, parts, workflow, workflow.route)
  return routes
}

function addRoute(routes: App, parts: ApiParts, workflow: WorkflowInfo, route: Route): void {
  const { params, query, body } = requestOf(workflow, route)
  const [tag = ''] = route.path.split('/').filter(Boolean)
  const description = createRoute({
    method: route.method,
    path: route.path,
    summary: workflow.title,
    description: workflow.description,
    tags: [tag],
    ...keyed,
    middleware: needs(workflow.scope ?? 'submit'),
    request: {
      params: z.object(Object.fromEntries(params.map(({ name, schema }) => [name, schema.meta({ param: { name, in: 'path' } })]))),
      query,
      headers: z.object({ 'idempotency-key': IdempotencyKey, prefer: Prefer }),
      ...(body && { body: { required: route.isBodyRequired ?? true, content: { 'application/json': { schema: body } } } }),
    },
    responses: {
      200: json(`${route.answers}; only with \`Prefer: wait\``, viewOf(workflow.output)),
      202: json('Accepted: the session whose output it will be', SessionView),
      ...problems(404, 409),
    },
  })
  routes.openapi(description, async (c) => {
    if (!body) await refuseBody(c)
    const given = c.req.valid('param') as Fields
    const named = Object.fromEntries(params.map(({ name, field }) => [field, given[name]]))
    // The types of a route that is made at run time do not say whether it has a body.
    const rest = { ...(body ? (c.req.valid('json' as never) as Fields) : {}), ...(c.req.valid('query' as never) as Fields) }
    try {
      return await answer(parts, c, workflow, { ...rest, ...named })
    } catch (error) {
      throw error instanceof DarkroomError ? asSent(error, params, route) : error
    }
  })
}

interface Param {
  /** In the path, and in the input. */
  name: string
  field: string
  schema: z.ZodType
}

interface Request {
  params: Param[]
  query: z.ZodObject
  body: z.ZodType | undefined
}

/** The parts of a workflow's input as its route takes them: some in the path and the query, the others as body. */
function requestOf({ name: workflow, input }: WorkflowInfo, route: Route): Request {
  if (!(input instanceof z.ZodObject)) throw workflowError('broken', `${workflow} has a route, so its input must be an object`)
  const shape = input.shape as Record<string, z.ZodType>
  const params = [...route.path.matchAll(/\{(\w+)\}/g)].map(([, name = '']) => {
    const field = route.params?.[name] ?? name
    const schema = shape[field]
    if (!schema) throw workflowError('broken', `the route of ${workflow} names ${field}, which is no field of its input`)
    return { name, field, schema }
  })
  const inQuery = new Set(route.query ?? [])
  for (const field of inQuery)
    if (!shape[field]?.isOptional())
      throw workflowError('broken', `the query of ${workflow}’s route names ${field}, which is no field that may be left out`)
  const query = z.strictObject(Object.fromEntries([...inQuery].map((field) => [field, shape[field]])) as Record<string, z.ZodType>)
  const placed = new Set([...params.map(({ field }) => field), ...inQuery])
  const isLeft = (field: string): boolean => !placed.has(field)
  if (!route.body) {
    const left = Object.keys(shape).filter(isLeft)
    if (left.length > 0) throw workflowError('broken', `the route of ${workflow} has no place for ${left.join(', ')}`)
    return { params, query, body: undefined }
  }
  const body = z.strictObject(Object.fromEntries(Object.entries(shape).filter(([field]) => isLeft(field))))
  return { params, query, body: body.meta({ ...input.meta(), id: route.body }) }
}

/**
 * Submits the session, and answers with it or with its output.
 * @throws DarkroomError its refusal, or the session's error
 */
async function answer(parts: ApiParts, c: Context<AppEnv>, workflow: WorkflowInfo, input: Fields) {
  const { keyId, scopes } = c.get('caller')
  const { 'idempotency-key': idempotencyKey } = c.req.valid('header' as never) as { 'idempotency-key'?: string }
  const { session: submitted } = await parts.engine.start({
    workflow: workflow.name,
    input,
    priority,
    tags: [],
    keyId,
    mayOperate: scopes.has('operate'),
    trace: traceIn(c.req.header('traceparent')),
    ...(idempotencyKey !== undefined && {
      idempotencyKey,
      bodySha256: sha256Of(Buffer.from(`${c.req.method} ${c.req.path}\n${await c.req.text()}`)),
    }),
  })
  const { session, hasWaited } = await afterWait(parts, c, submitted)
  if (!hasWaited || !ended.has(session.status)) return c.json(await shownSession(parts.engine, session), 202)
  if (session.status === 'succeeded') return c.json(present(workflow.output, workflow.output.parse(session.output ?? {})), 200)
  throw session.error ? DarkroomError.fromWire(session.error) : sessionError('ended', `session ${session.id} was cancelled meanwhile`)
}

/**
 * The same error with fields as the request names them: `input.bytes` is `bytes`, and a part of the path is no field.
 */
function asSent(error: DarkroomError, params: readonly Param[], route: Route): DarkroomError {
  const bare = (name: string): string => name.replace(/^input\./, '')
  const sent = (name: string): string => route.fields?.[name] ?? name
  const field = sent(bare(error.field ?? ''))
  const isInPath = params.some((param) => param.field === field)
  const { problems: listed } = (error.details ?? {}) as { problems?: FieldProblem[] }
  const details = listed
    ? { ...error.details, problems: listed.map((problem) => ({ ...problem, field: bare(problem.field) })) }
    : error.details
  const { code, message, remedy } = error
  return new DarkroomError(code, message.replaceAll('input.', ''), {
    remedy,
    cause: error,
    ...(field && !isInPath && { field }),
    ...(details && { details }),
  })
}
