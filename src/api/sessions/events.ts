/**
 * The history of a session as server-sent events. Entry n has SSE id n, so a client that comes back, to this process or
 * another, goes on after the last one it received. Progress frames have no id and are never sent again.
 */
import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { z } from 'zod'
import { ended, type EventType, type Progress } from '../../engine/session.ts'
import { needs } from '../auth.ts'
import { Bell } from '../../bell.ts'
import type { ApiParts, App, AppEnv } from '../context.ts'
import { visibleSession } from '../policy.ts'
import { idParam, keyed, problems } from '../route.ts'
import { pollMs, Position, streamEvents, tolerant } from '../stream.ts'
import { EventView, presentEvent, presentProgress } from './views.ts'

const pageSize = 500
const progressMs = 200

const events = createRoute({
  method: 'get',
  path: '/sessions/{id}/events',
  summary: 'Follow a session (server-sent events)',
  description:
    'Replays the history after `Last-Event-ID` (or `after`), then follows it. `id` numbers the history entries, `event` is their type, `data` the entry as ' +
    'JSON. Frames of the type `progress` have no id: the latest progress, at most five a second. The stream ends after the terminal event; 204 says that there is nothing more. ' +
    'A position beyond the history counts as its end.',
  tags: ['sessions'],
  ...keyed,
  middleware: needs('read'),
  request: {
    params: idParam,
    query: z.strictObject({ after: Position.optional() }),
    headers: z.object({ 'last-event-id': Position.optional() }),
  },
  responses: {
    200: { description: 'The stream', content: { 'text/event-stream': { schema: z.string() } } },
    204: { description: 'The session has ended and its last event was seen: do not connect again' },
    ...problems(404),
  },
})

export function eventRoutes(parts: ApiParts): App {
  const { engine } = parts
  const routes = new OpenAPIHono<AppEnv>()
  // No response body is one event, so nothing else would bring its schema into the document.
  routes.openAPIRegistry.register('SessionEvent', EventView)
  return routes.openapi(events, async (c) => {
    const { id, status, progress } = await visibleSession(engine, c.req.valid('param').id, c.get('caller'))
    const received = c.req.valid('header')['last-event-id'] ?? c.req.valid('query').after ?? 0
    if (ended.has(status) && (await engine.history(id, received, 1)).length === 0) return c.body(null, 204)
    let after = await within(id, received)
    return streamEvents(c, parts, async () => {
      const bell = new Bell()
      let latest: Progress | undefined = progress ?? undefined
      let progressAt = Number.NEGATIVE_INFINITY
      let heardAt = performance.now()
      const unwatch = await engine.watch(id, {
        entry: () => bell.ring(),
        progress: (frame) => {
          latest = frame
          bell.ring()
        },
      })
      return {
        bell,
        close: unwatch,
        next: async (send) => {
          const entries = (await tolerant(() => engine.history(id, after, pageSize))) ?? []
          for (const { id: number, event } of entries) {
            await send({ id: number, event: event.type, data: presentEvent(event) })
            after = number
            if (terminal.has(event.type)) return undefined
          }
          if (entries.length === pageSize) return 0
          const now = performance.now()
          if (latest && now - progressAt >= progressMs) {
            await send({ event: 'progress', data: presentProgress(latest) })
            latest = undefined
            progressAt = now
          }
          if (entries.length > 0 || progressAt === now) heardAt = now
          else if (now - heardAt >= pollMs - 1) {
            if ((await tolerant(() => isOver(id, after))) === true) return undefined
            heardAt = now
          }
          return latest ? Math.max(1, progressMs - (now - progressAt)) : pollMs
        },
      }
    })
  })

  /**
   * The position, no further than the history goes. One beyond it is of another history, as of a farm that was restored
   * from a back-up: the listener goes on from the end there is, and gets the numbers that hold here.
   */
  async function within(id: string, received: number): Promise<number> {
    if (received === 0 || (await engine.history(id, received - 1, 1)).length > 0) return received
    for (let end = 0; ;) {
      const page = await engine.history(id, end, pageSize)
      if (page.length === 0) return end
      end += page.length
    }
  }

  /** True when nothing more will come: the session is gone, or had ended before the listener's position. */
  async function isOver(id: string, after: number): Promise<boolean> {
    const session = await engine.get(id)
    return !session || (ended.has(session.status) && (await engine.history(id, after, 1)).length === 0)
  }
}

const terminal: ReadonlySet<EventType> = new Set<EventType>(['session.succeeded', 'session.failed', 'session.cancelled'])
