import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { z } from 'zod'
import { needs } from '../auth.ts'
import type { ApiParts, App, AppEnv } from '../context.ts'
import { json, keyed, noQuery, problems } from '../route.ts'
import { presentWorker, WorkerView } from './views.ts'

const list = createRoute({
  method: 'get',
  path: '/workers',
  summary: 'List the workers that live now, as they describe themselves',
  tags: ['workers'],
  ...keyed,
  middleware: needs('read'),
  request: { query: noQuery },
  responses: { 200: json('All workers', z.strictObject({ workers: z.array(WorkerView) })), ...problems() },
})

export function workerRoutes({ engine }: ApiParts): App {
  return new OpenAPIHono<AppEnv>().openapi(list, async (c) => {
    const workers = await engine.workers()
    return c.json({ workers: workers.map((worker) => presentWorker(worker, c.get('caller'))) }, 200)
  })
}
