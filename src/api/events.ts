/**
 * The history of a session as server-sent events. Entry n has SSE id n, so a client that comes back, to this process or
 * another, goes on after the last one it saw. Progress frames have no id and are never sent again.
 */
import { createRoute, OpenAPIHono, z } from '@hono/zod-openapi'
import { streamSSE } from 'hono/streaming'
import { DarkroomError } from '../errors.ts'
import { ended, type Progress } from '../engine/session.ts'
import { needs } from './auth.ts'
import { Bell } from '../bell.ts'
import type { ApiParts, App, AppEnv } from './context.ts'
import { EventView, presentEvent, presentProgress } from './present.ts'
import { idParam, keyed, problems } from './route.ts'
import { visible } from './sessions.ts'

const pageSize = 500
const pollMs = 1000
const progressMs = 200
const keepAliveMs = 15_000

const Position = z
  .string()
  .regex(/^\d{1,9}$/, 'must be the id of an event')
  .transform(Number)
  .openapi({ type: 'integer', minimum: 0 })

const events = createRoute({
  method: 'get',
  path: '/sessions/{id}/events',
  summary: 'Follow a session (server-sent events)',
  description:
    'Replays the history after `Last-Event-ID` (or `after`), then follows it. `id` numbers the history entries, `event` is their type, `data` the entry as ' +
    'JSON. Frames of the type `progress` have no id: the latest progress, at most five a second. The stream ends after the terminal event; 204 says that there is nothing more.',
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

export function eventRoutes({ engine, log, closing }: ApiParts): App {
  const routes = new OpenAPIHono<AppEnv>()
  // No response body is one event, so nothing else would bring its schema into the document.
  routes.openAPIRegistry.register('SessionEvent', EventView)
  return routes.openapi(events, async (c) => {
    const { id, status, progress } = await visible(engine, c.req.valid('param').id, c.get('caller'))
    let after = c.req.valid('header')['last-event-id'] ?? c.req.valid('query').after ?? 0
    if (ended.has(status) && (await engine.history(id, after, 1)).length === 0) return c.body(null, 204)
    // Nobody would read the stream of a HEAD, so nothing would ever end it.
    if (c.req.raw.method === 'HEAD') return c.body(null, 200, { 'Content-Type': 'text/event-stream' })

    const bell = new Bell()
    let latest: Progress | undefined = progress ?? undefined
    const unwatch = await engine.watch(id, {
      entry: () => bell.ring(),
      progress: (frame) => {
        latest = frame
        bell.ring()
      },
    })
    c.header('X-Accel-Buffering', 'no')
    return streamSSE(c, async (stream) => {
      const gone = new AbortController()
      stream.onAbort(() => gone.abort())
      let spokenAt = performance.now()
      let progressAt = Number.NEGATIVE_INFINITY
      try {
        while (!gone.signal.aborted && !closing?.aborted) {
          const entries = await tolerant(() => engine.history(id, after, pageSize))
          for (const { id: number, event } of entries ?? []) {
            await stream.writeSSE({ id: String(number), event: event.type, data: JSON.stringify(presentEvent(event)) })
            after = number
            spokenAt = performance.now()
            if (isTerminal(event.type)) return
          }
          if (entries?.length === pageSize) continue

          const now = performance.now()
          if (latest && now - progressAt >= progressMs) {
            await stream.writeSSE({ event: 'progress', data: JSON.stringify(presentProgress(latest)) })
            latest = undefined
            progressAt = spokenAt = performance.now()
          }
          if (now - spokenAt >= keepAliveMs) {
            await stream.write(': still here\n\n')
            spokenAt = performance.now()
          }
          const startedAt = performance.now()
          const nextMs = latest ? Math.max(1, progressMs - (startedAt - progressAt)) : pollMs
          await bell.wait(nextMs, gone.signal, closing)
          if (performance.now() - startedAt >= pollMs - 1 && (await tolerant(() => isOver(id, after))) === true) return
        }
      } catch (error) {
        log.error({ requestId: c.get('requestId'), session: id, err: error }, 'event stream failed')
      } finally {
        unwatch()
      }
    })
  })

  /** True when nothing will come any more: the session is gone, or was at its end already where we stand. */
  async function isOver(id: string, after: number): Promise<boolean> {
    const session = await engine.get(id)
    return !session || (ended.has(session.status) && (await engine.history(id, after, 1)).length === 0)
  }
}

const isTerminal = (type: string): boolean => type === 'session.succeeded' || type === 'session.failed' || type === 'session.cancelled'

/** A Redis that is away for a moment does not end a stream: the next poll asks again. */
export async function tolerant<T>(question: () => Promise<T>): Promise<T | undefined> {
  try {
    return await question()
  } catch (error) {
    if (error instanceof DarkroomError && error.class === 'transient') return undefined
    throw error
  }
}
