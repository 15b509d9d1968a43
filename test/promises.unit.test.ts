import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { deferred, within } from '../src/promises.ts'

describe('what is waited for within a time', () => {
  it('gives its value, or fails as it does', async () => {
    expect(await within(60_000, Promise.resolve('value'), 'late')).toBe('value')
    await expect(within(60_000, Promise.reject(new Error('its own')), 'late')).rejects.toThrow('its own')
  })

  it('is late after that time, and may fail then without harm', async () => {
    const act = deferred<string>()
    expect(await within(5, act.promise, 'late')).toBe('late')
    act.reject(new Error('nobody hears of it'))
    await delay(5)
  })
})
