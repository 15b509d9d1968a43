/** For programs that watch the process. These routes ask for no key. */
import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { apiError } from '../../errors.ts'
import { logFile } from '../../log.ts'
import type { ApiParts, App, AppEnv } from '../context.ts'
import { json, noQuery, problems } from '../route.ts'
import { HealthView, ReadyView } from './views.ts'

const health = createRoute({
  method: 'get',
  path: '/health',
  summary: 'Whether this process lives',
  tags: ['health'],
  request: { query: noQuery },
  responses: { 200: json('It does', HealthView), ...problems() },
})

const ready = createRoute({
  method: 'get',
  path: '/ready',
  summary: 'Whether what is submitted now will be worked on',
  description:
    '503 while Redis does not answer or takes no writes, while no worker can run a waiting session, and while a lane takes nothing although jobs wait; `reasons` says which.',
  tags: ['health'],
  request: { query: noQuery },
  responses: { 200: json('Ready', ReadyView), ...problems() },
})

export function healthRoutes({ engine, closing }: ApiParts): App {
  return new OpenAPIHono<AppEnv>()
    .openapi(health, (c) => c.json({ status: 'ok' as const, uptimeS: process.uptime(), logLinesDropped: logFile.dropped }, 200))
    .openapi(ready, async (c) => {
      if (closing?.aborted) throw apiError('closing', 'this process is shutting down')
      const { ready: isReady, reasons } = await engine.ready()
      if (!isReady) throw apiError('not_ready', reasons.join('; ') || 'not ready', { details: { reasons } })
      return c.json({ status: 'ready' as const }, 200)
    })
}
