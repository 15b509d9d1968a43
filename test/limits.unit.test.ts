import { describe, expect, it } from 'vitest'
import { readConfig } from '../src/config.ts'
import { limitNames, limitReached, mostOf, settingOf } from '../src/limits.ts'
import { Quota } from '../src/workers/device/quota.ts'
import type { AllocationInfo } from '../src/domains/device-memory.ts'

describe('a limit', () => {
  it.each(limitNames)('%s has a setting, of which 0 is no limit, and a refusal that names it', (name) => {
    expect(readConfig({}).limits[name]).toBeGreaterThanOrEqual(500)
    expect(readConfig({ [settingOf(name)]: '3' }).limits[name]).toBe(3)
    expect(readConfig({ [settingOf(name)]: '0' }).limits[name]).toBe(Infinity)
    expect(() => readConfig({ [settingOf(name)]: '-1' })).toThrow(settingOf(name))
    expect(() => readConfig({ [settingOf(name)]: 'many' })).toThrow(settingOf(name))
    const refusal = limitReached(name, '01234567', 3)
    expect(refusal.code).toBe(`limit.${name}`)
    expect(refusal.message).toMatch(/API key 01234567 has 3 /)
    expect(refusal.remedy).toContain(settingOf(name))
  })

  it('is far higher for the user of a machine without keys', () => {
    const { limits } = readConfig({})
    for (const name of limitNames) expect(mostOf(limits, name, null)).toBe(100 * mostOf(limits, name, '01234567'))
  })
})

describe('the allocations of an API key', () => {
  const there: { owner: string }[] = []
  const quota = new Quota({ list: () => there as AllocationInfo[] }, { ...readConfig({}).limits, allocations: 2 })

  it('are counted while they are made and while they are there; a session’s are not', () => {
    there.push({ owner: 'key:ann' })
    {
      using _making = quota.another('key:ann')
      expect(() => quota.another('key:ann')).toThrow(expect.objectContaining({ code: 'limit.allocations' }))
      quota.another('key:bob')[Symbol.dispose]()
    }
    quota.another('key:ann')[Symbol.dispose]()
    there.push({ owner: 'key:ann' })
    expect(() => quota.another('key:ann')).toThrow(expect.objectContaining({ code: 'limit.allocations' }))
    for (let i = 0; i < 9; i++) there.push({ owner: '0-session' })
    quota.another('0-session')[Symbol.dispose]()
    there.splice(0, 1)
    quota.another('key:ann')[Symbol.dispose]()
  })

  it('of the user of a machine without keys are many', () => {
    for (let i = 0; i < 199; i++) there.push({ owner: 'key:local' })
    quota.another('key:local')[Symbol.dispose]()
    there.push({ owner: 'key:local' })
    expect(() => quota.another('key:local')).toThrow(expect.objectContaining({ code: 'limit.allocations' }))
  })
})
