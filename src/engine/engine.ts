/**
 * The durable engine, put together: it starts sessions, applies what happened to them, and answers what is known. Each
 * part is a file of its own; here stands what clients and workers ask of all of them.
 */
import { randomUUID } from 'node:crypto'
import { Collector } from '../artifacts/collector.ts'
import type { ArtifactStore } from '../artifacts/store.ts'
import { ClockKeeper } from '../clock.ts'
import type { Config } from '../config.ts'
import { operations as builtInOperations } from '../domains/index.ts'
import type { OperationTable } from '../domains/operation.ts'
import { sessionError, unknownSession } from '../errors.ts'
import { Devices } from '../farm/devices.ts'
import { countLoss, readWorkers } from '../farm/presence.ts'
import type { HeardWorker } from '../farm/record.ts'
import { keys, sessionIdPattern } from '../keys.ts'
import type { Logger } from '../log.ts'
import { Catalogue } from '../models/catalogue.ts'
import type { Redis } from '../redis.ts'
import { workflows as builtInWorkflows, type Workflow } from '../workflows/index.ts'
import { Children } from './children.ts'
import { Commits, type Committed } from './commit.ts'
import { Dispatcher } from './dispatch.ts'
import { Feed, type Watcher } from './feed.ts'
import { Outbox } from './outbox.ts'
import { SessionOwners } from './owners.ts'
import type { AtPoint } from './points.ts'
import { Reads } from './reads.ts'
import { receiptOf } from './receipt.ts'
import { recent } from './recent.ts'
import { Registry, type WorkflowInfo } from './registry.ts'
import { Retention } from './retention.ts'
import type { ControlVerb, Receipt, Session, SessionEvent, SessionFilter, SessionPage, Signal, Submission } from './session.ts'
import { Store } from './store.ts'
import { Submissions } from './submit.ts'
import { Sweep } from './sweep.ts'
import { productTimes, type Times } from './times.ts'

export interface EngineOptions {
  redis: Redis
  /** For subscriptions; a connection of its own, because a subscriber can do nothing else. */
  subscriber: Redis
  config: Config
  log: Logger
  workflows?: readonly Workflow[] | undefined
  operations?: OperationTable | undefined
  /** Runs the sweeps; false only for a process that starts and reads sessions in tests of the others. */
  sweeps?: boolean | undefined
  /** Where it can reach the artifacts: its sweeps then remove those that no session names. */
  artifacts?: ArtifactStore | undefined
  /** Those of the product when left out. */
  times?: Times | undefined
  /** Called at every crash point. */
  at?: AtPoint | undefined
}

export class Engine {
  readonly config: Config
  readonly log: Logger
  readonly times: Times
  readonly at: AtPoint | undefined
  readonly shards: number
  readonly store: Store
  readonly reads: Reads
  readonly registry: Registry
  readonly dispatcher: Dispatcher
  readonly commits: Commits
  readonly submissions: Submissions
  readonly children: Children
  readonly outbox: Outbox
  readonly retention: Retention
  readonly owners: SessionOwners
  readonly devices: Devices
  /** The models of all hosts. */
  readonly models: Catalogue
  /** Workers that live, as they published themselves; read again at most every 300 ms. */
  readonly workers: () => Promise<HeardWorker[]>
  /**
   * Counts an attempt of this session that the worker has lost; the worker reads the count and drains itself when it is
   * too high.
   */
  readonly countLoss: (worker: string, sessionId: string) => Promise<void>
  readonly #feed: Feed
  /** What goes on by itself while the engine is open. */
  readonly #sweeps: readonly { start(): void; stop(): Promise<void> }[]

