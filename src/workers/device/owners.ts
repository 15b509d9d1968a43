/**
 * Owners of the device's allocations: a session's are released at its end, every allocation when its time is over. What
 * is found later is counted as a leak.
 */
import type { AllocationInfo, DeviceMemory } from '../../domains/device-memory.ts'
import { view } from '../../domains/memory/allocation.ts'
import type { Analytics, End } from '../../domains/memory/figures/analytics.ts'
import { LeakBook, type LeakReason } from '../../domains/memory/figures/leaks.ts'
import type { LeakReport } from '../../domains/memory/figures/report.ts'
import type { Target } from '../../domains/values.ts'
import type { SessionOwners } from '../../engine/owners.ts'
import { sessionIdPattern } from '../../keys.ts'
import type { Logger } from '../../log.ts'

/** An allocation that is found later than this after its session's end was leaked, ms. */
const releaseGraceMs = 3000

export interface OwnersOptions {
  target: Target
  memory: DeviceMemory
  sessions: Pick<SessionOwners, 'endedOf' | 'keyOf'>
  analytics: Analytics
  log: Logger
}

export class Owners {
  readonly #options: OwnersOptions
  readonly #leaks = new LeakBook()

  constructor(options: OwnersOptions) {
    this.#options = options
  }

  /** Releases the session's allocations if it has ended. */
  async releaseIfEnded(sessionId: string): Promise<void> {
    const { memory, sessions } = this.#options
    if (!memory.list().some(({ owner }) => owner === sessionId)) return
    if ((await sessions.endedOf([sessionId])).size > 0) this.#record(await memory.releaseOwner(sessionId), 'released')
  }

  /**
   * Releases what has outlived its time or its session. To be repeated: the message that a session has ended can be
   * lost.
   */
  async releaseOutlived(): Promise<void> {
    const { memory, sessions } = this.#options
    this.#recordLeaks(await memory.expire(), 'expired')
    const owners = new Set(memory.list().flatMap(({ owner }) => (sessionIdPattern.test(owner) ? [owner] : [])))
    if (owners.size === 0) return
    for (const [sessionId, endedMs] of await sessions.endedOf([...owners])) {
      const released = await memory.releaseOwner(sessionId)
      if (endedMs > releaseGraceMs) this.#recordLeaks(released, 'orphaned')
      else this.#record(released, 'released')
    }
  }

  /** Whose an owner's allocations are, as `key:<id>` or `key:local`. */
  async principal(owner: string): Promise<string> {
    return owner.startsWith('key:') ? owner : `key:${(await this.#options.sessions.keyOf(owner)) ?? 'local'}`
  }

  /** The leaks so far, after a look at all that is live. */
  leaks(live: AllocationInfo[]): LeakReport {
    const now = Date.now()
    this.#leaks.look(live, now)
    return this.#leaks.report(live, (info) => view(info, this.#options.target), now)
  }

  #record(gone: AllocationInfo[], how: End): void {
    for (const info of gone) this.#options.analytics.ended(info, how)
  }

  #recordLeaks(reclaimed: AllocationInfo[], reason: LeakReason): void {
    this.#record(reclaimed, reason)
    for (const info of reclaimed) {
      const allocation = view(info, this.#options.target)
      this.#leaks.reclaimed(allocation, reason, Date.now())
      const { id, owner, bytes } = allocation
      if (reason === 'orphaned') this.#options.log.warn({ allocation: id, owner, bytes }, 'an allocation had outlived its owner')
    }
  }
}
