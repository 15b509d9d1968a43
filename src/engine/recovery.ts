/**
 * What brings back whatever died: every engine process sweeps the clocks of every shard.
 *
 * | clock | due | what happens |
 * | --- | --- | --- |
 * | `outbox` | a step not taken, an inbox to apply | dispatched again when its job is gone, moved when its queue has no worker |
 * | | a child to see to, a parent to tell | see `children.ts` |
 * | `timers` | a delay or a deadline is over | the event is applied |
 * | `leases` | a lease has ended | the step is put back, or its session is quarantined |
 *
 * With the leases go the queues of devices and classes that have no worker any more.
 *
 * All due times are Redis' own. A process that had no answer from Redis for over a second waits one lease time before it declares any lease dead.
 */
import { deviceLost } from '../domains/operation.ts'
import { DarkroomError, sessionError } from '../errors.ts'
import { queues, splitStepKey } from '../keys.ts'
import { needsOf, place, type Waiting } from './dispatch.ts'
import type { Engine } from './engine.ts'
import { leaseMs, type StepRecord } from './store.ts'
import { Ticker } from '../ticker.ts'
import { deviceError } from '../domains/device/errors.ts'

const tickMs = 250
/** Redis was away when an answer took this long. */
const outageMs = 1000
/** Leases that may expire in a row, without progress, before a session is quarantined. */
const poisonLimit = 5
/** How long an affinity dispatch may wait for its worker. */
const affinityMs = 2000
/** How long a command is valid without having been taken. */
const commandMs = 10_000
/** Outbox entries looked at in one sweep of a shard. */
const batch = 500

export class Recovery {
  readonly #engine: Engine
  readonly #ticker: Ticker
  /** Of `performance.now()`, which no change of the wall clock moves. */
  #sweptAt = performance.now()
  #leasesSweptAt = 0
  /** A fresh process waits like one that has lost Redis: it does not know whether Redis has just come back. */
  #graceUntil = performance.now() + leaseMs

