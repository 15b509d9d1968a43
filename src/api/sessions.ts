/** Sessions over HTTP: submit, look, control, remove. */
import { createRoute, OpenAPIHono, z } from '@hono/zod-openapi'
import type { Context } from 'hono'
import { sha256Of } from '../artifacts/store.ts'
import type { DarkroomError } from '../errors.ts'
import { apiError, sessionError } from '../errors.ts'
import { sessionIdPattern } from '../keys.ts'
import { type ControlVerb, ended, type Session, Signal, statuses, SubmitOptions } from '../engine/session.ts'
import { type Caller, needs } from './auth.ts'
import type { ApiParts, App, AppEnv, EnginePort } from './context.ts'
import { presentReceipt, presentSession, ReceiptView, SessionView } from './present.ts'
import { invalid } from './problem.ts'
import { idParam, json, keyed, noQuery, problems } from './route.ts'
import { preferredWaitS, waitForEnd } from './wait.ts'

const SubmitSession = z
  .strictObject({
    workflow: z.string().min(1).max(128).openapi({ example: 'image-generation' }),
    input: z.record(z.string(), z.unknown()).openapi({ description: 'by the input schema of the workflow' }),
    ...SubmitOptions.shape,
  })
  .openapi('SubmitSession', { example: { workflow: 'image-generation', input: { prompt: 'a red circle on a blue background', seed: 7 } } })

const prefer = z
  .string()
  .optional()
  .openapi({ description: '`wait=SECONDS` (at most 60) waits for the end of the session', example: 'wait=30' })

const submit = createRoute({
  method: 'post',
  path: '/sessions',
  summary: 'Submit a session',
  tags: ['sessions'],
  ...keyed,
  middleware: needs('submit'),
  request: {
    query: noQuery,
    headers: z.object({
      'idempotency-key': z
        .string()
        .regex(/^[\x21-\x7e]{1,255}$/, 'must be 1 to 255 visible ASCII characters')
        .optional()
        .openapi({ description: 'a repeat with the same key and body answers with the same session' }),
      prefer,
    }),
    body: { required: true, content: { 'application/json': { schema: SubmitSession } } },
  },
  responses: {
    200: json('It has ended within the wait, or this is a repeat', SessionView),
    202: json('Accepted', SessionView),
    ...problems(404),
  },
})

const list = createRoute({
  method: 'get',
  path: '/sessions',
  summary: 'List sessions, newest first',
  tags: ['sessions'],
  ...keyed,
  middleware: needs('read'),
  request: {
    query: z.strictObject({
      status: z.enum(statuses).optional(),
      workflow: z.string().min(1).max(128).optional(),
      tag: z.string().min(1).max(64).optional(),
      parent: z
        .string()
        .regex(sessionIdPattern, 'must be a session id')
        .optional()
        .openapi({ description: 'only children of this session' }),
      cursor: z.string().min(1).max(512).optional().openapi({ description: '`next` of the page before' }),
      limit: z
        .string()
        .regex(/^\d{1,4}$/, 'must be a whole number from 1 to 200')
        .transform(Number)
        .pipe(z.int().min(1, 'must be at least 1').max(200, 'must be at most 200'))
        .default(50)
        .openapi({ type: 'integer', minimum: 1, maximum: 200, default: 50 }),
    }),
  },
  responses: {
    200: json('A page', z.strictObject({ sessions: z.array(SessionView), next: z.string().nullable() }).openapi('SessionPage')),
    ...problems(),
  },
})

const get = createRoute({
  method: 'get',
  path: '/sessions/{id}',
  summary: 'Get a session',
  tags: ['sessions'],
  ...keyed,
  middleware: needs('read'),
  request: { params: idParam, query: noQuery },
  responses: { 200: json('The session', SessionView), ...problems(404) },
})

const receipt = createRoute({
  method: 'get',
  path: '/sessions/{id}/receipt',
  summary: 'What happened on the way: attempts, workers, checkpoints, times',
  tags: ['sessions'],
  ...keyed,
  middleware: needs('read'),
  request: { params: idParam, query: noQuery },
  responses: { 200: json('The receipt', ReceiptView), ...problems(404) },
})

const summaries: Record<ControlVerb, string> = {
  pause: 'Pause a session: its device is free within one denoise call',
  resume: 'Resume a paused session',
  cancel: 'Cancel a session: it has ended when the answer comes',
}
const verbs = ['pause', 'resume', 'cancel'] as const satisfies ControlVerb[]

const control = (verb: ControlVerb) =>
  createRoute({
    method: 'post',
    path: `/sessions/{id}/${verb}`,
    summary: summaries[verb],
    tags: ['sessions'],
    ...keyed,
    middleware: needs('control'),
    request: { params: idParam, query: noQuery },
    responses: { 200: json('The session as it is now', SessionView), ...problems(404, 409) },
  })

const signal = createRoute({
  method: 'post',
  path: '/sessions/{id}/signal',
  summary: 'Tell the workflow of a session something',
  tags: ['sessions'],
  ...keyed,
  middleware: needs('control'),
  request: {
    params: idParam,
    query: noQuery,
    body: {
      required: true,
      content: {
        'application/json': {
          schema: z.strictObject(Signal.shape).openapi('Signal', { example: { type: 'approve', data: { by: 'Ada' } } }),
        },
      },
    },
  },
  responses: { 200: json('The session as it is now; a repeat of the same `eventId` changes nothing', SessionView), ...problems(404, 409) },
})

