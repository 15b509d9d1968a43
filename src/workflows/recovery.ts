/**
 * What brings back whatever died: every engine process sweeps the clocks of every shard.
 *
 * | clock | due | what happens |
 * | --- | --- | --- |
 * | `outbox` | a step not taken, an inbox to apply | dispatched again when its job is gone, moved when its queue has no worker |
 * | `timers` | a delay or a deadline is over | the event is applied |
 * | `leases` | a lease has ended | the step is put back, or its session is quarantined |
 *
 * All due times are Redis' own. A process that had no answer from Redis for over a second waits one lease time before it declares any lease dead.
 */
import { DarkroomError } from '../errors.ts'
import { queues, splitStepKey } from '../keys.ts'
import { place } from './dispatch.ts'
import type { Engine } from './engine.ts'
import { leaseMs, type StepRecord } from './store.ts'

const tickMs = 250
/** Leases that may expire in a row, without progress, before a session is quarantined. */
const poisonLimit = 5
/** How long an affinity dispatch may wait for its worker. */
const affinityMs = 2000

export class Recovery {
  readonly #engine: Engine
  #timer: NodeJS.Timeout | undefined
  #running: Promise<void> = Promise.resolve()
  #stopped = false
  /** Steps nobody could run, as of the last sweep: what readiness tells. */
  #stranded = new Map<string, string>()
  #lastAnswer = Date.now()
  #lastLeaseSweep = 0
  /** A fresh process waits like one that has lost Redis: it does not know whether Redis has just come back. */
  #graceUntil = Date.now() + leaseMs

  constructor(engine: Engine) {
    this.#engine = engine
  }

