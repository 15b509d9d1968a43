/** Headers of requests that make a session: `Idempotency-Key`, and `Prefer: wait=SECONDS` (RFC 7240) with its wait. */
import type { Context, MiddlewareHandler } from 'hono'
import { z } from 'zod'
import { ended, type Session } from '../engine/session.ts'
import { Bell } from '../bell.ts'
import { apiError } from '../errors.ts'
import type { ApiParts, AppEnv, EnginePort } from './context.ts'
import { tolerant } from './stream.ts'

const maxWaitS = 60

/** A bare word, or the string of a structured field (RFC 9651, 3.3.3): what stands between its quotes. */
export const IdempotencyKey = z
  .string()
  .regex(
    /^(?:(?!")[\x21-\x7e]{1,255}|"(?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\]){1,255}")$/,
    'must be 1 to 255 visible ASCII characters, or a string of them in quotes',
  )
  .transform((text) => (text.startsWith('"') ? text.slice(1, -1).replaceAll(/\\(.)/g, '$1') : text))
  .optional()
  .meta({ type: 'string', description: 'a repeat of the same request with the same key is answered with the same session' })

export const Prefer = z
  .string()
  .optional()
  .meta({ description: `\`wait=SECONDS\` (at most ${maxWaitS}) waits for the end of the session`, example: 'wait=30' })

/**
 * Counts a request that prefers to wait among those of its key, before it does anything.
 * @throws DarkroomError `limit.waits`
 */
export function holdWait({ slots }: Pick<ApiParts, 'slots'>): MiddlewareHandler<AppEnv> {
  return async (c, next) => {
    if (c.req.method !== 'POST' || preferredWaitS(c.req.header('prefer')) === undefined) return next()
    const slot = await slots.take('waits', c.get('caller').keyId)
    c.set('wait', slot)
    try {
      await next()
    } finally {
      slot.release()
    }
  }
}

/**
 * Names the session in `Location`, and waits for its end as long as the caller prefers.
 * @returns the session as it is then; `hasWaited` is false for a caller that asked for no wait
 * @throws DarkroomError `api.unauthorized` when the caller's key is revoked meanwhile; the session goes on
 */
export async function afterWait(
  { engine, closing }: Pick<ApiParts, 'engine' | 'closing'>,
  c: Context<AppEnv>,
  session: Session,
): Promise<{ session: Session; hasWaited: boolean }> {
  c.header('Location', `/v1/sessions/${session.id}`)
  const waitS = preferredWaitS(c.req.header('prefer'))
  if (waitS === undefined) return { session, hasWaited: false }
  c.header('Preference-Applied', `wait=${waitS}`)
  const shut = c.get('wait')?.shut
  const latest = await waitForEnd(engine, session, waitS * 1000, c.req.raw.signal, closing, shut)
  if (shut?.aborted) throw apiError('unauthorized', `the API key was revoked while the request waited; session ${session.id} goes on`)
  return { session: latest, hasWaited: true }
}

const token = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"
const word = `(?:${token}|"(?:[^"\\\\]|\\\\.)*")`
/** Nothing, `name` or `name=word`, each with parameters behind semicolons, which no preference here has. */
const preference = new RegExp(`\\s*(?:(${token})\\s*(?:=\\s*(${word})\\s*)?(?:;[^,"]*(?:"(?:[^"\\\\]|\\\\.)*"[^,"]*)*)?)?(?:,|$)`, 'gy')

/**
 * Seconds to wait, at most 60; undefined without a wait in the header. The first `wait` counts, and an unreadable
 * header is ignored, as RFC 7240 says.
 */
export function preferredWaitS(header: string | undefined): number | undefined {
  for (const [, name, value = ''] of (header ?? '').matchAll(preference)) {
    if (name?.toLowerCase() !== 'wait') continue
    const seconds = /^"?(\d+)"?$/.exec(value)?.[1]
    return seconds === undefined ? undefined : Math.min(Number(seconds), maxWaitS)
  }
  return undefined
}

/**
 * The session when it has ended, or as it is after `ms` or when a signal aborts. A Redis that is away meanwhile is no
 * error: the session has been accepted.
 */
async function waitForEnd(
  engine: Pick<EnginePort, 'get' | 'watch'>,
  session: Session,
  ms: number,
  ...signals: (AbortSignal | undefined)[]
): Promise<Session> {
  if (ended.has(session.status)) return session
  const until = performance.now() + ms
  const bell = new Bell()
  let latest = session
  let unwatch: (() => void) | undefined
  try {
    for (;;) {
      unwatch ??= await tolerant(() => engine.watch(session.id, { entry: () => bell.ring(), progress: () => {} }))
      const found = unwatch && (await tolerant(async () => ({ session: await engine.get(session.id) })))
      // A session that was deleted meanwhile had ended; the API knows no later state of it.
      if (found && !found.session) return latest
      latest = found?.session ?? latest
      const left = until - performance.now()
      if (ended.has(latest.status) || left <= 0 || signals.some((signal) => signal?.aborted)) return latest
      await bell.wait(Math.min(1000, left), ...signals)
    }
  } finally {
    unwatch?.()
  }
}
