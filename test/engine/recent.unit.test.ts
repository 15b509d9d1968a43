import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { recent } from '../../src/engine/recent.ts'

describe('a read whose answer serves for a while', () => {
  beforeEach(() => void vi.useFakeTimers())
  afterEach(() => void vi.useRealTimers())

  it('is made once for all who ask within that time, and again after it', async () => {
    let reads = 0
    const read = recent(300, () => Promise.resolve(++reads))
    expect(await Promise.all([read(), read()])).toEqual([1, 1])
    vi.advanceTimersByTime(300)
    expect(await read()).toBe(1)
    vi.advanceTimersByTime(1)
    expect(await read()).toBe(2)
  })

  it('is made again at once when it failed', async () => {
    let reads = 0
    const read = recent(300, () => (++reads === 1 ? Promise.reject(new Error('away')) : Promise.resolve(reads)))
    await expect(read()).rejects.toThrow('away')
    expect(await read()).toBe(2)
  })
})
