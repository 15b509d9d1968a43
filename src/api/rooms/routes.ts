/** Rooms of the page as it is to show them to the caller, in markup. */
import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { z } from 'zod'
import { needs } from '../auth.ts'
import type { ApiParts, App, AppEnv } from '../context.ts'
import { json, keyed, problems } from '../route.ts'
import type { TellRoom } from './at.ts'
import { batches } from './batches.ts'
import { compare } from './compare.ts'
import { devices } from './devices.ts'
import { keys } from './keys.ts'
import { RoomView } from './markup.ts'
import { models } from './models.ts'
import { schedules } from './schedules.ts'
import { session } from './session.ts'
import { webhooks } from './webhooks.ts'
import { workflows } from './workflows.ts'

const rooms = { batches, compare, devices, keys, models, schedules, session, webhooks, workflows } satisfies Record<string, TellRoom>
const names = Object.keys(rooms) as (keyof typeof rooms)[]

/** Those that are read again at another pace than the others, ms. */
const paces: Partial<Record<keyof typeof rooms, number>> = {
  keys: 10_000,
  models: 10_000,
  workflows: 60_000,
  session: 60_000,
  compare: 60_000,
}
const usualPaceMs = 2000

const said = z.string().max(1000).default('')

const tell = createRoute({
  method: 'get',
  path: '/rooms/{room}',
  summary: 'A room of the page, as the caller may see it',
  description: 'It is for the page of this version: what is in it may change with any other.',
  tags: ['page'],
  ...keyed,
  middleware: needs('read'),
  request: {
    params: z.object({ room: z.enum(names).meta({ param: { name: 'room', in: 'path' } }) }),
    query: z.strictObject({
      of: said.meta({ description: 'what of it is open, by its id or name' }),
      show: said.meta({ description: 'what was chosen to be shown' }),
      line: said.meta({ description: 'what is searched for' }),
    }),
  },
  responses: { 200: json('What it shows', RoomView), ...problems(404) },
})

export const roomRoutes = ({ engine, keys: store }: ApiParts): App =>
  new OpenAPIHono<AppEnv>().openapi(tell, async (c) => {
    const caller = c.get('caller')
    const { room } = c.req.valid('param')
    const markup = await rooms[room]({ engine, keys: store, caller, may: (scope) => caller.scopes.has(scope), ...c.req.valid('query') })
    return c.json({ markup, everyMs: paces[room] ?? usualPaceMs }, 200)
  })
