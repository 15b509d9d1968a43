import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  calm,
  dwellMs,
  evictableOf,
  fractionOf,
  levelOf,
  makeRoom,
  nextReliefStep,
  press,
  type Droppable,
  type Level,
} from '../../../../src/domains/memory/figures/pressure.ts'
import { levels } from '../../../../src/domains/memory/figures/report.ts'
import { DarkroomError } from '../../../../src/errors.ts'

const nothing: Droppable = { caches: 0, idleModels: [] }
const total = 1000

const level = fc.constantFrom(...levels)
const bytes = fc.integer({ min: 0, max: total })
const droppable: fc.Arbitrary<Droppable> = fc.record({
  caches: bytes,
  idleModels: fc.array(fc.record({ id: fc.string({ minLength: 1 }), bytes }), { maxLength: 5 }),
})
const rank = (of: Level): number => levels.indexOf(of)
const at = (used: number, drop = nothing, before = calm(0)) => press(before, { total, used }, drop, 1)

describe('the fraction of a pool in use', () => {
  it('counts only what cannot be dropped at once', () => {
    expect(at(960, { caches: 100, idleModels: [{ id: 'a', bytes: 300 }] })).toMatchObject({ fraction: 0.56, evictable: 400, level: 'ok' })
  })

  it('is null when nobody knows the pool, and changes no level then', () => {
    const before = at(970)
    expect(before.level).toBe('critical')
    for (const pool of [
      { total: null, used: 5 },
      { total: 5, used: null },
      { total: 0, used: 0 },
    ])
      expect(press(before, pool, nothing, 9)).toMatchObject({ fraction: null, level: 'critical', since: before.since })
  })

  it('is never below 0, however much is said to be evictable', () => {
    fc.assert(fc.property(bytes, droppable, (used, drop) => (fractionOf({ total, used }, evictableOf(drop)) ?? -1) >= 0))
  })
})

describe('levels', () => {
  it.each([
    [0.799, 'ok'],
    [0.8, 'elevated'],
    [0.9, 'high'],
    [0.95, 'critical'],
    [1.4, 'critical'],
  ] as const)('begin where they say: %d is %s', (fraction, expected) => expect(levelOf(fraction, 'ok')).toBe(expected))

  it('are left only some way below where they begin', () => {
    expect(levelOf(0.93, 'critical')).toBe('critical')
    expect(levelOf(0.91, 'critical')).toBe('high')
    expect(levelOf(0.78, 'elevated')).toBe('elevated')
    expect(levelOf(0.76, 'elevated')).toBe('ok')
    expect(levelOf(0.1, 'critical')).toBe('ok')
  })

  it('hold still while a figure trembles around any threshold', () => {
    const tremble = fc.array(fc.double({ min: -0.014, max: 0.014, noNaN: true }), { minLength: 1, maxLength: 50 })
    fc.assert(
      fc.property(fc.double({ min: 0, max: 1.2, noNaN: true }), tremble, (around, offsets) => {
        let now: Level = 'ok'
        let changes = 0
        for (const offset of offsets) {
          const next = levelOf(Math.max(0, around + offset), now)
          if (next !== now) changes++
          now = next
        }
        // It may climb, level by level; it never comes back down.
        expect(changes).toBeLessThanOrEqual(rank(now))
      }),
    )
  })

  it('rise with the fraction, and never lie below what it says', () => {
    fc.assert(
      fc.property(fc.double({ min: 0, max: 1.2, noNaN: true }), fc.double({ min: 0, max: 1.2, noNaN: true }), level, (a, b, before) => {
        const [low, high] = [Math.min(a, b), Math.max(a, b)]
        expect(rank(levelOf(low, before))).toBeLessThanOrEqual(rank(levelOf(high, before)))
        expect(rank(levelOf(a, before))).toBeGreaterThanOrEqual(rank(levelOf(a, 'ok')))
        expect(levelOf(a, levelOf(a, before))).toBe(levelOf(a, before))
      }),
    )
  })
})