  constructor(options: EngineOptions) {
    const { redis, subscriber, config, log, at, times = productTimes } = options
    const { workflows = builtInWorkflows, operations = builtInOperations, artifacts, sweeps = true } = options
    const { shards } = config
    this.config = config
    this.log = log
    this.at = at
    this.times = times
    this.shards = shards
    this.workers = recent(300, () => readWorkers(redis))
    this.countLoss = (worker, sessionId) => countLoss(redis, worker, sessionId)
    this.devices = new Devices(redis, this.workers, log)
    this.models = new Catalogue({ redis, folders: config.models, log })

    this.store = new Store({ redis, times, at })
    this.reads = new Reads(redis, shards)
    this.registry = new Registry(workflows, operations)
    this.dispatcher = new Dispatcher({ redis, store: this.store, reads: this.reads, workers: this.workers, models: this.models, times, at })
    // What a commit puts into the outbox is handled at once; the outbox itself commits.
    const afterCommit = (committed: Committed): Promise<void> => this.outbox.committed(committed)
    const { store, reads, registry, dispatcher, devices, models } = this
    this.commits = new Commits({ store, reads, registry, shards, log, at, afterCommit })
    const { commits } = this
    this.submissions = new Submissions({ store, reads, registry, devices, models, workers: this.workers, config, afterCommit })
    this.children = new Children({ store, reads, commits, submissions: this.submissions, at })
    const { children } = this
    this.outbox = new Outbox({ store, reads, registry, commits, children, dispatcher, config, times, log, at })
    this.retention = new Retention({ redis, store, reads, commits, children, config, log })
    this.owners = new SessionOwners(redis, reads)
    this.#feed = new Feed(subscriber, log)

    const collector = artifacts && new Collector({ redis, artifacts, names: reads, log })
    const clocks = [...Array.from({ length: shards }, (_, shard) => keys.clock(shard)), keys.workersClock(), keys.storeClock()]
    const clock = new ClockKeeper(redis, clocks, log)
    this.#sweeps = sweeps ? [clock, new Sweep(this), this.retention, devices.watch, ...(collector ? [collector] : [])] : []
    for (const sweep of this.#sweeps) sweep.start()
    this.models.start()
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
   * @throws DarkroomError `session.unknown`, `session.not_retryable`, `workflow.unknown`, `redis.full`
   */
  async retry(id: string, keyId: string | null): Promise<Session> {
    return this.reads.mustGet(await this.submissions.retry(await this.reads.mustGet(id), keyId))
  }

  /**
   * Tells a session's machine something from outside. The event id makes a repeat the same signal.
   * @throws DarkroomError `session.unknown`, `session.ended`, `session.signal_unknown`
   */
  async signal(id: string, { type, data, eventId = randomUUID() }: Signal): Promise<Session> {
    const session = await this.reads.mustGet(id)
    const taken = this.registry.machine(session.workflow)?.signals
    if (
      taken &&
      !taken.some((pattern) => pattern === type || pattern === '*' || (pattern.endsWith('.*') && type.startsWith(pattern.slice(0, -1))))
    )
      throw sessionError(
        'signal_unknown',
        `${session.workflow} takes no signal ${type}; it takes ${taken.length > 0 ? taken.join(', ') : 'none'}`,
        { field: 'type' },
      )
    const name = `signal:${eventId}`
    const outcome = await this.commits.apply(id, {
      kind: 'event',
      name,
      attemptId: '',
      event: { type: `signal.${type}`, ...(data !== undefined && { data }) },
      entry: { type: 'signal.received', signal: type, eventId, ...(data !== undefined && { data }) },
      artifacts: [],
      unpin: false,
    })
    const now = await this.reads.mustGet(id)
    // A duplicate of an event that was applied before the end is not an error.
    if (outcome === 'ended' && (await this.reads.fields(id, `seen:${name}`))[`seen:${name}`] === null)
      throw sessionError('ended', `session ${id} has ${now.status}`, { details: { status: now.status } })
    return now
  }

  /** @throws DarkroomError `session.unknown`, `session.ended` */
  async control(id: string, verb: ControlVerb): Promise<Session> {
    const reply = sessionIdPattern.test(id) ? await this.store.control(id, verb) : ({ is: 'missing' } as const)
    if (reply.is === 'missing') throw unknownSession(id)
    if (reply.is === 'ended') throw sessionError('ended', `session ${id} has ${reply.status}`, { details: { status: reply.status } })
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

  /** Calls back at each new history entry and progress frame. A lost wake is the caller's own poll's to make up for. */
  watch(id: string, watcher: Watcher): Promise<() => void> {
    return this.#feed.watch(id, watcher)
  }

  /** Whether a session names the artifact; with a key, one of that key's sessions. */
  names(sha256: string, keyId: string | null): Promise<boolean> {
    return this.reads.names(sha256, keyId)
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

  /** Queues for the operator's board: those of the lanes that workers have now. */
  queues(): ReturnType<Dispatcher['served']> {
    return this.dispatcher.served()
  }

  /** Stops the sweeps and lets go of queues; the connections belong to the caller. */
  async close(): Promise<void> {
    await Promise.all([this.models.stop(), ...this.#sweeps.map((sweep) => sweep.stop())])
    await this.dispatcher.close()
  }
}
