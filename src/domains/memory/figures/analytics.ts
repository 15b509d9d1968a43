/**
 * Analytics of one device's memory: fed with samples and with what happens to allocations, in memory of a fixed size.
 * The clock is the caller's; one that goes back falls into the step that is open.
 */
import type { AllocationInfo, Figures, Usage } from '../../device-memory.ts'
import { recommend } from './recommendations.ts'
import type { Histogram, MemoryAnalytics, Series } from './report.ts'

/** Figures of one moment, bytes. */
export interface Sample {
  at: number
  figures: Pick<Figures, 'total' | 'budget' | 'used'>
  usage: Pick<Usage, 'tracked' | 'reserved' | 'fragmentation' | 'largestHole'>
  /** Of the pool's pressure. */
  fraction: number | null
  evictable: number
  idleModelBytes: number
  /** What is held now, by kind of owner. */
  owners: Record<OwnerKind, number>
}

export type OwnerKind = 'session' | 'key'
/** How an allocation ended: by its owner, by its time, or because its owner had ended. */
export type End = 'released' | 'expired' | 'orphaned'

export const ownerKind = (owner: string): OwnerKind => (owner.startsWith('key:') ? 'key' : 'session')

/** Width and number of steps. */
const tiers = [
  [1000, 300],
  [10_000, 360],
  [300_000, 288],
] as const
/** Owners remembered one by one. */
const mostOwners = 256
const mostCodes = 32
const listedOwners = 10
const listedRefusals = 20

interface Point {
  at: number
  used: number | null
  fraction: number | null
  evictable: number
  tracked: number
  reserved: number
  fragmentation: number
}

const highest = (a: number | null, b: number | null): number | null => (a === null ? b : b === null ? a : Math.max(a, b))

/** Steps of one width, the highest of each. */
class Tier {
  readonly #stepMs: number
  readonly #most: number
  readonly #points: Point[] = []

  constructor(stepMs: number, most: number) {
    this.#stepMs = stepMs
    this.#most = most
  }

