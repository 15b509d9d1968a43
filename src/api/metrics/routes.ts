/** Metrics for Prometheus, outside `/v1`: a scraper expects them at `/metrics`. */
import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { z } from 'zod'
import { needs } from '../auth.ts'
import type { App, AppEnv } from '../context.ts'
import { keyed, noQuery, problems } from '../route.ts'
import type { Metrics } from './metrics.ts'

const scrape = createRoute({
  method: 'get',
  path: '/metrics',
  summary: 'Metrics of the farm and of this process, for Prometheus',
  tags: ['health'],
  ...keyed,
  middleware: needs('metrics'),
  request: { query: noQuery },
  responses: { 200: { description: 'In its text format', content: { 'text/plain': { schema: z.string() } } }, ...problems() },
})

export const metricsRoutes = (metrics: Metrics): App =>
  new OpenAPIHono<AppEnv>().openapi(scrape, async (c) => c.text(await metrics.text(), 200, { 'Content-Type': metrics.contentType }))
