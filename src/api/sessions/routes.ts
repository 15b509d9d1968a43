/** Sessions over HTTP: submit, read, control, remove. */
import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import type { Context } from 'hono'
import { z } from 'zod'
import { sha256Of } from '../../artifacts/store.ts'
import { ended, statuses, type Asker, type ControlVerb } from '../../engine/session.ts'
import { unknownSession } from '../../errors.ts'
import { sessionIdPattern } from '../../keys.ts'
import { traceIn } from '../../trace.ts'
import { needs } from '../auth.ts'
import { refuseBody } from '../body.ts'
import type { ApiParts, App, AppEnv } from '../context.ts'
import { sightOf, visibleSession } from '../policy.ts'
import { idParam, json, keyed, noQuery, pageLimit, problems } from '../route.ts'
import { afterWait, IdempotencyKey, Prefer } from '../wait.ts'
import { DryRunView, presentDryRun } from './dry-run.ts'
import { shownSession } from './shown.ts'
import { addVerb } from './verb.ts'
import {
  ChangeSession,
  ExportView,
  ForkBody,
  presentExport,
  presentReceipt,
  presentStates,
  ReceiptView,
  SessionPage,
  SessionView,
  SignalBody,
  StatesView,
  SubmitSession,
} from './views.ts'

const submit = createRoute({
  method: 'post',
  path: '/sessions',
  summary: 'Submit a session',
  tags: ['sessions'],
  ...keyed,
  middleware: needs('submit'),
  request: {
    query: z.strictObject({
      dryRun: z
        .enum(['true', 'false'])
        .optional()
        .meta({ description: 'true: nothing is made; the answer says what would come of it, and refusals are the same' }),
    }),
    headers: z.object({
      'idempotency-key': IdempotencyKey,
      prefer: Prefer,
      traceparent: z.string().optional().meta({ description: 'W3C Trace Context: the session’s spans belong to that trace' }),
    }),
    body: { required: true, content: { 'application/json': { schema: SubmitSession } } },
  },
  responses: {
    200: json('It has ended within the wait, or this is a repeat; of a dry run, what would come of it', z.union([SessionView, DryRunView])),
    202: json('Accepted', SessionView),
    ...problems(404, 409),
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
      parent: z.string().regex(sessionIdPattern, 'must be a session id').optional().meta({ description: 'only children of this session' }),
      cursor: z.string().min(1).max(512).optional().meta({ description: '`next` of the page before' }),
      limit: pageLimit(200, 50),
    }),
  },
  responses: {
    200: json('A page', SessionPage),
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

const retry = createRoute({
  method: 'post',
  path: '/sessions/{id}/retry',
  summary: 'Make a new session from a failed or cancelled one',
  tags: ['sessions'],
  ...keyed,
  middleware: needs('submit'),
  request: { params: idParam, query: noQuery, headers: z.object({ 'idempotency-key': IdempotencyKey, prefer: Prefer }) },
  responses: {
    200: json('The new session; it has ended within the wait', SessionView),
    202: json('The new session', SessionView),
    ...problems(404, 409),
  },
})

const states = createRoute({
  method: 'get',
  path: '/sessions/{id}/states',
  summary: 'The states that a session was in, from which it can be forked',
  tags: ['sessions'],
  ...keyed,
  middleware: needs('read'),
  request: { params: idParam, query: noQuery },
  responses: { 200: json('The states, oldest first; the last one is where it stands', StatesView), ...problems(404, 409) },
})

const fork = createRoute({
  method: 'post',
  path: '/sessions/{id}/fork',
  summary: 'Make a new session that goes on from a state of this one',
  description:
    'The results of its steps are taken over up to that state, or up to the first step that the changed input asks for something else.',
  tags: ['sessions'],
  ...keyed,
  middleware: needs('submit'),
  request: {
    params: idParam,
    query: noQuery,
    headers: z.object({ 'idempotency-key': IdempotencyKey, prefer: Prefer }),
    body: { required: true, content: { 'application/json': { schema: ForkBody } } },
  },
  responses: {
    200: json('The new session; it has ended within the wait', SessionView),
    202: json('The new session', SessionView),
    ...problems(404, 409),
  },
})

const exported = createRoute({
  method: 'get',
  path: '/sessions/{id}/export',
  summary: 'A session as one file: its request, history, receipt and result',
  description: 'Pictures are named by their SHA-256. Nothing in it tells of API keys.',
  tags: ['sessions'],
  ...keyed,
  middleware: needs('read'),
  request: { params: idParam, query: noQuery },
  responses: { 200: json('The file', ExportView), ...problems(404) },
})

const change = createRoute({
  method: 'patch',
  path: '/sessions/{id}',
  summary: 'Give a session other tags, or another deadline',
  tags: ['sessions'],
  ...keyed,
  middleware: needs('control'),
  request: { params: idParam, query: noQuery, body: { required: true, content: { 'application/json': { schema: ChangeSession } } } },
  responses: { 200: json('The session as it is now', SessionView), ...problems(404, 409) },
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

/** Whose request for another session it is; a repeat is told by its path and body. */
async function askerOf(c: Context<AppEnv>, key: string | undefined): Promise<Asker> {
  const { keyId, scopes } = c.get('caller')
  const bodySha256 = sha256Of(Buffer.from(`${c.req.path}\n${await c.req.text()}`))
  return { keyId, mayOperate: scopes.has('operate'), idempotency: key === undefined ? undefined : { key, bodySha256 } }
}

export function sessionRoutes(parts: ApiParts): App {
  const { engine } = parts

  // The document lists them in this order.
  const routes = new OpenAPIHono<AppEnv>()
    .openapi(submit, async (c) => {
      const { workflow, input, priority, tags, deadlineS, device, concurrency, webhook } = c.req.valid('json')
      const submission = {
        workflow,
        input,
        priority,
        tags,
        ...(deadlineS !== undefined && { deadlineS }),
        ...(device !== undefined && { device }),
        ...(concurrency && { concurrency }),
        ...(webhook !== undefined && { webhook }),
        idempotencyKey: c.req.valid('header')['idempotency-key'],
        bodySha256: sha256Of(Buffer.from(await c.req.text())),
        keyId: c.get('caller').keyId,
        mayOperate: c.get('caller').scopes.has('operate'),
        trace: traceIn(c.req.valid('header').traceparent),
      }
      if (c.req.valid('query').dryRun === 'true') return c.json(presentDryRun(await engine.dryRuns.run(submission)), 200)
      const { session, created } = await engine.start(submission)
      const { session: latest } = await afterWait(parts, c, session)
      const isAccepted = created && !ended.has(latest.status)
      return c.json(await shownSession(engine, latest), isAccepted ? 202 : 200)
    })
    .openapi(list, async (c) => {
      const { sessions, next } = await engine.list({ ...c.req.valid('query'), keyId: sightOf(c.get('caller')) })
      return c.json({ sessions: await Promise.all(sessions.map((session) => shownSession(engine, session))), next }, 200)
    })
    .openapi(get, async (c) =>
      c.json(await shownSession(engine, await visibleSession(engine, c.req.valid('param').id, c.get('caller'))), 200),
    )
    .openapi(receipt, async (c) => {
      const { id } = await visibleSession(engine, c.req.valid('param').id, c.get('caller'))
      const found = await engine.receipt(id)
      if (!found) throw unknownSession(id)
      return c.json(presentReceipt(found), 200)
    })
  addVerb(routes, engine, {
    name: 'signal',
    summary: 'Tell the workflow of a session something',
    tag: 'sessions',
    answers: 'The session as it is now; a repeat of the same `eventId` changes nothing',
    body: SignalBody,
    act: (id, signalled) => engine.signal(id, signalled),
  })
  routes
    .openapi(retry, async (c) => {
      await refuseBody(c)
      const { id } = await visibleSession(engine, c.req.valid('param').id, c.get('caller'))
      const asker = await askerOf(c, c.req.valid('header')['idempotency-key'])
      const { session: latest } = await afterWait(parts, c, await engine.retry(id, asker))
      return c.json(await shownSession(engine, latest), ended.has(latest.status) ? 200 : 202)
    })
    .openapi(states, async (c) => {
      const { id } = await visibleSession(engine, c.req.valid('param').id, c.get('caller'))
      return c.json(presentStates(await engine.states(id)), 200)
    })
    .openapi(fork, async (c) => {
      const { id } = await visibleSession(engine, c.req.valid('param').id, c.get('caller'))
      const asker = await askerOf(c, c.req.valid('header')['idempotency-key'])
      const { session: latest } = await afterWait(parts, c, await engine.fork(id, c.req.valid('json'), asker))
      return c.json(await shownSession(engine, latest), ended.has(latest.status) ? 200 : 202)
    })
    .openapi(exported, async (c) => {
      const { id } = await visibleSession(engine, c.req.valid('param').id, c.get('caller'))
      c.header('Content-Disposition', `attachment; filename="darkroom-${id}.json"`)
      return c.json(presentExport(await engine.export(id)), 200)
    })
    .openapi(change, async (c) => {
      const { id } = await visibleSession(engine, c.req.valid('param').id, c.get('caller'))
      return c.json(await shownSession(engine, await engine.change(id, c.req.valid('json'))), 200)
    })
    .openapi(remove, async (c) => {
      await refuseBody(c)
      const { id } = await visibleSession(engine, c.req.valid('param').id, c.get('caller'))
      await engine.remove(id)
      return c.body(null, 204)
    })
  for (const verb of verbs)
    addVerb(routes, engine, { name: verb, summary: summaries[verb], tag: 'sessions', act: (id) => engine.control(id, verb) })
  return routes
}
