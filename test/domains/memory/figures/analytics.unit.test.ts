import { describe, expect, it } from 'vitest'
import type { AllocationInfo } from '../../../../src/domains/device-memory.ts'
import { Analytics, type Sample } from '../../../../src/domains/memory/figures/analytics.ts'
import { LeakBook } from '../../../../src/domains/memory/figures/leaks.ts'
import { recommend } from '../../../../src/domains/memory/figures/recommendations.ts'
import { LeakReport, MemoryAnalytics, type AllocationView } from '../../../../src/domains/memory/figures/report.ts'

const MiB = 2 ** 20
const start = 1_800_000_000_000
const minute = 60_000
const hour = 60 * minute

const sample = (at: number, more: Partial<Sample> & { usage?: Sample['usage'] } = {}): Sample => ({
  at,
  figures: { total: 1000 * MiB, budget: null, used: 100 * MiB },
  usage: { tracked: 10 * MiB, reserved: 20 * MiB, fragmentation: 0, largestHole: 10 * MiB },
  fraction: 0.1,
  evictable: 0,
  idleModelBytes: 0,
  owners: { session: 6 * MiB, key: 4 * MiB },
  ...more,
})
const info = (more: Partial<AllocationInfo> = {}): AllocationInfo => ({
  id: 1,
  device: 0,
  bytes: MiB,
  kind: 'device',
  placement: 'placed',
  owner: 'key:a',
  ageMs: 1000,
  timeLeftMs: null,
  inUse: false,
  ...more,
})
const codes = (analytics: Analytics): string[] => analytics.summary().recommendations.map(({ code }) => code)

/** One sample a second for so long. */
function watch(analytics: Analytics, ms: number, more: Parameters<typeof sample>[1] = {}, from = start): void {
  for (let at = from; at < from + ms; at += 1000) analytics.sample(sample(at, more))
}

describe('analytics of a device’s memory', () => {
  it('are what their schema says, from the first moment on', () => {
    const analytics = new Analytics(start)
    expect(MemoryAnalytics.parse(analytics.summary())).toMatchObject({ samples: 0, peaks: { used: null }, recommendations: [] })
    watch(analytics, 2 * minute)
    analytics.allocated(info())
    analytics.ended(info(), 'released')
    analytics.refused(5, 'memory.exhausted', start)
    expect(MemoryAnalytics.parse(JSON.parse(JSON.stringify(analytics.summary())))).toEqual(analytics.summary())
  })

  it('stay of one size through two days, and keep the last five minutes, hour and day', () => {
    const analytics = new Analytics(start)
    watch(analytics, 48 * hour)
    const { series } = analytics.summary()
    expect(series.map(({ stepMs, at }) => [stepMs, at.length])).toEqual([
      [1000, 300],
      [10_000, 360],
      [300_000, 288],
    ])
    for (const { at, ...columns } of series)
      for (const column of Object.values(columns)) if (Array.isArray(column)) expect(column).toHaveLength(at.length)
    expect(JSON.stringify(analytics.summary()).length).toBeLessThan(100_000)
  })

  it('keep the highest of a step, and its time as a peak', () => {
    const analytics = new Analytics(start)
    for (const [i, used] of [5, 9, 7].entries())
      analytics.sample(sample(start + i * 1000, { figures: { total: 10, budget: null, used }, fraction: used / 10 }))
    const { series, peaks } = analytics.summary()
    expect(series[0]?.used).toEqual([5, 9, 7])
    expect(series[1]).toMatchObject({ at: [start], used: [9], fraction: [0.9] })
    expect(peaks.used).toEqual({ bytes: 9, at: start + 1000 })
  })

  it('say null, not 0, for a figure that nobody knows', () => {
    const analytics = new Analytics(start)
    analytics.sample(sample(start, { figures: { total: null, budget: null, used: null }, fraction: null }))
    expect(analytics.summary()).toMatchObject({ total: null, peaks: { used: null }, series: [{ used: [null], fraction: [null] }, {}, {}] })
  })

  it('survive a clock that goes back', () => {
    const analytics = new Analytics(start)
    analytics.sample(sample(start))
    analytics.sample(sample(start - hour))
    analytics.sample(sample(start + 1000))
    expect(analytics.summary().series[0]?.at).toEqual([start, start + 1000])
  })

  it('count sizes and lifetimes in steps that double, each value in the one that holds it', () => {
    const analytics = new Analytics(start)
    const sizes = [1, 2, 3, 4, 1023, 1024, MiB, Number.MAX_SAFE_INTEGER]
    for (const bytes of sizes) analytics.allocated(info({ bytes, placement: 'committed' }))
    const { sizes: histogram, placedSizes } = analytics.summary()
    expect(histogram.reduce((sum, { count }) => sum + count, 0)).toBe(sizes.length)
    for (const { from, to, count } of histogram)
      expect(
        sizes.filter((bytes) => bytes >= from && (bytes < to || to === Number.MAX_SAFE_INTEGER)),
        `${from} to ${to}`,
      ).toHaveLength(count)
    expect(placedSizes).toEqual([])
  })

  it('total by kind of owner, and remember few owners one by one', () => {
    const analytics = new Analytics(start)
    watch(analytics, 1000)
    for (let i = 0; i < 1000; i++) analytics.ended(info({ owner: `session-${i}` }), 'expired')
    analytics.allocated(info())
    analytics.ended(info(), 'released')
    const { totals, expiring } = analytics.summary()
    expect(totals.session).toMatchObject({ bytes: 6 * MiB, expired: 1000 })
    expect(totals.key).toEqual({ bytes: 4 * MiB, allocated: 1, allocatedBytes: MiB, released: 1, expired: 0, orphaned: 0 })
    expect(expiring).toHaveLength(10)
  })
})

