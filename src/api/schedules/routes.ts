/** Schedules over HTTP: make, list, pause, resume, remove. */
import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { z } from 'zod'
import { needs } from '../auth.ts'
import { refuseBody } from '../body.ts'
import type { ApiParts, App, AppEnv } from '../context.ts'
import { sightOf } from '../policy.ts'
import { json, keyed, noQuery, problems } from '../route.ts'
import { AddSchedule, presentSchedule, ScheduleView } from './views.ts'

const idParam = z.object({ id: z.string().meta({ param: { name: 'id', in: 'path' }, description: 'id of the schedule' }) })

const add = createRoute({
  method: 'post',
  path: '/schedules',
  summary: 'Submit a session again and again, by a cron pattern or every so many seconds',
  tags: ['schedules'],
  ...keyed,
  middleware: needs('submit'),
  request: { query: noQuery, body: { required: true, content: { 'application/json': { schema: AddSchedule } } } },
  responses: { 201: json('The schedule', ScheduleView), ...problems(404) },
})

const list = createRoute({
  method: 'get',
  path: '/schedules',
  summary: 'List the schedules, newest first',
  tags: ['schedules'],
  ...keyed,
  middleware: needs('read'),
  request: { query: noQuery },
  responses: { 200: json('All that the caller may see', z.strictObject({ schedules: z.array(ScheduleView) })), ...problems() },
})

const get = createRoute({
  method: 'get',
  path: '/schedules/{id}',
  summary: 'Get a schedule: when it falls due next, and what came of the last times',
  tags: ['schedules'],
  ...keyed,
  middleware: needs('read'),
  request: { params: idParam, query: noQuery },
  responses: { 200: json('The schedule', ScheduleView), ...problems(404) },
})

const summaries = {
  pause: 'Pause a schedule: nothing is started, and nothing of that is made up for',
  resume: 'Resume a paused schedule, from now on',
}
const verbs = ['pause', 'resume'] as const
const change = (verb: (typeof verbs)[number]) =>
  createRoute({
    method: 'post',
    path: `/schedules/{id}/${verb}`,
    summary: summaries[verb],
    tags: ['schedules'],
    ...keyed,
    middleware: needs('control'),
    request: { params: idParam, query: noQuery },
    responses: { 200: json('The schedule', ScheduleView), ...problems(404) },
  })

const remove = createRoute({
  method: 'delete',
  path: '/schedules/{id}',
  summary: 'Remove a schedule; its sessions go on',
  tags: ['schedules'],
  ...keyed,
  middleware: needs('control'),
  request: { params: idParam, query: noQuery },
  responses: { 204: { description: 'Removed' }, ...problems(404) },
})

export function scheduleRoutes({ engine: { schedules } }: ApiParts): App {
  const routes = new OpenAPIHono<AppEnv>()
    .openapi(add, async (c) => {
      const { name, cron, timezone = 'UTC', everyS = 0, overlap, catchUpS, session: submission } = c.req.valid('json')
      const { keyId, scopes } = c.get('caller')
      const rule = cron === undefined ? { everyS } : { cron, timezone }
      const mayOperate = scopes.has('operate')
      return c.json(presentSchedule(await schedules.add({ name, keyId, mayOperate, rule, overlap, catchUpS, submission })), 201)
    })
    .openapi(list, async (c) => c.json({ schedules: (await schedules.list(sightOf(c.get('caller')))).map(presentSchedule) }, 200))
    .openapi(get, async (c) => c.json(presentSchedule(await schedules.get(c.req.valid('param').id, sightOf(c.get('caller')))), 200))
    .openapi(remove, async (c) => {
      await refuseBody(c)
      await schedules.remove(c.req.valid('param').id, sightOf(c.get('caller')))
      return c.body(null, 204)
    })
  for (const verb of verbs) {
    routes.openapi(change(verb), async (c) => {
      await refuseBody(c)
      const changed = await schedules.setPaused(c.req.valid('param').id, sightOf(c.get('caller')), verb === 'pause')
      return c.json(presentSchedule(changed), 200)
    })
  }
  return routes
}