describe('the ladder', () => {
  const models = [
    { id: 'oldest', bytes: 50 },
    { id: 'newest', bytes: 70 },
  ]

  it('leaves what is idle where it is while the pool is at ease', () => {
    expect(nextReliefStep(at(1000, { caches: 500, idleModels: models }), { caches: 500, idleModels: models }, null, 0)).toBeNull()
  })

  it('empties caches first, then lets go of idle models from the oldest on, then refuses', () => {
    const full = (drop: Droppable) => at(1000 + evictableOf(drop), drop)
    const first = { caches: 20, idleModels: models }
    expect(nextReliefStep(full(first), first, null, 0)).toEqual({ is: 'caches', bytes: 20 })
    const second = { caches: 0, idleModels: models }
    expect(nextReliefStep(full(second), second, 0, dwellMs)).toEqual({ is: 'model', id: 'oldest', bytes: 50 })
    expect(nextReliefStep(full(nothing), nothing, 0, dwellMs)).toEqual({ is: 'refuse' })
  })

  it('keeps idle models until the level is high, and refuses nothing before it is critical', () => {
    const drop = { caches: 0, idleModels: models }
    expect(nextReliefStep(at(850 + 120, drop), drop, null, 0)).toBeNull()
    expect(nextReliefStep(at(910 + 120, drop), drop, null, 0)).toMatchObject({ id: 'oldest' })
    expect(nextReliefStep(at(910), nothing, null, 0)).toBeNull()
  })

  it('lets caches be that are not worth the trouble', () => {
    expect(nextReliefStep(at(850, { caches: 9, idleModels: [] }), { caches: 9, idleModels: [] }, null, 0)).toBeNull()
  })

  it('does nothing before the last rung had its time', () => {
    fc.assert(
      fc.property(bytes, droppable, fc.integer({ min: 0, max: dwellMs - 1 }), (used, drop, past) => {
        expect(nextReliefStep(at(used, drop), drop, 1000, 1000 + past)).toBeNull()
      }),
    )
  })

  it('comes to rest: from any pool it ends at ease or refusing, each rung once', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 2 * total }), droppable, (start, given) => {
        let [used, drop, now, climbed] = [start + evictableOf(given), given, 0, null as number | null]
        let pressure = calm(0)
        for (let rungs = 0; ; rungs++) {
          expect(rungs).toBeLessThanOrEqual(1 + given.idleModels.length + 1)
          now += dwellMs
          pressure = press(pressure, { total, used }, drop, now)
          const rung = nextReliefStep(pressure, drop, climbed, now)
          if (rung === null || rung.is === 'refuse') break
          climbed = now
          used -= rung.bytes
          drop = rung.is === 'caches' ? { ...drop, caches: 0 } : { ...drop, idleModels: drop.idleModels.slice(1) }
        }
      }),
    )
  })
})

describe('room for what is new', () => {
  it('is made by no more rungs than it takes, and refused with figures when all of them are not enough', () => {
    fc.assert(
      fc.property(bytes, droppable, fc.integer({ min: 1, max: 3 * total }), (used, drop, need) => {
        const pressure = at(used, drop)
        const free = total - used
        const most = free + evictableOf(drop)
        if (need > most || pressure.level === 'critical') {
          const error = (() => {
            try {
              return makeRoom('pool', pressure, drop, need)
            } catch (thrown) {
              return thrown
            }
          })()
          expect(error).toBeInstanceOf(DarkroomError)
          expect(error).toMatchObject({ code: 'memory.exhausted', class: 'resource', details: { need, free } })
          return
        }
        const rungs = makeRoom('pool', pressure, drop, need)
        const made = rungs.map((rung) => (rung.is === 'refuse' ? 0 : rung.bytes))
        const sum = (list: number[]): number => list.reduce((a, b) => a + b, 0)
        expect(free + sum(made)).toBeGreaterThanOrEqual(need)
        if (rungs.length > 0) expect(free + sum(made.slice(0, -1))).toBeLessThan(need)
        const gone = rungs.flatMap((rung) => (rung.is === 'model' ? [rung.id] : []))
        expect(gone).toEqual(drop.idleModels.slice(0, gone.length).map(({ id }) => id))
      }),
    )
  })

  it('is the system’s to judge where nobody knows the pool', () => {
    expect(makeRoom('pool', press(calm(0), { total: null, used: null }, nothing, 1), nothing, 1e12)).toEqual([])
  })
})
