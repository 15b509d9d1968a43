/**
 * The durable engine: it starts sessions, applies what happened to them, and answers what is known. Here stands what
 * clients and workers ask of all its parts, and what goes on by itself.
 */
import { Collector } from '../artifacts/collector.ts'
import { ClockKeeper } from '../clock.ts'
import { sessionError, unknownSession } from '../errors.ts'
import { findDevice } from '../farm/devices.ts'
import { keys, sessionIdPattern } from '../keys.ts'
import { type StateInfo } from './again.ts'
import { Bulk } from './bulk.ts'
import type { Dispatcher } from './dispatch.ts'
import type { Overseer, Watcher } from './feed.ts'
import { type OwnReport } from './own-workflows.ts'
import { EngineParts, type EngineOptions } from './parts.ts'
import type { Paused } from './pauses.ts'
import { type SentPicture } from './pictures.ts'
import { receiptOf } from './receipt.ts'
import { type WorkflowInfo } from './registry.ts'
import type {
  Approval,
  ApprovalAnswer,
  Asker,
  Change,
  ControlVerb,
  Export,
  ForkRequest,
  Receipt,
  Session,
  SessionEvent,
  SessionFilter,
  SessionPage,
  Signal,
  Submission,
} from './session.ts'
import { type Granted } from './signals.ts'
import { Sweep } from './sweep.ts'

export type { EngineOptions } from './parts.ts'

export class Engine extends EngineParts {
  /** Actions over many sessions. */
  readonly bulk: Bulk
  /** What goes on by itself while the engine is open. */
  readonly #sweeps: readonly { start(): void; stop(): Promise<void> }[]

