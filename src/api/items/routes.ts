/** Items of a session, and what has come of them. */
import { Readable } from 'node:stream'
import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { z } from 'zod'
import { sessionError } from '../../errors.ts'
import { needs } from '../auth.ts'
import type { ApiParts, App, AppEnv } from '../context.ts'
import { visibleSession } from '../policy.ts'
import { idParam, json, keyed, noQuery, pageLimit, problems } from '../route.ts'
import { itemStatuses, ItemPage, presentItem } from './views.ts'
import { zipOf } from './zip.ts'

const list = createRoute({
  method: 'get',
  path: '/sessions/{id}/items',
  summary: 'List the items of a session',
  description: 'What a batch was expanded to, in that order, each with its session once it has one.',
  tags: ['sessions'],
  ...keyed,
  middleware: needs('read'),
  request: {
    params: idParam,
    query: z.strictObject({
      status: z.enum(itemStatuses).optional(),
      cursor: z
        .string()
        .regex(/^\d{1,9}$/, 'must be `next` of the page before, unchanged')
        .optional()
        .meta({ description: '`next` of the page before' }),
      limit: pageLimit(200, 50),
    }),
  },
  responses: { 200: json('A page', ItemPage), ...problems(404, 409) },
})

const results = createRoute({
  method: 'get',
  path: '/sessions/{id}/results.zip',
  summary: 'Fetch the pictures of a session as a ZIP',
  description:
    'Those that there are by now, named by their items, and `items.json`, which says of each item what it is and what came of it.',
  tags: ['sessions'],
  ...keyed,
  middleware: needs('read'),
  request: { params: idParam, query: noQuery },
  responses: {
    200: { description: 'The file', content: { 'application/zip': { schema: z.string().meta({ type: 'string', format: 'binary' }) } } },
    ...problems(404, 409),
  },
})

export function itemRoutes({ engine, artifacts, slots, log }: ApiParts): App {
  return new OpenAPIHono<AppEnv>()
    .openapi(list, async (c) => {
      const { id } = await visibleSession(engine, c.req.valid('param').id, c.get('caller'))
      const { status, cursor = '0', limit } = c.req.valid('query')
      const { items, next } = await engine.items.page(id, { status, from: Number(cursor), limit })
      return c.json({ items: items.map(presentItem), next: next === null ? null : String(next) }, 200)
    })
    .openapi(results, async (c) => {
      const session = await visibleSession(engine, c.req.valid('param').id, c.get('caller'))
      const { id } = session
      const { count, stream } = await zipOf(engine.items.results(session), artifacts, new Date(session.createdAt))
      if (count === 0) throw sessionError('no_results', `session ${id} has no pictures`)
      const headers = { 'Content-Type': 'application/zip', 'Content-Disposition': `attachment; filename="darkroom-${id}.zip"` }
      if (c.req.raw.method === 'HEAD') return c.body(null, 200, headers)
      const slot = await slots.take('streams', c.get('caller').keyId)
      const file = stream()
      slot.shut.addEventListener('abort', () => file.destroy(new Error('the key of this download was revoked')))
      file.on('error', (error) => log.warn({ session: id, err: error }, 'a ZIP was cut off'))
      file.once('close', () => slot.release())
      return c.body(Readable.toWeb(file) as ReadableStream<Uint8Array>, 200, headers)
    })
}
