/** The queue of those that wait for a device: seen, moved, paused. */
import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { z } from 'zod'
import { sessionIdPattern } from '../../keys.ts'
import { needs } from '../auth.ts'
import type { ApiParts, App, AppEnv } from '../context.ts'
import { visibleSession } from '../policy.ts'
import { json, keyed, noQuery, pageLimit, problems } from '../route.ts'
import { addVerb } from '../sessions/verb.ts'
import { PauseQueue, presentQueue, QueueView } from './views.ts'

const show = createRoute({
  method: 'get',
  path: '/queue',
  summary: 'Show who waits for a device, in the order in which they are let in',
  tags: ['queue'],
  ...keyed,
  middleware: needs('read'),
  request: { query: z.strictObject({ limit: pageLimit(1000, 100) }) },
  responses: { 200: json('The queue', QueueView), ...problems() },
})

const stopping = (verb: 'pause' | 'resume', summary: string) =>
  createRoute({
    method: 'post',
    path: `/queue/${verb}`,
    summary,
    description: 'Without a device or a class it is the whole queue. What runs, and what a device has begun, goes on.',
    tags: ['queue'],
    ...keyed,
    middleware: needs('operate'),
    request: { query: noQuery, body: { required: true, content: { 'application/json': { schema: PauseQueue } } } },
    responses: { 200: json('The queue as it is now', QueueView), ...problems() },
  })
const pause = stopping('pause', 'Let nobody in: to any device, to one, or to those of a class')
const resume = stopping('resume', 'Let sessions in again')

const ends = {
  front: 'Put a waiting session before all others of its API key, with the priority of the first of them',
  back: 'Put a waiting session behind all others of its API key, with the priority of the last of them',
} as const

const ChangePriority = z.strictObject({ priority: z.int().min(0).max(9) }).meta({ id: 'ChangePriority', example: { priority: 9 } })

const MoveBefore = z.strictObject({ session: z.string().regex(sessionIdPattern, 'must be a session id') }).meta({ id: 'MoveBefore' })

/** Sessions that an answer to a change shows. */
const shownAfterwards = 100

export function queueRoutes({ engine }: ApiParts): App {
  const routes = new OpenAPIHono<AppEnv>()
    .openapi(show, async (c) => c.json(presentQueue(await engine.waiting.view(), c.get('caller'), c.req.valid('query').limit), 200))
    .openapi(pause, async (c) => {
      await engine.pauseQueue(c.req.valid('json'))
      return c.json(presentQueue(await engine.waiting.latest(), c.get('caller'), shownAfterwards), 200)
    })
    .openapi(resume, async (c) => {
      await engine.resumeQueue(c.req.valid('json'))
      return c.json(presentQueue(await engine.waiting.latest(), c.get('caller'), shownAfterwards), 200)
    })
  addVerb(routes, engine, {
    name: 'priority',
    summary: 'Change the priority of a session',
    tag: 'queue',
    body: ChangePriority,
    act: (id, { priority }) => engine.waiting.prioritize(id, priority),
  })
  addVerb(routes, engine, {
    name: 'before',
    summary: 'Put a waiting session directly before another one of its API key, with the priority of that one',
    tag: 'queue',
    body: MoveBefore,
    act: async (id, { session }, caller) => engine.waiting.before(id, (await visibleSession(engine, session, caller)).id),
  })
  for (const end of Object.keys(ends) as (keyof typeof ends)[])
    addVerb(routes, engine, { name: end, summary: ends[end], tag: 'queue', act: (id) => engine.waiting[end](id) })
  return routes
}