describe('recommendations', () => {
  const holes = { tracked: 60 * MiB, reserved: 100 * MiB, fragmentation: 0.8, largestHole: MiB }

  it('are none for a device that is at ease', () => {
    const analytics = new Analytics(start)
    watch(analytics, 10 * minute)
    for (let i = 0; i < 100; i++) analytics.allocated(info())
    for (let i = 0; i < 100; i++) analytics.ended(info(), 'released')
    expect(analytics.summary().recommendations).toEqual([])
  })

  it('defragment: much is free, in pieces smaller than what is usually asked for', () => {
    const analytics = new Analytics(start)
    for (let i = 0; i < 20; i++) analytics.allocated(info({ bytes: 8 * MiB }))
    watch(analytics, minute, { usage: holes })
    expect(analytics.summary().recommendations).toMatchObject([
      { code: 'memory.defragment', workflow: 'memory-defragment', figures: { largestHole: MiB, free: 40 * MiB, typical: 8 * MiB } },
    ])
  })

  it.each([
    ['from less than a minute', 20, 59_000, holes],
    ['from few allocations', 19, minute, holes],
    ['when a typical one fits', 20, minute, { ...holes, largestHole: 8 * MiB }],
    ['when all that is free is less than a typical one', 20, minute, { ...holes, reserved: 64 * MiB }],
    ['at a low fragmentation', 20, minute, { ...holes, fragmentation: 0.3 }],
  ])('no defragmentation %s', (_why, allocations, ms, usage) => {
    const analytics = new Analytics(start)
    for (let i = 0; i < allocations; i++) analytics.allocated(info({ bytes: 8 * MiB }))
    watch(analytics, ms, { usage })
    expect(codes(analytics)).toEqual([])
  })

  it('no defragmentation for a fragmentation that came and went', () => {
    const analytics = new Analytics(start)
    for (let i = 0; i < 20; i++) analytics.allocated(info({ bytes: 8 * MiB }))
    watch(analytics, minute, { usage: holes })
    analytics.sample(sample(start + minute))
    analytics.sample(sample(start + minute + 1000, { usage: holes }))
    expect(codes(analytics)).toEqual([])
  })

  it('a leak: an owner whose allocations always end by their time, by name', () => {
    const analytics = new Analytics(start)
    for (let i = 0; i < 5; i++) analytics.ended(info({ owner: 'key:forgetful', bytes: 7 }), 'expired')
    for (let i = 0; i < 4; i++) analytics.ended(info({ owner: 'key:new' }), 'expired')
    for (let i = 0; i < 9; i++) analytics.ended(info({ owner: 'key:careful' }), i === 0 ? 'released' : 'expired')
    const { recommendations } = analytics.summary()
    expect(recommendations).toMatchObject([{ code: 'memory.leak_suspected', owner: 'key:forgetful', figures: { expired: 5, bytes: 35 } }])
    expect(recommendations[0]?.message).toContain('key:forgetful')
  })

  it('smaller work or another device: the pool was nearly full within the hour', () => {
    const analytics = new Analytics(start)
    watch(analytics, minute)
    analytics.sample(sample(start + minute, { fraction: 0.97 }))
    expect(analytics.summary().recommendations).toMatchObject([{ code: 'memory.near_limit', figures: { peak: 0.97, steps: 1 } }])
    watch(analytics, 2 * hour, {}, start + 2 * minute)
    expect(codes(analytics)).toEqual([])
  })

  it('no word about the limit from less than a minute', () => {
    const analytics = new Analytics(start)
    watch(analytics, 59_000, { fraction: 0.99 })
    expect(codes(analytics)).toEqual([])
  })

  it('let idle models go: requests were refused while these held enough', () => {
    const analytics = new Analytics(start)
    const refuse = (idleModelBytes: number, times: number): void => {
      for (let i = 0; i < times; i++) {
        analytics.sample(sample(start + 1000, { idleModelBytes }))
        analytics.refused(100, 'memory.exhausted', start + 1000)
      }
    }
    refuse(99, 10)
    refuse(100, 2)
    expect(codes(analytics)).toEqual([])
    refuse(100, 1)
    expect(analytics.summary().recommendations).toMatchObject([
      { code: 'memory.evict_models', workflow: 'device-optimize', figures: { refusals: 3, bytes: 100, idleModelBytes: 100 } },
    ])
    analytics.sample(sample(start + 2 * hour))
    expect(codes(analytics)).toEqual([])
  })

  it('follow from the published figures alone', () => {
    const analytics = new Analytics(start)
    for (let i = 0; i < 20; i++) analytics.allocated(info({ bytes: 8 * MiB }))
    watch(analytics, minute, { usage: holes, fraction: 0.99 })
    const published = JSON.parse(JSON.stringify(analytics.summary())) as MemoryAnalytics
    expect(recommend(published)).toEqual(published.recommendations)
    expect(published.recommendations).toHaveLength(2)
  })
})

