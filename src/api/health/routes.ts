/** For programs that watch the process. These routes ask for no key. */
import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { recent } from '../../engine/recent.ts'
import { apiError } from '../../errors.ts'
import { logFile } from '../../log.ts'
import { callerOf, isLocal } from '../auth.ts'
import type { ApiParts, App, AppEnv } from '../context.ts'
import { json, noQuery, problems } from '../route.ts'
import { notReady } from './readiness.ts'
import { HealthView, ReadyView } from './views.ts'

/** However often it is asked, the farm is looked at once in this time, ms. */
const lookMs = 500

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
    '503 while Redis takes no writes, while the artifact store takes no files, and while no worker takes steps. What a single session waits for changes ' +
    'nothing. `reasons` says which, to callers with an API key and on the same machine.',
  tags: ['health'],
  request: { query: noQuery },
  responses: { 200: json('Ready', ReadyView), ...problems() },
})

export function healthRoutes(parts: ApiParts): App {
  const { keys, closing } = parts
  const look = recent(lookMs, () => notReady(parts))
  return new OpenAPIHono<AppEnv>()
    .openapi(health, (c) => c.json({ status: 'ok' as const, uptimeS: process.uptime(), logLinesDropped: logFile.dropped }, 200))
    .openapi(ready, async (c) => {
      if (closing?.aborted) throw apiError('closing', 'this process is shutting down')
      const reasons = await look()
      if (reasons.length === 0) return c.json({ status: 'ready' as const }, 200)
      // With Redis away no key can be told from another.
      const isTold = isLocal(c) || (await callerOf(c, keys).catch(() => undefined)) !== undefined
      throw apiError('not_ready', isTold ? reasons.join('; ') : 'this farm is not ready', { ...(isTold && { details: { reasons } }) })
    })
}