  constructor(options: EngineOptions) {
    super(options)
    const { redis, artifacts, sweeps = true } = options
    const { reads, keyStore, times, log, at, shards, devices } = this
    this.bulk = new Bulk({ redis, reads, keyStore, act: this, times, log, at })
    const collector = artifacts && new Collector({ redis, artifacts, names: reads, log })
    const clocks = [...Array.from({ length: shards }, (_, shard) => keys.clock(shard)), keys.workersClock(), keys.storeClock()]
    const clock = new ClockKeeper(redis, clocks, log)
    this.#sweeps = sweeps
      ? [clock, new Sweep(this), this.retention, this.schedules, this.bulk, devices.watch, ...(collector ? [collector] : [])]
      : []
    for (const sweep of this.#sweeps) sweep.start()
    this.models.start()
  }

  /**
   * Makes workflows of one's own known, before anything is asked of them.
   * @throws DarkroomError `workflow.unloadable` when their folder is not there; `redis.unavailable`
   */
  openWorkflows(): Promise<void> {
    return this.ownWorkflows.open()
  }

  /**
   * Reads the folder of workflows again, here and in every other process.
   * @throws DarkroomError `workflow.no_folder`, `workflow.unloadable` when it is gone
   */
  reloadWorkflows(): Promise<OwnReport> {
    return this.ownWorkflows.reload()
  }

  /**
   * Accepts a session. Its request is completed here and never changes again.
   * @throws DarkroomError `workflow.unknown`, `workflow.forbidden`, `api.invalid`, `model.unknown`, `model.unusable`,
   * `device.unknown`, `session.idempotency_mismatch`, `limit.sessions`, `limit.commands`, `redis.full`,
   * `redis.unavailable`
   */
  start(submission: Submission): Promise<{ session: Session; created: boolean }> {
    return this.submissions.start(submission)
  }

  /**
   * A new session that goes on from the last recorded state of a failed or cancelled one.
   * @throws DarkroomError `session.unknown`, `session.not_retryable`, `session.idempotency_mismatch`,
   * `workflow.unknown`, `redis.full`
   */
  async retry(id: string, asker: Asker): Promise<Session> {
    return this.reads.mustGet(await this.again.retry(await this.reads.mustGet(id), asker))
  }

  /**
   * A new session that goes on from any recorded state of another, with the same input or a changed one.
   * @throws DarkroomError `session.unknown`, `session.not_forkable`, `session.checkpoint_gone`,
   * `session.idempotency_mismatch`, `workflow.unknown`, `redis.full`; what a changed input is refused with
   */
  async fork(id: string, request: ForkRequest, asker: Asker): Promise<Session> {
    return this.reads.mustGet(await this.again.fork(await this.reads.mustGet(id), request, asker))
  }

  /**
   * The states that a session can be forked from, oldest first.
   * @throws DarkroomError `session.unknown`, `session.not_forkable`
   */
  async states(id: string): Promise<StateInfo[]> {
    return this.again.states(await this.reads.mustGet(id))
  }

  /**
   * Tells a session's machine something from outside. The event id makes a repeat the same signal.
   * @throws DarkroomError `session.unknown`, `session.ended`, `session.signal_unknown`
   */
  signal(id: string, signal: Signal): Promise<Session> {
    return this.signals.send(id, signal)
  }

  /**
   * Lets whoever has the token send one signal, once.
   * @throws DarkroomError `session.unknown`, `session.ended`, `session.signal_unknown`, `approval.too_many`
   */
  grant(id: string, approval: Approval): Promise<Granted> {
    return this.signals.grant(id, approval)
  }

  /** @throws DarkroomError `approval.*`, `session.ended`, `api.invalid` */
  answer(token: string, answer: ApprovalAnswer): Promise<{ session: string; signal: string }> {
    return this.signals.answer(token, answer)
  }

  /** @throws DarkroomError `session.unknown`, `session.ended` */
  async control(id: string, verb: ControlVerb): Promise<Session> {
    const reply = sessionIdPattern.test(id) ? await this.store.control(id, verb) : ({ is: 'missing' } as const)
    if (reply.is === 'missing') throw unknownSession(id)
    if (reply.is === 'ended') throw sessionError('ended', `session ${id} has ${reply.status}`, { details: { status: reply.status } })
    return this.reads.mustGet(id)
  }

  /**
   * Gives a session other tags; an open one another deadline, counted from now, or none.
   * @throws DarkroomError `session.unknown`, `session.ended`
   */
  async change(id: string, { tags, deadlineS }: Change): Promise<Session> {
    const deadlineMs = typeof deadlineS === 'number' ? Math.round(deadlineS * 1000) : deadlineS
    const entry = { type: 'session.changed' as const, ...(tags && { tags }), ...(deadlineS !== undefined && { deadlineS }) }
    const reply = sessionIdPattern.test(id) ? await this.store.change(id, { tags, deadlineMs }, entry) : ({ is: 'missing' } as const)
    if (reply.is === 'missing') throw unknownSession(id)
    if (reply.is === 'ended')
      throw sessionError('ended', `session ${id} has ${reply.status}`, { field: 'deadlineS', details: { status: reply.status } })
    return this.reads.mustGet(id)
  }

  /**
   * Removes an ended session, and its children before it.
   * @throws DarkroomError `session.unknown`, `session.not_ended`
   */
  async remove(id: string): Promise<void> {
    await this.retention.remove(await this.reads.mustGet(id))
  }

  get(id: string): Promise<Session | undefined> {
    return this.reads.get(id)
  }

  list(filter: SessionFilter): Promise<SessionPage> {
    return this.reads.list(filter)
  }

  history(id: string, after: number, limit: number): Promise<{ id: number; event: SessionEvent }[]> {
    return this.reads.history(id, after, limit)
  }

  async receipt(id: string): Promise<Receipt | undefined> {
    const session = await this.reads.get(id)
    if (!session) return undefined
    const history = await this.reads.history(id, 0, 10_000)
    return receiptOf(
      session,
      history.map(({ event }) => event),
    )
  }

  /** @throws DarkroomError `session.unknown`; `workflow.unknown` when this process does not have its workflow */
  async export(id: string): Promise<Export> {
    const session = await this.reads.mustGet(id)
    const { workflow } = this.registry.known(session.workflow)
    const history = await this.reads.history(id, 0, 10_000)
    const receipt = receiptOf(
      session,
      history.map(({ event }) => event),
    )
    const request = { workflow: session.workflow, input: workflow.asked(session.input) }
    return { request, content: this.registry.source(session.workflow)?.sha256 ?? null, session, history, receipt }
  }

  /** Calls back at each new history entry and progress frame. A lost wake is the caller's own poll's to make up for. */
  watch(id: string, watcher: Watcher): Promise<() => void> {
    return this.feed.watch(id, watcher)
  }

  /** Calls back at each change of any session. */
  oversee(overseer: Overseer): Promise<() => void> {
    return this.feed.oversee(overseer)
  }

  /** Whether it may be fetched and drawn over: a session names it, or it was uploaded; with a key, by that key. */
  sees(sha256: string, keyId: string | null): Promise<boolean> {
    return this.pictures.sees(sha256, keyId)
  }

  /**
   * Keeps a picture that the key has sent; returns its SHA-256.
   * @throws DarkroomError `disk.full`, `redis.unavailable`
   */
  upload(picture: SentPicture, keyId: string | null): Promise<string> {
    return this.pictures.keep(picture, keyId)
  }

  /** Those of these sessions that the API key has submitted. */
  submittedBy(keyId: string, ids: readonly string[]): Promise<ReadonlySet<string>> {
    return this.reads.submittedBy(keyId, ids)
  }

  workflows(): WorkflowInfo[] {
    return this.registry.infos()
  }

  /**
   * Nothing that was written before this is in Redis' memory alone.
   * @throws DarkroomError `redis.unavailable` when it may be, or when Redis takes no writes now
   */
  confirm(): Promise<void> {
    return this.reads.confirm()
  }

  /**
   * Lets nobody in: to a device by its name, to those of a class, or to any. What runs goes on.
   * @throws DarkroomError `device.unknown` for a device that is not here now
   */
  async pauseQueue({ device, class: exactnessKey }: Paused): Promise<void> {
    const id = device === undefined ? undefined : findDevice(device, await this.workers(), 'device').device.id
    await this.pauses.pause({ device: id, class: exactnessKey })
    await this.admission.wake()
  }

  /** Lets sessions in again. A device is named by its id; one that is here by its other names, too. */
  async resumeQueue({ device, class: exactnessKey }: Paused): Promise<void> {
    const here = (await this.workers()).map((worker) => worker.device).find(({ kind, index }) => `${kind}:${index}` === device)
    await this.pauses.resume({ device: here?.id ?? device, class: exactnessKey })
    await this.admission.wake()
  }

  /** Queues for the operator's board: those of the lanes that workers have now. */
  queues(): ReturnType<Dispatcher['served']> {
    return this.dispatcher.served()
  }

  /** Stops the sweeps and lets go of queues; the connections belong to the caller. */
  async close(): Promise<void> {
    await Promise.all([this.models.stop(), this.ownWorkflows.stop(), ...this.#sweeps.map((sweep) => sweep.stop())])
    await this.dispatcher.close()
  }
}
