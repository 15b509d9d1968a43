/** Promises that the platform does not have. */
import { setTimeout as delay } from 'node:timers/promises'

/**
 * What `act` resolves to; `late` when it takes longer than `ms`. It goes on then, and its outcome is ignored. Rejects
 * as `act` does in time.
 */
export async function within<T, Late>(ms: number, act: PromiseLike<T>, late: Late): Promise<T | Late> {
  const over = new AbortController()
  try {
    return await Promise.race([act, delay(ms, late, { signal: over.signal })])
  } finally {
    over.abort()
  }
}

/** As `Promise.all`; when it settles none of them goes on. */
export async function allDone<T extends readonly unknown[]>(acts: T): Promise<{ -readonly [K in keyof T]: Awaited<T[K]> }> {
  await Promise.allSettled(acts)
  return Promise.all(acts)
}

export interface Deferred<T> {
  promise: Promise<T>
  resolve: (value: T) => void
  reject: (error: Error) => void
}

/** A promise with its handles. Its rejection need not be awaited. */
export function deferred<T>(): Deferred<T> {
  let resolve!: (value: T) => void
  let reject!: (error: Error) => void
  const promise = new Promise<T>((yes, no) => {
    resolve = yes
    reject = no
  })
  promise.catch(() => undefined)
  return { promise, resolve, reject }
}
