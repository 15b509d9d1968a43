/** Leaks: what outlived its time or its owner, and what looks as if it will. Counts; the worker reclaims. */
import type { AllocationInfo } from '../../device-memory.ts'
import type { AllocationView, LeakReport } from './report.ts'

export type LeakReason = 'expired' | 'orphaned'

/** Live and not seen in use for this long is suspicious, ms. */
const unusedMs = 3_600_000
const listed = 20

/** Of one worker, since it started. Bounded: totals, the newest, and one time for each live allocation. */
export class LeakBook {
  readonly #byReason = { expired: { count: 0, bytes: 0 }, orphaned: { count: 0, bytes: 0 } }
  readonly #newest: LeakReport['newest'] = []
  #live = new Map<number, { usedAt: number; endsAt: number | null }>()

  /** An allocation was taken back: its time was over, or its owner had ended long ago. */
  reclaimed(view: AllocationView, reason: LeakReason, nowMs: number): void {
    const { id, owner, bytes, kind, createdAt } = view
    this.#byReason[reason].count++
    this.#byReason[reason].bytes += bytes
    this.#newest.unshift({ id, owner, bytes, kind, reason, ageMs: Math.max(0, nowMs - createdAt), foundAt: nowMs })
    this.#newest.length = Math.min(this.#newest.length, listed)
  }

  /**
   * Looks at all that is live, to be repeated every second or so: what is in use now, or has got another end, is not
   * forgotten.
   */
  look(live: readonly AllocationInfo[], nowMs: number): void {
    const before = this.#live
    this.#live = new Map(
      live.map(({ id, inUse, ageMs, timeLeftMs }) => {
        const known = before.get(id)
        const endsAt = timeLeftMs === null ? null : nowMs + timeLeftMs
        const isRenewed = known !== undefined && !isSame(known.endsAt, endsAt)
        const usedAt = inUse || isRenewed ? nowMs : (known?.usedAt ?? nowMs - ageMs)
        return [id, { usedAt, endsAt: known === undefined || isRenewed ? endsAt : known.endsAt }]
      }),
    )
  }

  /** `view`: as everybody sees an allocation that was live when `look` was called last. */
  report(live: readonly AllocationInfo[], view: (info: AllocationInfo) => AllocationView, nowMs: number): LeakReport {
    const { expired, orphaned } = this.#byReason
    const suspects = live
      .flatMap((info) => {
        const unused = nowMs - (this.#live.get(info.id)?.usedAt ?? nowMs)
        return unused < unusedMs ? [] : [{ info, unused }]
      })
      .toSorted((a, b) => b.unused - a.unused)
      .slice(0, listed)
      .map(({ info, unused }) => {
        const { id, owner, bytes, kind } = view(info)
        return { id, owner, bytes, kind, unusedMs: unused }
      })
    return {
      count: expired.count + orphaned.count,
      bytes: expired.bytes + orphaned.bytes,
      byReason: { expired: { ...expired }, orphaned: { ...orphaned } },
      newest: [...this.#newest],
      suspects,
    }
  }
}

/** Two clocks make the same end differ by some milliseconds; a renewal moves it further. */
const isSame = (a: number | null, b: number | null): boolean => (a === null || b === null ? a === b : Math.abs(a - b) < 1000)
