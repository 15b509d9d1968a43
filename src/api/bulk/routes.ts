/** Actions over many sessions over HTTP: count, begin, look, stop. */
import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { z } from 'zod'
import { needs } from '../auth.ts'
import { refuseBody } from '../body.ts'
import type { ApiParts, App, AppEnv } from '../context.ts'
import { sightOf } from '../policy.ts'
import { json, keyed, noQuery, problems } from '../route.ts'
import { AddBulk, BulkView, CountSessions, presentBulk, SessionCount } from './views.ts'

const idParam = z.object({ id: z.string().meta({ param: { name: 'id', in: 'path' }, description: 'id of the action' }) })

const add = createRoute({
  method: 'post',
  path: '/bulk',
  summary: 'Pause, resume, cancel, delete or tag all sessions that a filter finds now',
  tags: ['bulk'],
  ...keyed,
  middleware: needs('control'),
  request: { query: noQuery, body: { required: true, content: { 'application/json': { schema: AddBulk } } } },
  responses: {
    202: json('The action, which goes on by itself', BulkView),
    ...problems(),
  },
})

const count = createRoute({
  method: 'post',
  path: '/bulk/count',
  summary: 'Count the sessions that a filter finds now',
  tags: ['bulk'],
  ...keyed,
  middleware: needs('read'),
  request: { query: noQuery, body: { required: true, content: { 'application/json': { schema: CountSessions } } } },
  responses: { 200: json('How many sessions there are', SessionCount), ...problems() },
})

const list = createRoute({
  method: 'get',
  path: '/bulk',
  summary: 'List the actions over many sessions, newest first',
  tags: ['bulk'],
  ...keyed,
  middleware: needs('read'),
  request: { query: noQuery },
  responses: { 200: json('All that the caller may see', z.strictObject({ actions: z.array(BulkView) })), ...problems() },
})

const get = createRoute({
  method: 'get',
  path: '/bulk/{id}',
  summary: 'Get an action, and how far it is',
  tags: ['bulk'],
  ...keyed,
  middleware: needs('read'),
  request: { params: idParam, query: noQuery },
  responses: { 200: json('The action', BulkView), ...problems(404) },
})

const stop = createRoute({
  method: 'post',
  path: '/bulk/{id}/stop',
  summary: 'Stop an action; what is done stays so',
  tags: ['bulk'],
  ...keyed,
  middleware: needs('control'),
  request: { params: idParam, query: noQuery },
  responses: { 200: json('The action', BulkView), ...problems(404) },
})

export function bulkRoutes({ engine: { bulk } }: ApiParts): App {
  return new OpenAPIHono<AppEnv>()
    .openapi(add, async (c) => {
      const { action, filter, tags = null } = c.req.valid('json')
      const caller = c.get('caller')
      return c.json(presentBulk(await bulk.add({ action, filter, tags, keyId: caller.keyId }, sightOf(caller))), 202)
    })
    .openapi(count, async (c) => c.json({ count: await bulk.count(c.req.valid('json').filter, sightOf(c.get('caller'))) }, 200))
    .openapi(list, async (c) => c.json({ actions: (await bulk.list(sightOf(c.get('caller')))).map(presentBulk) }, 200))
    .openapi(get, async (c) => c.json(presentBulk(await bulk.get(c.req.valid('param').id, sightOf(c.get('caller')))), 200))
    .openapi(stop, async (c) => {
      await refuseBody(c)
      return c.json(presentBulk(await bulk.halt(c.req.valid('param').id, sightOf(c.get('caller')))), 200)
    })
}
