/**
 * Streams of server-sent events. A stream ends with its listener or with this process; it outlives a Redis that is away
 * for a moment.
 */
import type { Context } from 'hono'
import { streamSSE } from 'hono/streaming'
import { z } from 'zod'
import { DarkroomError } from '../errors.ts'
import type { Bell } from '../bell.ts'
import type { ApiParts, AppEnv } from './context.ts'

/** A feed is asked for new events at least this often, ms. */
export const pollMs = 1000
const keepAliveMs = 15_000
/** How long a stream that is shut may take to send its end: a listener may not read, ms. */
const shutMs = 500

/** The last event that a listener has received, as `Last-Event-ID` or `after` gives it. */
export const Position = z
  .string()
  .regex(/^\d{1,15}$/, 'must be the id of an event')
  .transform(Number)
  .meta({ type: 'integer', minimum: 0 })

/** Whether `Accept` (RFC 9110, 12.5.1) names the type of event streams, and not with a weight of 0. */
export const asksForStream = (accept: string | undefined): boolean =>
  /(?:^|,)\s*text\/event-stream\s*(?:;(?!\s*q=0(?:\.0{0,3})?\s*(?:[;,]|$))[^;,]*)*(?:,|$)/i.test(accept ?? '')

export interface StreamedEvent {
  /** Left out where the event is not sent again to a listener that comes back. */
  id?: number
  event: string
  data: unknown
}

/** Where the events of one stream come from. */
export interface Feed {
  /** Rings when there may be new events. */
  bell: Bell
  /**
   * Sends the new events. Returns the ms until it wants to be called again at the latest; undefined ends the stream.
   */
  next(send: (event: StreamedEvent) => Promise<void>): Promise<number | undefined>
  close?(): void
}

/**
 * Answers with the events of a feed, which is opened when there is a listener.
 * @throws DarkroomError `limit.streams`
 */
export async function streamEvents(
  c: Context<AppEnv>,
  { log, slots, closing }: Pick<ApiParts, 'log' | 'slots' | 'closing'>,
  open: () => Promise<Feed>,
): Promise<Response> {
  // No listener reads the stream of a HEAD, so nothing would ever end it.
  if (c.req.raw.method === 'HEAD') return c.body(null, 200, { 'Content-Type': 'text/event-stream' })
  const slot = await slots.take('streams', c.get('caller').keyId)
  const feed = await open().catch((error: unknown) => {
    slot.release()
    throw error
  })
  c.header('X-Accel-Buffering', 'no')
  return streamSSE(c, async (stream) => {
    const gone = new AbortController()
    stream.onAbort(() => gone.abort())
    let late: NodeJS.Timeout | undefined
    slot.shut.addEventListener('abort', () => {
      late = setTimeout(() => c.env.incoming?.socket.destroy(), shutMs)
    })
    let sentAt = performance.now()
    const send = async ({ id, event, data }: StreamedEvent): Promise<void> => {
      await stream.writeSSE({ event, data: JSON.stringify(data), ...(id !== undefined && { id: String(id) }) })
      sentAt = performance.now()
    }
    try {
      // One signal of the stream's own: to those of all streams, each wait of each would add itself.
      const over = AbortSignal.any([gone.signal, slot.shut, ...(closing ? [closing] : [])])
      while (!over.aborted) {
        const waitMs = await feed.next(send)
        if (waitMs === undefined) return
        if (performance.now() - sentAt >= keepAliveMs) {
          await stream.write(': still here\n\n')
          sentAt = performance.now()
        }
        await feed.bell.wait(waitMs, over)
      }
    } catch (error) {
      log.error({ requestId: c.get('requestId'), path: c.req.path, err: error }, 'event stream failed')
    } finally {
      clearTimeout(late)
      slot.release()
      feed.close?.()
    }
  })
}

/** The answer, or undefined while Redis is away: the next poll asks again. */
export async function tolerant<T>(question: () => Promise<T>): Promise<T | undefined> {
  try {
    return await question()
  } catch (error) {
    if (error instanceof DarkroomError && error.class === 'transient') return undefined
    throw error
  }
}
