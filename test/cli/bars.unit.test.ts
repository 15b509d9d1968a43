import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { bar, describePool, gib, marks, parseSize, size } from '../../src/cli/bars.ts'
import { describeProgress } from '../../src/cli/progress.ts'
import type { MemoryPool } from '../../src/client/index.ts'

const GiB = 2 ** 30
const pool = (more: Partial<MemoryPool> = {}): MemoryPool => ({
  pool: 'device',
  device: '0123abcd-cuda-4f1e2d3c',
  host: '0123abcd',
  name: 'cuda:0',
  total: 80 * GiB,
  budget: 79 * GiB,
  used: 40 * GiB,
  tracked: GiB,
  evictable: 20 * GiB,
  free: 40 * GiB,
  source: 'nvml',
  pressure: {
    level: 'ok',
    fraction: 0.25,
    used: 40 * GiB,
    evictable: 20 * GiB,
    total: 80 * GiB,
    since: '2030-01-01T00:00:00.000Z',
    rung: null,
  },
  sampledAt: '2030-01-01T00:00:00.000Z',
  ageS: 1,
  ...more,
})

describe('a bar', () => {
  it('shows what is used, what could go at once, and what is free, by marks alone', () => {
    expect(bar(pool(), 40)).toBe(`${'█'.repeat(10)}${'▒'.repeat(10)}${'·'.repeat(20)}`)
  })

  it('shows what is there, however little, and never more than there is', () => {
    expect(bar(pool({ used: 1, evictable: 0 }), 20)).toBe(`█${'·'.repeat(19)}`)
    expect(bar(pool({ used: 90 * GiB, evictable: 0 }), 20)).toBe('█'.repeat(20))
    expect(bar(pool({ used: 0, evictable: 0 }), 20)).toBe('·'.repeat(20))
  })

  it('has the width it was given, whatever the figures', () => {
    const bytes = fc.nat({ max: 2 ** 40 })
    fc.assert(
      fc.property(bytes, bytes, bytes, fc.integer({ min: 10, max: 200 }), (total, used, evictable, width) => {
        const drawn = bar({ total, used, evictable }, width)
        expect(drawn).toHaveLength(width)
        if (total > 0) expect(drawn.includes('█') || drawn.includes('▒')).toBe(used > 0)
      }),
    )
  })

  it('says that nobody knows, and not that there is nothing', () => {
    expect(bar(pool({ used: null, free: null }), 10)).toBe(marks.unknown.repeat(10))
    const text = describePool(pool({ used: null, free: null, total: null }), 80)
    expect(text).toContain('unknown of unknown')
    expect(text).toContain('free unknown')
    expect(text).not.toMatch(/\b0\.00 GiB of|NaN|null/)
    expect([gib(null), size(null), gib(0), size(0)]).toEqual(['unknown', 'unknown', '0.00 GiB', '0 B'])
  })
})

describe('a pool', () => {
  it('fits 80 columns, with its level in words', () => {
    const text = describePool(pool({ pressure: { ...pool().pressure, level: 'critical', rung: 'caches emptied' }, ageS: 90 }), 80)
    for (const line of text.split('\n')) expect(line.length).toBeLessThanOrEqual(80)
    expect(text).toContain('pressure critical (95 % or more); caches emptied')
    expect(text).toContain('40.00 GiB of 80.00 GiB (50 %), by nvml, as it was 90 s ago')
    expect(text).toContain('used 20.00 GiB  evictable 20.00 GiB  free 40.00 GiB')
  })
})

describe('sizes', () => {
  it.each<[string, number | undefined]>([
    ['4096', 4096],
    ['64MiB', 64 * 2 ** 20],
    ['1.5 GiB', 1.5 * GiB],
    ['2g', 2 * GiB],
    ['512B', 512],
    ['0', undefined],
    ['-1', undefined],
    ['NaN', undefined],
    ['1e9', undefined],
    ['0.3', undefined],
    ['99999999TiB', undefined],
    ['', undefined],
  ])('%s', (text, bytes) => expect(parseSize(text)).toBe(bytes))

  it('are shown in the unit that reads best', () => {
    expect([size(1), size(1023), size(1024), size(1.5 * 2 ** 20), size(64 * GiB)]).toEqual(['1 B', '1023 B', '1 KiB', '1.5 MiB', '64 GiB'])
  })

  it('count the progress of a copy', () => {
    expect(describeProgress({ fraction: 0.5, step: 'memory.copy', stage: 'copy', call: 2 ** 25, calls: 2 ** 26 })).toBe(
      'copy 32 MiB/64 MiB',
    )
  })
})
