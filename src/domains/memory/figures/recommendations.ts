/**
 * What the analytics of a device's memory say should be done. Pure: each recommendation follows from figures that stand
 * in it.
 */
import type { Histogram, MemoryAnalytics, Recommendation } from './report.ts'

export type Facts = Omit<MemoryAnalytics, 'recommendations'>

/** Less than this says nothing: samples (a minute of them), allocations, ends of one owner, refusals. */
const least = { samples: 60, allocations: 20, ends: 5, refusals: 3 }
const fragmented = 0.5
const nearLimit = 0.95
const hourMs = 3_600_000

/** What may be recommended, and why; nothing from too little data. */
export function recommend(facts: Facts): Recommendation[] {
  return [defragment(facts), nearTheLimit(facts), evictModels(facts), ...leaks(facts)].filter((each) => each !== null)
}

/** The arenas have room for what is usually asked for, but not in one piece, and that for a minute. */
function defragment({ samples, series, fragmentation, placedSizes }: Facts): Recommendation | null {
  const typical = median(placedSizes)
  const lately = series[0]?.fragmentation.slice(-least.samples) ?? []
  if (samples < least.samples || lately.length < least.samples || count(placedSizes) < least.allocations || typical === null) return null
  const { now, largestHole, free } = fragmentation
  if (Math.min(...lately) < fragmented || largestHole >= typical || free < typical) return null
  return {
    code: 'memory.defragment',
    message:
      `${free} bytes are free in arenas, but the largest piece has ${largestHole}, less than the ${typical} that half of ` +
      `all placed allocations take at least: defragment the device.`,
    workflow: 'memory-defragment',
    owner: null,
    figures: { fragmentation: now, largestHole, free, typical },
  }
}

/** The pool was close to its end within the last hour, with nothing left to drop. */
function nearTheLimit({ samples, sampledAt, series, total }: Facts): Recommendation | null {
  const hour = series[1]
  if (samples < least.samples || !hour || total === null) return null
  const lately = hour.fraction.flatMap((fraction, i) => (fraction !== null && (hour.at[i] ?? 0) >= sampledAt - hourMs ? [fraction] : []))
  const peak = Math.max(0, ...lately)
  if (peak < nearLimit) return null
  const steps = lately.filter((fraction) => fraction >= nearLimit).length
  return {
    code: 'memory.near_limit',
    message:
      `${Math.round(peak * 100)} % of ${total} bytes were in use and could not be dropped, in ${steps} of the last ${lately.length} steps of ` +
      `10 s: take smaller batches or pictures, or another device.`,
    workflow: null,
    owner: null,
    figures: { peak, total, steps, stepsSeen: lately.length },
  }
}

/** Requests were refused while idle models held enough for them. */
function evictModels({ refusals, sampledAt }: Facts): Recommendation | null {
  const avoidable = refusals.newest.filter(({ at, bytes, idleModelBytes }) => at >= sampledAt - hourMs && idleModelBytes >= bytes)
  const [latest] = avoidable
  if (!latest || avoidable.length < least.refusals) return null
  return {
    code: 'memory.evict_models',
    message:
      `${avoidable.length} requests of the last hour were refused while idle models held enough for them (the latest wanted ${latest.bytes} bytes, ` +
      `idle models held ${latest.idleModelBytes}): optimize the device, which lets idle models go.`,
    workflow: 'device-optimize',
    owner: null,
    figures: { refusals: avoidable.length, bytes: latest.bytes, idleModelBytes: latest.idleModelBytes },
  }
}

/** An owner has never released anything: all that it had ended by its time. */
function leaks({ expiring }: Facts): Recommendation[] {
  return expiring
    .filter(({ ended, expired }) => ended >= least.ends && expired === ended)
    .map(({ owner, expired, bytes }) => ({
      code: 'memory.leak_suspected' as const,
      message:
        `All ${expired} allocations of ${owner} that ended did so because their time was over, ${bytes} bytes in all: release them when they are ` +
        `no longer needed.`,
      workflow: 'memory-release',
      owner,
      figures: { expired, bytes },
    }))
}

const count = (histogram: Histogram): number => histogram.reduce((sum, bucket) => sum + bucket.count, 0)

/** At least half are at least this large: the lower edge of the bucket in the middle. */
function median(histogram: Histogram): number | null {
  let left = count(histogram) / 2
  for (const { from, count: here } of histogram) {
    left -= here
    if (left <= 0) return from
  }
  return null
}
