import { describe, expect, it } from 'vitest'
import { figure, isAsked } from '../../bench/figure.ts'
import { median, medianRatio, quantile, rounded } from '../../bench/statistics.ts'

describe('the numbers of a benchmark', () => {
  it('takes quantiles by the nearest rank, in any order of the samples', () => {
    const samples = Array.from({ length: 100 }, (_, i) => 100 - i)
    expect([0, 0.5, 0.99, 1].map((q) => quantile(samples, q))).toEqual([1, 50, 99, 100])
    expect(quantile([7], 0.99)).toBe(7)
    expect(samples[0]).toBe(100)
  })

  it('takes the mean of the two samples in the middle for a median of an even number', () => {
    expect(median([3, 1, 2])).toBe(2)
    expect(median([4, 1, 2, 3])).toBe(2.5)
  })

  it('compares samples taken side by side pair by pair: a clock that drifts moves no ratio', () => {
    // Both slow down to a tenth in the middle; the one above is twice as fast throughout.
    const below = [100, 100, 100, 10, 10]
    expect(
      medianRatio(
        below.map((value) => 2 * value),
        below,
      ),
    ).toBe(2)
    // It slows down between the two of the third pair: the ratio of the medians says 0.2.
    const [above, beside] = [
      [200, 200, 20, 20, 20],
      [100, 100, 100, 10, 10],
    ]
    expect(median(above) / median(beside)).toBe(0.2)
    expect(medianRatio(above, beside)).toBe(2)
  })

  it('refuses to make a number out of nothing', () => {
    expect(() => quantile([], 0.5)).toThrow(RangeError)
    expect(() => median([])).toThrow(RangeError)
    expect(() => medianRatio([], [])).toThrow(RangeError)
    expect(() => medianRatio([1, 2], [1])).toThrow(RangeError)
  })

  it('keeps three digits that count, and every digit of a whole part', () => {
    expect([0.31249, 9.9149, 12_345.6, 0, -0.004567].map(rounded)).toEqual([0.312, 9.91, 12_346, 0, -0.00457])
  })

  it('judges the value that was measured, not the one that is printed', () => {
    expect(figure('a', 0.39996, '', { atLeast: 0.4 })).toEqual({ name: 'a', value: 0.4, unit: '', target: '>= 0.4', pass: false })
    expect(figure('b', 25, 'ms', { atMost: 25 })).toMatchObject({ target: '<= 25', pass: true })
  })

  it('finds figures by how their names begin', () => {
    expect(['engine', 'engine.hop', 'engine.hopP50Ms', undefined].map((only) => isAsked('engine.hopP50Ms', only))).toEqual([
      true,
      true,
      true,
      true,
    ])
    expect(isAsked('engine.hopP50Ms', 'hop')).toBe(false)
  })
})
