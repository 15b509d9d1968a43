/** `Prefer: wait=SECONDS` (RFC 7240): a caller that would rather wait for the end. */
import { DarkroomError } from '../errors.ts'
import { ended, type Session } from '../engine/session.ts'
import { Bell } from '../bell.ts'
import type { EnginePort } from './context.ts'

const longestWaitS = 60

/** Seconds to wait, at most 60; undefined when the header asks for nothing. A preference that cannot be read is ignored, as the RFC wants. */
export function preferredWaitS(header: string | undefined): number | undefined {
  for (const preference of header?.split(',') ?? []) {
    const seconds = /^\s*wait\s*=\s*"?(\d{1,9})"?\s*(?:;.*)?$/i.exec(preference)?.[1]
    if (seconds !== undefined) return Math.min(Number(seconds), longestWaitS)
  }
  return undefined
}

/**
 * The session when it has ended, or as it is after `ms` or when a signal aborts. Redis going away meanwhile is no error:
 * the session has been accepted.
 */
export async function waitForEnd(
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
      try {
        unwatch ??= await engine.watch(session.id, { entry: () => bell.ring(), progress: () => {} })
        const found = await engine.get(session.id)
        // Deleted while we waited: it had ended, and the last we saw of it is all there is.
        if (!found) return latest
        latest = found
      } catch (error) {
        if (!(error instanceof DarkroomError && error.class === 'transient')) throw error
      }
      const left = until - performance.now()
      if (ended.has(latest.status) || left <= 0 || signals.some((signal) => signal?.aborted)) return latest
      await bell.wait(Math.min(1000, left), ...signals)
    }
  } finally {
    unwatch?.()
  }
}
