/** What API keys have used of the farm, by day. */
import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { z } from 'zod'
import { keptDays } from '../../engine/usage.ts'
import { needs } from '../auth.ts'
import type { ApiParts, App, AppEnv } from '../context.ts'
import { seesAll } from '../policy.ts'
import { json, keyed, pageLimit, problems } from '../route.ts'
import { presentUsage, UsageView } from './views.ts'

const show = createRoute({
  method: 'get',
  path: '/usage',
  summary: 'What API keys have used, by day: time on devices with what was lost of it, bytes, cache hits',
  description: 'A key sees its own; with the scope `operate`, that of all keys there are.',
  tags: ['usage'],
  ...keyed,
  middleware: needs('read'),
  request: { query: z.strictObject({ days: pageLimit(keptDays, 7) }) },
  responses: { 200: json('The days', UsageView), ...problems() },
})

export const usageRoutes = ({ engine, keys, config }: ApiParts): App =>
  new OpenAPIHono<AppEnv>().openapi(show, async (c) => {
    const caller = c.get('caller')
    const all = seesAll(caller) ? [null, ...(await keys.list()).map(({ id }) => id)] : [caller.keyId]
    return c.json(presentUsage(await engine.usage.days(all, c.req.valid('query').days), config.keyDeviceS), 200)
  })