const retry = createRoute({
  method: 'post',
  path: '/sessions/{id}/retry',
  summary: 'Make a new session from a failed or cancelled one',
  tags: ['sessions'],
  ...keyed,
  middleware: needs('submit'),
  request: { params: idParam, query: noQuery, headers: z.object({ prefer }) },
  responses: {
    200: json('The new session; it has ended within the wait', SessionView),
    202: json('The new session', SessionView),
    ...problems(404, 409),
  },
})

const remove = createRoute({
  method: 'delete',
  path: '/sessions/{id}',
  summary: 'Delete an ended session with everything it kept, and its children',
  description: 'A child is not deleted while its parent is paused and has yet to take its end in (409): its parent would begin it anew.',
  tags: ['sessions'],
  ...keyed,
  middleware: needs('control'),
  request: { params: idParam, query: noQuery },
  responses: { 204: { description: 'Deleted' }, ...problems(404, 409) },
})

export function sessionRoutes({ engine, closing }: ApiParts): App {
  const answer = async (c: Context<AppEnv>, session: Session): Promise<Session> => {
    c.header('Location', `/v1/sessions/${session.id}`)
    const waitS = preferredWaitS(c.req.header('prefer'))
    if (waitS === undefined) return session
    c.header('Preference-Applied', `wait=${waitS}`)
    return await waitForEnd(engine, session, waitS * 1000, c.req.raw.signal, closing)
  }

  // The document lists them in this order.
  const routes = new OpenAPIHono<AppEnv>()
    .openapi(submit, async (c) => {
      const { workflow, input, priority, tags, deadlineS, device } = c.req.valid('json')
      const { session, created } = await engine.start({
        workflow,
        input,
        priority,
        tags,
        ...(deadlineS !== undefined && { deadlineS }),
        ...(device !== undefined && { device }),
        idempotencyKey: c.req.valid('header')['idempotency-key'],
        bodySha256: sha256Of(Buffer.from(await c.req.text())),
        keyId: c.get('caller').keyId,
        mayOperate: c.get('caller').scopes.has('operate'),
      })
      const latest = await answer(c, session)
      const isAccepted = created && !ended.has(latest.status)
      return c.json(presentSession(latest), isAccepted ? 202 : 200)
    })
    .openapi(list, async (c) => {
      const { sessions, next } = await engine.list({ ...c.req.valid('query'), keyId: c.get('caller').keyId })
      return c.json({ sessions: sessions.map(presentSession), next }, 200)
    })
    .openapi(get, async (c) => c.json(presentSession(await visible(engine, c.req.valid('param').id, c.get('caller'))), 200))
    .openapi(receipt, async (c) => {
      const { id } = await visible(engine, c.req.valid('param').id, c.get('caller'))
      const found = await engine.receipt(id)
      if (!found) throw unknownSession(id)
      return c.json(presentReceipt(found), 200)
    })
    .openapi(signal, async (c) => {
      const { id } = await visible(engine, c.req.valid('param').id, c.get('caller'))
      return c.json(presentSession(await engine.signal(id, c.req.valid('json'))), 200)
    })
    .openapi(retry, async (c) => {
      await refuseBody(c)
      const { id } = await visible(engine, c.req.valid('param').id, c.get('caller'))
      const latest = await answer(c, await engine.retry(id, c.get('caller').keyId))
      return c.json(presentSession(latest), ended.has(latest.status) ? 200 : 202)
    })
    .openapi(remove, async (c) => {
      await refuseBody(c)
      const { id } = await visible(engine, c.req.valid('param').id, c.get('caller'))
      await engine.remove(id)
      return c.body(null, 204)
    })
  for (const verb of verbs) {
    routes.openapi(control(verb), async (c) => {
      await refuseBody(c)
      const { id } = await visible(engine, c.req.valid('param').id, c.get('caller'))
      return c.json(presentSession(await engine.control(id, verb)), 200)
    })
  }
  return routes
}

/**
 * The session, if the caller may see it: a key sees its own, and of another's not even that it exists.
 * @throws DarkroomError `session.unknown`.
 */
export async function visible(engine: Pick<EnginePort, 'get'>, id: string, caller: Caller): Promise<Session> {
  const session = sessionIdPattern.test(id) ? await engine.get(id) : undefined
  if (!session || (caller.keyId !== null && session.keyId !== caller.keyId)) throw unknownSession(id)
  return session
}

const unknownSession = (id: string): DarkroomError => sessionError('unknown', `there is no session ${JSON.stringify(id.slice(0, 64))}`)

/** Verbs take no fields; one sent all the same was meant to do something. @throws DarkroomError `api.malformed`, `api.invalid`. */
export async function refuseBody(c: Context<AppEnv>): Promise<void> {
  const text = (await c.req.text()).trim()
  if (text === '') return
  let body: unknown
  try {
    body = JSON.parse(text)
  } catch (error) {
    throw apiError('malformed', 'the body is not well-formed JSON', { cause: error })
  }
  const fields = typeof body === 'object' && body !== null && !Array.isArray(body) ? Object.keys(body) : ['body']
  if (fields.length > 0) throw invalid(fields.map((field) => ({ field, message: 'this request takes no body fields' })))
}
