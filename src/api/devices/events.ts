/** Device events over HTTP: a page of them as JSON, or a stream. */
import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { z } from 'zod'
import { maxEvents, type DeviceEvent } from '../../farm/device-events.ts'
import { needs } from '../auth.ts'
import { Bell } from '../../bell.ts'
import type { ApiParts, App, AppEnv } from '../context.ts'
import { keyed, pageLimit, problems } from '../route.ts'
import { asksForStream, pollMs, Position, streamEvents, tolerant } from '../stream.ts'
import { DeviceEventPage, presentEvent } from './views.ts'

const events = createRoute({
  method: 'get',
  path: '/devices/events',
  summary: 'What has changed of the devices: came, went, busy, degraded, alerts',
  description:
    'The newest 1,000 are kept. As JSON: those after `after`, oldest first, or without it the newest. With `Accept: text/event-stream` a stream: those ' +
    'after `Last-Event-ID` (or `after`, else from now on), then what comes.',
  tags: ['devices'],
  ...keyed,
  middleware: needs('read'),
  request: {
    query: z.strictObject({
      after: Position.optional(),
      device: z.string().min(1).max(200).optional().meta({ description: 'only of this device, by its id' }),
      limit: pageLimit(1000, 100),
    }),
    headers: z.object({ accept: z.string().optional(), 'last-event-id': Position.optional() }),
  },
  responses: {
    200: {
      description: 'The events; `newest` is the number to go on after',
      content: {
        'application/json': { schema: DeviceEventPage },
        'text/event-stream': { schema: z.string() },
      },
    },
    ...problems(),
  },
})

export function deviceEventRoutes(parts: ApiParts): App {
  const { watch } = parts.engine.devices
  return new OpenAPIHono<AppEnv>().openapi(events, async (c) => {
    const { after, device, limit } = c.req.valid('query')
    const { accept, 'last-event-id': last } = c.req.valid('header')
    const isWanted = (event: DeviceEvent): boolean => device === undefined || event.device === device
    const newest = (await watch.events(undefined, 1))[0]?.id ?? 0
    // A number beyond the newest is of another farm, or of one before it was restored: it would hide all that comes.
    const within = (position: number | undefined): number | undefined => (position === undefined ? undefined : Math.min(position, newest))
    if (!asksForStream(accept)) {
      const from = within(after)
      const found = (await watch.events(from, device === undefined ? limit : maxEvents)).filter(isWanted)
      const page = from === undefined ? found.slice(-limit) : found.slice(0, limit)
      return c.json({ events: page.map(presentEvent), newest: page.at(-1)?.id ?? from ?? 0 }, 200)
    }
    let seen = within(last ?? after) ?? newest
    return streamEvents(c, parts, async () => ({
      bell: new Bell(),
      next: async (send) => {
        for (const event of (await tolerant(() => watch.events(seen, 500))) ?? []) {
          seen = event.id
          if (isWanted(event)) await send({ id: event.id, event: event.type, data: presentEvent(event) })
        }
        return pollMs
      },
    }))
  })
}
