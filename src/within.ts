import { setTimeout as delay } from 'node:timers/promises'

/** What `act` resolves to; `late` when it takes longer than `ms`. It goes on then, and its outcome is ignored. Rejects as `act` does in time. */
export async function within<T, Late>(ms: number, act: PromiseLike<T>, late: Late): Promise<T | Late> {
  const over = new AbortController()
  try {
    return await Promise.race([act, delay(ms, late, { signal: over.signal })])
  } finally {
    over.abort()
  }
}