  add(sample: Point): void {
    const at = sample.at - (sample.at % this.#stepMs)
    const last = this.#points.at(-1)
    if (last && at <= last.at) {
      last.used = highest(last.used, sample.used)
      last.fraction = highest(last.fraction, sample.fraction)
      for (const name of ['evictable', 'tracked', 'reserved', 'fragmentation'] as const) last[name] = Math.max(last[name], sample[name])
      return
    }
    this.#points.push({ ...sample, at })
    if (this.#points.length > this.#most) this.#points.shift()
  }

  series(): Series {
    const column = <Name extends keyof Point>(name: Name): Point[Name][] => this.#points.map((point) => point[name])
    return {
      stepMs: this.#stepMs,
      at: column('at'),
      used: column('used'),
      fraction: column('fraction'),
      evictable: column('evictable'),
      tracked: column('tracked'),
      reserved: column('reserved'),
      fragmentation: column('fragmentation'),
    }
  }
}

/** Counts by powers of two: 0, then 1, 2 to 3, 4 to 7, … up to the largest whole number. */
class Counts {
  /** By the number of binary digits. */
  readonly #counts = new Map<number, number>()

  /** @param value whole, at least 0 */
  add(value: number): void {
    const digits = value < 1 ? 0 : Math.floor(value).toString(2).length
    this.#counts.set(digits, (this.#counts.get(digits) ?? 0) + 1)
  }

  histogram(): Histogram {
    return [...this.#counts]
      .toSorted(([a], [b]) => a - b)
      .map(([digits, count]) => ({ from: digits === 0 ? 0 : 2 ** (digits - 1), to: Math.min(2 ** digits, Number.MAX_SAFE_INTEGER), count }))
  }
}

const none = () => ({ bytes: 0, allocated: 0, allocatedBytes: 0, released: 0, expired: 0, orphaned: 0 })

export class Analytics {
  readonly #since: number
  readonly #tiers = tiers.map(([stepMs, most]) => new Tier(stepMs, most))
  readonly #peaks: MemoryAnalytics['peaks'] = { used: null, tracked: null, reserved: null }
  readonly #sizes = new Counts()
  readonly #placedSizes = new Counts()
  readonly #lifetimes = new Counts()
  readonly #totals: MemoryAnalytics['totals'] = { session: none(), key: none() }
  /** The one heard of last is last. */
  readonly #owners = new Map<string, { ended: number; expired: number; bytes: number }>()
  readonly #refusals: MemoryAnalytics['refusals'] = { count: 0, byCode: {}, newest: [] }
  #samples = 0
  #last: Sample | undefined
  #mostFragmented = 0

  constructor(nowMs: number) {
    this.#since = nowMs
  }

  sample(sample: Sample): void {
    const { at, figures, usage, fraction, evictable } = sample
    const { tracked, reserved, fragmentation } = usage
    this.#samples++
    this.#last = sample
    for (const tier of this.#tiers) tier.add({ at, used: figures.used, fraction, evictable, tracked, reserved, fragmentation })
    const now = { used: figures.used, tracked, reserved }
    for (const name of ['used', 'tracked', 'reserved'] as const) {
      const bytes = now[name]
      if (bytes !== null && bytes > (this.#peaks[name]?.bytes ?? -1)) this.#peaks[name] = { bytes, at }
    }
    this.#mostFragmented = Math.max(this.#mostFragmented, fragmentation)
    for (const kind of ['session', 'key'] as const) this.#totals[kind].bytes = sample.owners[kind]
  }

  allocated({ bytes, placement, owner }: Pick<AllocationInfo, 'bytes' | 'placement' | 'owner'>): void {
    const total = this.#totals[ownerKind(owner)]
    total.allocated++
    total.allocatedBytes += bytes
    this.#sizes.add(bytes)
    if (placement === 'placed') this.#placedSizes.add(bytes)
  }

  ended({ bytes, ageMs, owner }: Pick<AllocationInfo, 'bytes' | 'ageMs' | 'owner'>, how: End): void {
    this.#totals[ownerKind(owner)][how]++
    this.#lifetimes.add(ageMs)
    const known = this.#owners.get(owner) ?? { ended: 0, expired: 0, bytes: 0 }
    this.#owners.delete(owner)
    this.#owners.set(owner, known)
    if (this.#owners.size > mostOwners) this.#owners.delete(this.#owners.keys().next().value ?? '')
    known.ended++
    if (how !== 'expired') return
    known.expired++
    known.bytes += bytes
  }

  /** A request that was refused, or failed, for lack of memory. */
  refused(bytes: number, code: string, nowMs: number): void {
    const { byCode, newest } = this.#refusals
    this.#refusals.count++
    if (code in byCode || Object.keys(byCode).length < mostCodes) byCode[code] = (byCode[code] ?? 0) + 1
    newest.unshift({ at: nowMs, code, bytes, idleModelBytes: this.#last?.idleModelBytes ?? 0 })
    newest.length = Math.min(newest.length, listedRefusals)
  }

  summary(): MemoryAnalytics {
    const last = this.#last
    const { tracked = 0, reserved = 0, fragmentation = 0, largestHole = 0 } = last?.usage ?? {}
    const facts = {
      since: this.#since,
      sampledAt: last?.at ?? this.#since,
      samples: this.#samples,
      total: last?.figures.budget ?? last?.figures.total ?? null,
      series: this.#tiers.map((tier) => tier.series()),
      peaks: { ...this.#peaks },
      fragmentation: { now: fragmentation, highest: this.#mostFragmented, largestHole, free: Math.max(0, reserved - tracked) },
      sizes: this.#sizes.histogram(),
      placedSizes: this.#placedSizes.histogram(),
      lifetimes: this.#lifetimes.histogram(),
      totals: { session: { ...this.#totals.session }, key: { ...this.#totals.key } },
      expiring: [...this.#owners]
        .filter(([, { expired, ended }]) => expired * 2 > ended)
        .toSorted(([, a], [, b]) => b.expired - a.expired)
        .slice(0, listedOwners)
        .map(([owner, counts]) => ({ owner, ...counts })),
      refusals: { ...this.#refusals, byCode: { ...this.#refusals.byCode }, newest: [...this.#refusals.newest] },
    }
    return { ...facts, recommendations: recommend(facts) }
  }
}