  start(): void {
    const tick = (): void => {
      this.#running = this.#sweep()
        .catch((error: unknown) => this.#engine.log.debug({ err: error }, 'sweep interrupted'))
        .finally(() => {
          if (!this.#stopped) this.#timer = setTimeout(tick, tickMs)
        })
    }
    this.#timer = setTimeout(tick, tickMs)
  }

  async stop(): Promise<void> {
    this.#stopped = true
    clearTimeout(this.#timer)
    await this.#running
  }

  async #sweep(): Promise<void> {
    const { store } = this.#engine
    await store.now()
    const now = Date.now()
    if (now - this.#lastAnswer > 1000 + tickMs) this.#graceUntil = now + leaseMs
    this.#lastAnswer = now
    const sweepsLeases = now > this.#graceUntil && now - this.#lastLeaseSweep >= 1000
    if (sweepsLeases) this.#lastLeaseSweep = now
    for (let shard = 0; shard < store.shards && !this.#stopped; shard++) {
      await this.#each(await store.claim('timers', shard, 200, 5000), (member) => this.#fire(member))
      if (sweepsLeases) await this.#each(await store.claim('leases', shard, 200, 2000), (member) => this.#expire(member))
      await this.#each(await store.claim('outbox', shard, 500, 2000), (member) => this.#resend(member))
    }
    this.#lastAnswer = Date.now()
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
    if (suffix === 'deadline') {
      const error = new DarkroomError('session.deadline_exceeded', `session ${sessionId} did not end before its deadline`)
      if (!(await store.end(sessionId, error.toWire(), suffix))) await store.forget('timers', member)
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
    const { is, worker } = await this.#engine.store.expire(stepKey, poisonLimit)
    if (is === 'alive' || is === 'closed') return
    this.#engine.log.warn({ step: stepKey, worker, is }, 'a lease ended without its attempt')
    await this.#engine.countLoss(worker, splitStepKey(stepKey).sessionId)
  }

  async #resend(member: string): Promise<void> {
    const [kind, name] = member.split(/:(.*)/s) as [string, string]
    if (kind === 'inbox') {
      // The commit that empties the inbox, or ends the session, takes the member out.
      return this.#engine.drainInbox(name)
    }
    const record = await this.#engine.store.step(name)
    if (!record || record.state !== 'open') {
      this.#stranded.delete(name)
      return this.#engine.store.forget('outbox', member)
    }
    if (record.lane === 'host') await this.#resendHost(name, record, member)
    else await this.#resendDevice(name, record, member)
  }

  async #resendHost(stepKey: string, record: StepRecord, member: string): Promise<void> {
    const { store, dispatcher } = this.#engine
    const step = { stepKey, dispatch: record.dispatch, name: record.name, priority: record.priority }
    if (!(await dispatcher.knows(queues.host, `${stepKey}.${record.dispatch}`))) await dispatcher.add(step, queues.host)
    const workers = await this.#engine.workers()
    const nobody = workers.every((worker) => worker.status !== 'ready')
    if (nobody) {
      this.#stranded.set(stepKey, 'no worker is running')
      await store.waits(splitStepKey(stepKey).sessionId, 'no worker is running')
    } else this.#stranded.delete(stepKey)
    await store.postpone(member, (await store.now()) + (nobody ? 1000 : 30_000))
  }

  async #resendDevice(stepKey: string, record: StepRecord, member: string): Promise<void> {
    const { store, dispatcher } = this.#engine
    const { sessionId } = splitStepKey(stepKey)
    const at = await store.fields(sessionId, 'version', 'snapshot', 'workflow', 'exactnessKey', 'lastWorker', 'status')
    const workflow = at.workflow === null ? undefined : this.#engine.workflow(at.workflow)
    if (!workflow || at.version === null || at.snapshot === null || at.workflow === null)
      return store.postpone(member, (await store.now()) + 1000)
    const context = this.#engine.loaded(sessionId, { version: at.version, snapshot: at.snapshot, workflow: at.workflow }).document.context
    const now = await store.now()
    const waited = now - record.placedAt
    const mayWaitForWorker = record.queue === '' || (queues.isDevice(record.queue) && waited <= affinityMs)
    const step = {
      stepKey,
      dispatch: record.dispatch,
      name: record.name,
      lane: record.lane,
      priority: record.priority,
      model: workflow.needs(context),
      exactnessKey: at.exactnessKey,
      lastWorker: mayWaitForWorker ? at.lastWorker : null,
    }
    const placement = place(step, await this.#engine.workers())
    if ('nowhere' in placement) {
      this.#stranded.set(stepKey, placement.nowhere)
      const nowhereMs = await store.waits(sessionId, placement.nowhere)
      if (placement.elsewhere && nowhereMs > this.#engine.config.classWaitS * 1000 && !workflow.isStrict(context))
        await this.#move(sessionId, at.exactnessKey ?? '')
      return store.postpone(member, now + 1000)
    }
    this.#stranded.delete(stepKey)
    const stays = record.queue === placement.queue
    if (!stays || !(await dispatcher.knows(record.queue, `${stepKey}.${record.dispatch}`))) {
      // Only a job under another number can be added beside the one that lies in the old queue.
      const dispatch = await store.place(stepKey, record.dispatch, placement.queue, record.queue !== '' && !stays)
      if (dispatch !== undefined) await dispatcher.add({ ...step, dispatch }, placement.queue)
    }
    await store.postpone(member, now + (placement.isAffinity ? 500 : 5000))
  }

  /** No worker of the pinned class came: the session begins again, from encode, on another. */
  async #move(sessionId: string, exactnessKey: string): Promise<void> {
    await this.#engine.apply(sessionId, {
      kind: 'event',
      name: `class.lost:${exactnessKey}`,
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

  /** Lanes that take nothing although jobs wait. */
  async lanes(): Promise<{ ready: boolean; reasons: string[] }> {
    const reasons = new Set(this.#stranded.values())
    const workers = await this.#engine.workers()
    if (workers.every((worker) => worker.status !== 'ready')) {
      const waiting = await this.#engine.dispatcher.queue(queues.host).getJobCountByTypes('waiting', 'prioritized')
      if (waiting > 0) reasons.add(`${waiting} jobs wait in lane host and no worker takes them`)
    }
    return { ready: reasons.size === 0, reasons: [...reasons] }
  }
}