describe('leaks', () => {
  const view = ({ id, bytes, kind, owner, ageMs }: AllocationInfo): AllocationView => ({
    id: `1234-cpu-0-0.abcdef01.${id}`,
    device: '1234-cpu-0-0',
    bytes,
    kind,
    placement: 'placed',
    owner,
    createdAt: start - ageMs,
    expiresAt: null,
    inUse: false,
  })

  it('are counted by reason, and the newest twenty are listed', () => {
    const book = new LeakBook()
    for (let id = 1; id <= 30; id++) book.reclaimed(view(info({ id, bytes: 2 })), id % 3 === 0 ? 'orphaned' : 'expired', start + id)
    const report = LeakReport.parse(book.report([], view, start))
    expect(report).toMatchObject({
      count: 30,
      bytes: 60,
      byReason: { expired: { count: 20, bytes: 40 }, orphaned: { count: 10, bytes: 20 } },
    })
    expect(report.newest).toHaveLength(20)
    expect(report.newest[0]).toMatchObject({ id: '1234-cpu-0-0.abcdef01.30', reason: 'orphaned', foundAt: start + 30 })
  })

  it('are suspected where nobody used or renewed an allocation for an hour', () => {
    const book = new LeakBook()
    const at = (now: number, used: number[], timeLeftMs: number): AllocationInfo[] =>
      [1, 2, 3, 4].map((id) =>
        info({ id, ageMs: now, timeLeftMs: id === 3 ? timeLeftMs : id === 4 ? 10 * hour - now : null, inUse: used.includes(id) }),
      )
    const look = (now: number, used: number[], timeLeftMs: number): string[] => {
      const live = at(now, used, timeLeftMs)
      book.look(live, start + now)
      return book.report(live, view, start + now).suspects.map(({ id }) => id.split('.').at(-1) ?? '')
    }
    expect(look(0, [], 2 * hour)).toEqual([])
    expect(look(hour / 2, [2], 1.5 * hour)).toEqual([])
    // 2 was in use, 3 is renewed; 4 only grows older.
    expect(look(hour, [], 2 * hour)).toEqual(['1', '4'])
    expect(look(2 * hour, [], hour)).toEqual(['1', '4', '2', '3'])
  })
})
