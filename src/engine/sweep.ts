/**
 * Crash recovery: every engine process scans each shard's due lists.
 *
 * | due list | due | what happens |
 * | --- | --- | --- |
 * | `outbox` | what a commit asked for is still to be done | `outbox.ts` |
 * | `timers` | a delay or a deadline is over | the event is applied |
 * | `leases` | a lease has ended | the step is put back, or its session is quarantined |
 *
 * With the leases go the queues of devices and classes that have no worker any more.
 *
 * All due times are the farm's own (`clock.ts`). A process that had no answer from Redis for over a second waits one
 * lease time before it declares any lease dead.
 */
import { deviceLost } from '../domains/operation.ts'
import { sessionError } from '../errors.ts'
import { shardOf, splitStepKey } from '../keys.ts'
import type { Logger } from '../log.ts'
import { Ticker } from '../ticker.ts'
import { traceOf } from '../trace.ts'
import type { Admission } from './admission.ts'
import type { Commits } from './commit.ts'
import type { Dispatcher } from './dispatch.ts'
import type { Outbox } from './outbox.ts'
import type { AtPoint } from './points.ts'
import type { Reads, StepRecord } from './reads.ts'
import type { Store } from './store.ts'
import type { Times } from './times.ts'

/** Leases that may expire in a row, without progress, before a session is quarantined. */
const poisonLimit = 5
/** Entries looked at in one sweep of a shard. */
const outboxBatch = 500
const batch = 200

export interface SweepParts {
  store: Store
  reads: Reads
  commits: Commits
  outbox: Outbox
  admission: Pick<Admission, 'wake'>
  dispatcher: Dispatcher
  shards: number
  times: Times
  log: Logger
  at: AtPoint | undefined
  /** A worker has lost an attempt of this session. */
  countLoss: (worker: string, sessionId: string) => Promise<void>
}

export class Sweep {
  readonly #parts: SweepParts
  readonly #ticker: Ticker
  /** Of `performance.now()`, which no change of the wall clock moves. */
  #sweptAt = performance.now()
  #leasesSweptAt = 0
  #graceUntil: number

  constructor(parts: SweepParts) {
    this.#parts = parts
    // A fresh process waits like one that has lost Redis: it does not know whether Redis has just come back.
    this.#graceUntil = performance.now() + parts.times.leaseMs
    this.#ticker = new Ticker(
      parts.times.sweepMs,
      () => this.#sweep(),
      (error) => parts.log.debug({ err: error }, 'sweep interrupted'),
    )
  }

  start(): void {
    this.#ticker.start()
  }

  stop(): Promise<void> {
    return this.#ticker.stop()
  }

  async #sweep(): Promise<void> {
    const { admission, store, reads, outbox, dispatcher, shards, times } = this.#parts
    await this.#hear(reads.now(0))
    if (performance.now() - this.#sweptAt > times.outageMs + times.sweepMs) this.#beginGrace()
    const sweepsLeases = performance.now() - this.#leasesSweptAt >= times.leaseSweepMs
    if (sweepsLeases) this.#leasesSweptAt = performance.now()
    if (sweepsLeases && !this.#isInGrace()) await dispatcher.clearDeserted()
    for (let shard = 0; shard < shards && !this.#ticker.isStopped; shard++) {
      await this.#each(await this.#hear(store.claim('timers', shard, batch, times.timerClaimMs)), (member) => this.#fire(member))
      if (sweepsLeases && !this.#isInGrace()) {
        const expired = await this.#hear(store.claim('leases', shard, batch, times.claimMs))
        // Redis may have been away just now: then it counted this time against the leases.
        if (!this.#isInGrace()) await this.#each(expired, (member) => this.#expire(member))
      }
      const due = await this.#hear(store.claim('outbox', shard, outboxBatch, times.claimMs))
      const look = { againMs: due.length < outboxBatch ? times.queuedMs : times.crowdedMs, isInGrace: () => this.#isInGrace() }
      await this.#each(due, (member) => outbox.due(member, look))
    }
    await this.#hear(admission.wake())
    this.#sweptAt = performance.now()
  }

  /** Passes on an answer of Redis; one that took long begins the grace. */
  async #hear<T>(answer: Promise<T>): Promise<T> {
    const asked = performance.now()
    const heard = await answer
    if (performance.now() - asked > this.#parts.times.outageMs) this.#beginGrace()
    return heard
  }

  #beginGrace(): void {
    this.#graceUntil = performance.now() + this.#parts.times.leaseMs
  }

  #isInGrace(): boolean {
    return performance.now() < this.#graceUntil
  }

  /** One that fails does not hold up the others; it is due again after its hold. */
  async #each(members: string[], act: (member: string) => Promise<void>): Promise<void> {
    const outcomes = await Promise.allSettled(members.map(act))
    for (const [i, outcome] of outcomes.entries()) {
      if (outcome.status === 'rejected')
        this.#parts.log.warn({ member: members[i], err: outcome.reason as unknown }, 'left to the next sweep')
    }
  }

  async #fire(member: string): Promise<void> {
    const { store, commits, at } = this.#parts
    const { sessionId, suffix } = splitStepKey(member)
    at?.('timer.before', sessionId)
    if (suffix === 'deadline') {
      const error = sessionError('deadline_exceeded', `session ${sessionId} did not end before its deadline`)
      // An end takes it out of its due list, and so does a pause; if it is there again by now, the session was resumed.
      await store.end(sessionId, error.toWire(), suffix)
      return
    }
    const outcome = await commits.apply(sessionId, {
      kind: 'timer',
      name: suffix,
      attemptId: '',
      event: undefined,
      entry: { type: 'timer.fired', key: member },
      artifacts: [],
      unpin: false,
    })
    if (outcome === 'stale') await store.forget('timers', member)
  }

  async #expire(stepKey: string): Promise<void> {
    const { store, reads, log, countLoss } = this.#parts
    const record = await reads.step(stepKey)
    if (record?.lane === 'control') return this.#lose(stepKey, record)
    const { is, worker } = await store.expire(stepKey, poisonLimit)
    if (is === 'alive' || is === 'closed') return
    const { sessionId } = splitStepKey(stepKey)
    const trace = traceOf(sessionId, (await reads.fields(sessionId, 'trace')).trace).id
    log.warn({ step: stepKey, trace, worker, is }, 'a lease ended without its attempt')
    await countLoss(worker, sessionId)
  }

  /** A command whose worker died over it: no other worker can carry it out, and how far it got is unknown. */
  async #lose(stepKey: string, record: StepRecord): Promise<void> {
    const { reads, commits, log, countLoss } = this.#parts
    if (record.state !== 'leased' || record.leaseUntil > (await reads.now(shardOf(stepKey)))) return
    const { name, worker } = record
    log.warn({ step: stepKey, worker }, 'the lease of a command ended without its attempt')
    await commits.refuse(stepKey, record, deviceLost(`worker ${worker} was lost while it carried out ${name}`))
    await countLoss(worker, splitStepKey(stepKey).sessionId)
  }
}
