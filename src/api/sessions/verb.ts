/** A verb of a session over HTTP: `POST /v1/sessions/{id}/<verb>`, which answers with the session as it is then. */
import { createRoute } from '@hono/zod-openapi'
import type { z } from 'zod'
import type { Caller } from '../../api-keys.ts'
import type { Session } from '../../engine/session.ts'
import { needs } from '../auth.ts'
import { refuseBody } from '../body.ts'
import type { App, EnginePort } from '../context.ts'
import { visibleSession } from '../policy.ts'
import { idParam, json, keyed, noQuery, problems } from '../route.ts'
import { shownSession } from './shown.ts'
import { SessionView } from './views.ts'

interface Verb {
  /** The last part of its path. */
  name: string
  summary: string
  tag: 'sessions' | 'queue'
  answers?: string
}

type VerbWith<Body extends z.ZodType> = Verb & {
  /** Without one the request takes no body. */
  body?: Body
  /** Returns the session afterwards, where it knows it. */
  act: (id: string, body: z.output<Body>, caller: Caller) => Promise<Session | void>
}

/** Adds the route of a verb: for callers with the scope `control` who may see the session. */
export function addVerb<Body extends z.ZodType = z.ZodUndefined>(
  routes: App,
  engine: Pick<EnginePort, 'get' | 'waiting'>,
  { name, summary, tag, answers = 'The session as it is now', body, act }: VerbWith<Body>,
): void {
  const bare = { params: idParam, query: noQuery }
  // To the types as without a body, which is read below.
  const request: typeof bare = body
    ? Object.assign(bare, { body: { required: true, content: { 'application/json': { schema: body } } } })
    : bare
  const route = createRoute({
    method: 'post',
    path: `/sessions/{id}/${name}`,
    summary,
    tags: [tag],
    ...keyed,
    middleware: needs('control'),
    request,
    responses: { 200: json(answers, SessionView), ...problems(404, 409) },
  })
  routes.openapi(route, async (c) => {
    if (!body) await refuseBody(c)
    const { id } = await visibleSession(engine, c.req.valid('param').id, c.get('caller'))
    const given = (body ? c.req.valid('json' as never) : undefined) as z.output<Body>
    const changed = await act(id, given, c.get('caller'))
    return c.json(await shownSession(engine, changed ?? (await visibleSession(engine, id, c.get('caller')))), 200)
  })
}
