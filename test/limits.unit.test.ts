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
  const there: { id: number }[] = []
  const quota = new Quota({ list: () => there as AllocationInfo[] }, { ...readConfig({}).limits, allocations: 2 })
  let last = 0
  /** The memory lists it before who asked for it hears of it. */
  const list = (): number => {
    there.push({ id: ++last })
    return last
  }
  const allocate = (owner: string): number => {
    using counted = quota.another(owner)
    const id = list()
    counted.made(id)
    return id
  }
  const refusal = (owner: string): unknown => {
    try {
      quota.another(owner)[Symbol.dispose]()
      return null
    } catch (error) {
      return (error as { code: unknown }).code
    }
  }

  it('are counted while they are made and while they are there; a session’s are not', () => {
    const first = allocate('key:ann')
    {
      using making = quota.another('key:ann')
      expect(refusal('key:ann')).toBe('limit.allocations')
      making.made(list())
      expect(refusal('key:ann')).toBe('limit.allocations')
    }
    expect(refusal('key:ann')).toBe('limit.allocations')
    allocate('key:bob')
    for (let i = 0; i < 9; i++) allocate('0-session')
    there.splice(
      there.findIndex(({ id }) => id === first),
      1,
    )
    allocate('key:ann')
    expect(refusal('key:ann')).toBe('limit.allocations')
  })

  it('one that is listed and not told yet counts once, one that fails not at all', () => {
    allocate('key:eve')
    {
      using making = quota.another('key:eve')
      there.splice(0)
      const id = list()
      // The first is gone, the second listed and being made: there is room for one.
      quota.another('key:eve')[Symbol.dispose]()
      making.made(id)
    }
    quota.another('key:eve')[Symbol.dispose]()
    allocate('key:eve')
    expect(refusal('key:eve')).toBe('limit.allocations')
  })

  it('of the user of a machine without keys are many', () => {
    for (let i = 0; i < 200; i++) allocate('key:local')
    expect(refusal('key:local')).toBe('limit.allocations')
  })
})