  constructor(engine: Engine) {
    this.#engine = engine
    this.#ticker = new Ticker(
      tickMs,
      () => this.#sweep(),
      (error) => engine.log.debug({ err: error }, 'sweep interrupted'),
    )
  }

  start(): void {
    this.#ticker.start()
  }

  stop(): Promise<void> {
    return this.#ticker.stop()
  }

  async #sweep(): Promise<void> {
    const { store } = this.#engine
    await this.#hear(store.now())
    if (performance.now() - this.#sweptAt > outageMs + tickMs) this.#graceUntil = performance.now() + leaseMs
    const sweepsLeases = performance.now() - this.#leasesSweptAt >= 1000
    if (sweepsLeases) this.#leasesSweptAt = performance.now()
    if (sweepsLeases && !this.#isInGrace()) await this.#engine.dispatcher.clearDeserted()
    for (let shard = 0; shard < store.shards && !this.#ticker.isStopped; shard++) {
      await this.#each(await store.claim('timers', shard, 200, 5000), (member) => this.#fire(member))
      if (sweepsLeases && !this.#isInGrace()) {
        const ended = await this.#hear(store.claim('leases', shard, 200, 2000))
        // Redis may have been away just now: then it counted this time against the leases.
        if (!this.#isInGrace()) await this.#each(ended, (member) => this.#expire(member))
      }
      const due = await store.claim('outbox', shard, batch, 2000)
      await this.#each(due, (member) => this.#resend(member, due.length < batch ? 5000 : 30_000))
    }
    this.#sweptAt = performance.now()
  }

  /** Passes on an answer of Redis; one that took long begins the grace. */
  async #hear<T>(answer: Promise<T>): Promise<T> {
    const asked = performance.now()
    const heard = await answer
    if (performance.now() - asked > outageMs) this.#graceUntil = performance.now() + leaseMs
    return heard
  }

  #isInGrace(): boolean {
    return performance.now() < this.#graceUntil
  }

  /** One that fails does not hold up the others; it is due again after its hold. */
  async #each(members: string[], act: (member: string) => Promise<void>): Promise<void> {
    const outcomes = await Promise.allSettled(members.map(act))
    for (const [i, outcome] of outcomes.entries()) {
      if (outcome.status === 'rejected')
        this.#engine.log.warn({ member: members[i], err: outcome.reason as unknown }, 'left to the next sweep')
    }
  }

  async #fire(member: string): Promise<void> {
    const { store } = this.#engine
    const { sessionId, suffix } = splitStepKey(member)
    this.#engine.at?.('timer.before', sessionId)
    if (suffix === 'deadline') {
      const error = sessionError('deadline_exceeded', `session ${sessionId} did not end before its deadline`)
      // An end takes it out of the clock, and so does a pause; if it is there again by now, the session was resumed.
      await store.end(sessionId, error.toWire(), suffix)
      return
    }
    const outcome = await this.#engine.apply(sessionId, {
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
    const record = await this.#engine.store.step(stepKey)
    if (record?.lane === 'control') return this.#lose(stepKey, record)
    const { is, worker } = await this.#engine.store.expire(stepKey, poisonLimit)
    if (is === 'alive' || is === 'closed') return
    this.#engine.log.warn({ step: stepKey, worker, is }, 'a lease ended without its attempt')
    await this.#engine.countLoss(worker, splitStepKey(stepKey).sessionId)
  }

  /** A command whose worker died over it: nobody else can carry it out, and nobody knows how far it got. */
  async #lose(stepKey: string, record: StepRecord): Promise<void> {
    const { store, log } = this.#engine
    if (record.state !== 'leased' || record.leaseUntil > (await store.now())) return
    const { name, worker } = record
    log.warn({ step: stepKey, worker }, 'the lease of a command ended without its attempt')
    await this.#engine.refuse(stepKey, record, deviceLost(`worker ${worker} was lost while it carried out ${name}`))
    await this.#engine.countLoss(worker, splitStepKey(stepKey).sessionId)
  }

  /** Looks after one entry of the outbox; a job that lies in its queue is looked at again after `againMs`. */
  async #resend(member: string, againMs: number): Promise<void> {
    const [kind, name] = member.split(/:(.*)/s) as [string, string]
    this.#engine.at?.('outbox.before', splitStepKey(`${name}.`).sessionId)
    if (kind === 'inbox') {
      // The commit that empties the inbox, or ends the session, takes the member out.
      if (!(await this.#engine.drainInbox(name))) await this.#leave(member)
      return
    }
    const { store, dispatcher, children } = this.#engine
    if (kind === 'parent') return children.tell(name)
    if (kind === 'child') {
      const [, stepKey, value] = /^([^:]+):(.*)$/s.exec(name) as unknown as [string, string, string]
      const follows = await children.follow(stepKey, value).catch((error: unknown) => {
        if (error instanceof DarkroomError && error.code === 'workflow.unknown') return false
        throw error
      })
      if (!follows) await this.#leave(member)
      return
    }
    const record = await store.step(name)
    if (!record) return store.forget('outbox', member)
    // Who took it took the entry out; if it is there again by now, it is for the next dispatch.
    if (record.state !== 'open') return
    const now = await store.now()
    const { sessionId } = splitStepKey(name)
    const step = await this.#waiting(name, sessionId, record, now).catch((error: unknown) => {
      if (error instanceof DarkroomError && error.code === 'workflow.broken') return error
      throw error
    })
    if (!step) return this.#leave(member)
    if (step instanceof DarkroomError) return this.#engine.refuse(name, record, step)
    const placement = place(step, await this.#engine.workers())
    if ('over' in placement) {
      // What workers publish may be gone only because Redis was.
      if (this.#isInGrace()) return store.postpone(member, now + 1000)
      return this.#engine.refuse(name, record, placement.over)
    }
    if (record.lane === 'control' && record.queue !== '' && now - record.placedAt > commandMs) {
      const late = `worker ${step.target?.worker} did not take ${record.name} within ${commandMs / 1000} s`
      return this.#engine.refuse(name, record, deviceError('not_ready', late))
    }
    if ('nowhere' in placement) {
      const nowhereMs = await store.waits(name, placement.nowhere)
      if (placement.elsewhere && nowhereMs > this.#engine.config.classWaitS * 1000 && !step.isStrict)
        await this.#move(sessionId, step.version, step.exactnessKey ?? '')
      return store.postpone(member, now + 1000)
    }
    const stays = record.queue === placement.queue
    const job = stays ? await dispatcher.find(record.queue, `${name}.${record.dispatch}`) : 'gone'
    // A worker that fetched the job and died before it took the step: BullMQ would find that out after its own, long lock.
    const isAbandoned = job === 'active' && now - record.placedAt > leaseMs && record.lane !== 'control'
    if (job === 'gone' || isAbandoned) {
      // Only a job under another number can be added beside the one that BullMQ still knows.
      const raise = isAbandoned || (record.queue !== '' && !stays)
      const dispatch = await store.place(name, record.dispatch, placement.queue, raise)
      if (dispatch !== undefined) await dispatcher.add({ ...step, dispatch }, placement.queue)
    }
    await store.postpone(member, now + (placement.isAffinity ? 500 : againMs))
  }

  /**
   * Looked at again soon, here or by a process that has the workflow, at a moment of chance: one without it that came back at its own pace might
   * always be the first.
   */
  async #leave(member: string): Promise<void> {
    const { store } = this.#engine
    await store.postpone(member, (await store.now()) + Math.round(2 * tickMs * Math.random()))
  }

  /** An open step with what decides where it may run; undefined in a process that does not have its operation. */
  async #waiting(
    stepKey: string,
    sessionId: string,
    record: StepRecord,
    now: number,
  ): Promise<(Waiting & { version: string; isStrict: boolean }) | undefined> {
    const { dispatch, name, lane, priority } = record
    const base = { stepKey, dispatch, name, lane, priority }
    const nothing = { exactnessKey: null, lastWorker: null, device: null, avoid: null, version: '', isStrict: true }
    if (lane === 'host') return { ...base, ...nothing, models: [], target: null }
    const { store, operations } = this.#engine
    const at = await store.fields(sessionId, 'version', 'snapshot', 'workflow', 'exactnessKey', 'lastWorker', 'device', 'strict')
    const { version, snapshot, workflow, exactnessKey, device } = at
    if (version === null || snapshot === null || workflow === null) return undefined
    const { effects } = this.#engine.document(sessionId, { version, snapshot, workflow })
    const effect = Object.values(effects).find((open) => `${sessionId}.${open.suffix}` === stepKey)
    const needs = effect && 'step' in effect ? needsOf(operations, name, effect.input) : undefined
    if (!needs) return undefined
    if (lane === 'control') return { ...base, ...nothing, ...needs }
    const mayWaitForWorker = record.queue === '' || (queues.isDevice(record.queue) && now - record.placedAt <= affinityMs)
    const [lastWorker, avoid] = mayWaitForWorker ? [at.lastWorker, record.avoid] : [null, null]
    return { ...base, ...needs, exactnessKey, device, lastWorker, avoid, version, isStrict: at.strict !== null }
  }

  /** No worker of the pinned class came: the session begins again, from encode, on another. */
  async #move(sessionId: string, version: string, exactnessKey: string): Promise<void> {
    await this.#engine.apply(sessionId, {
      kind: 'event',
      // The same class may be lost again later: another version, another event.
      name: `class.lost:${exactnessKey}:${version}`,
      attemptId: '',
      event: { type: 'class.lost' },
      entry: {
        type: 'session.moved',
        from: exactnessKey,
        note: `no worker of hardware class ${exactnessKey} came; the picture begins again on another`,
      },
      artifacts: [],
      unpin: true,
    })
  }
}
