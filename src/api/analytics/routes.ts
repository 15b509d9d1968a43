/** How postprocessing went of late: time, memory, quality, verdicts, and what follows from them. */
import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { z } from 'zod'
import { Report } from '../../domains/postprocessing/analytics/report.ts'
import { mostDays } from '../../engine/picture-analytics.ts'
import { needs } from '../auth.ts'
import type { ApiParts, App, AppEnv } from '../context.ts'
import { json, keyed, pageLimit, problems } from '../route.ts'

const get = createRoute({
  method: 'get',
  path: '/images/analytics',
  summary: 'How postprocessing went, with verdicts of policies, by day',
  description: 'Of all API keys together, days of UTC. A figure is told with what follows from it.',
  tags: ['images'],
  ...keyed,
  middleware: needs('operate'),
  request: { query: z.strictObject({ days: pageLimit(mostDays, 7) }) },
  responses: { 200: json('The figures of these days', Report), ...problems() },
})

export const analyticsRoutes = ({ engine }: ApiParts): App =>
  new OpenAPIHono<AppEnv>().openapi(get, async (c) => c.json(await engine.pictureAnalytics.report(c.req.valid('query').days), 200))
