import { describe, expect, it } from 'vitest'
import { Bell } from '../src/bell.ts'

const minute = 60_000
/** Whether the wait was over at once; otherwise its time is. */
const endsAtOnce = async (wait: Promise<void>): Promise<boolean> => {
  const began = performance.now()
  await wait
  return performance.now() - began < 1000
}

describe('a bell', () => {
  it('wakes its waiter', async () => {
    const bell = new Bell()
    const waiting = endsAtOnce(bell.wait(minute))
    bell.ring()
    expect(await waiting).toBe(true)
  })

  it('keeps the rings while no one waits, as one', async () => {
    const bell = new Bell()
    bell.ring()
    bell.ring()
    expect(await endsAtOnce(bell.wait(minute))).toBe(true)
    expect(await endsAtOnce(bell.wait(1100))).toBe(false)
  })

  it('lets its waiter go when a signal aborts, also one that has done so before', async () => {
    const bell = new Bell()
    const stop = new AbortController()
    const waiting = endsAtOnce(bell.wait(minute, undefined, stop.signal))
    stop.abort()
    expect(await waiting).toBe(true)
    expect(await endsAtOnce(bell.wait(minute, stop.signal))).toBe(true)
  })
})
