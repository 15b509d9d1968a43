/** Pure numbers: what the figures are computed with. */

/**
 * The value below which a share `q` (0…1) of the samples lies, by the nearest rank.
 * @throws RangeError without samples
 */
export function quantile(samples: readonly number[], q: number): number {
  if (samples.length === 0) throw new RangeError('there are no samples')
  const sorted = [...samples].toSorted((a, b) => a - b)
  const rank = Math.max(1, Math.ceil(q * sorted.length))
  return sorted[rank - 1] ?? Number.NaN
}

/** The middle sample; the mean of the two in the middle when there is none. @throws RangeError without samples */
export function median(samples: readonly number[]): number {
  if (samples.length === 0) throw new RangeError('there are no samples')
  const sorted = [...samples].toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2
}

/** A number as a reader wants it: three digits that count, never fewer than its whole part has. */
export function rounded(value: number): number {
  if (!Number.isFinite(value) || value === 0) return value
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))))
  return Number(value.toFixed(Math.min(digits, 6)))
}

/**
 * Median of the ratios of samples taken side by side, `above[i] / below[i]`: a machine that slows down in the middle
 * slows both of a pair, where it would move a ratio of medians.
 * @throws RangeError without samples, or with more of one than of the other
 */
export function medianRatio(above: readonly number[], below: readonly number[]): number {
  if (above.length !== below.length) throw new RangeError(`${above.length} samples beside ${below.length}`)
  return median(above.map((value, i) => value / (below[i] ?? NaN)))
}

/** `min–max` of the samples. @throws RangeError without samples */
export const range = (samples: readonly number[]): string => `${rounded(quantile(samples, 0))}–${rounded(quantile(samples, 1))}`
