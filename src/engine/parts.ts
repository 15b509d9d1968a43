/** The parts that an engine is put together of. Each is a file of its own. */
import { join } from 'node:path'
import { FileArtifactStore, type ArtifactStore } from '../artifacts/store.ts'
import type { Config } from '../config.ts'
import { operations as builtInOperations } from '../domains/index.ts'
import type { OperationTable } from '../domains/operation.ts'
import { Devices } from '../farm/devices.ts'
import { countLoss, readWorkers } from '../farm/presence.ts'
import type { HeardWorker } from '../farm/record.ts'
import type { Logger } from '../log.ts'
import { Catalogue } from '../models/catalogue.ts'
import { configRoots } from '../models/configs.ts'
import { Quarantine } from '../models/quarantine.ts'
import type { Redis } from '../redis.ts'
import { Runs } from '../farm/runs.ts'
import { Deliveries } from '../webhooks/deliveries.ts'
import { Webhooks } from '../webhooks/webhooks.ts'
import { workflows as builtInWorkflows, type Workflow } from '../workflows/index.ts'
import { KeyStore } from '../api-keys.ts'
import { Admission } from './admission.ts'
import { Again } from './again.ts'
import { Children } from './children.ts'
import { Commits, type Committed } from './commit.ts'
import { readCounts, type Counts } from './counts.ts'
import { Dispatcher } from './dispatch.ts'
import { DryRuns } from './dry-run.ts'
import { Feed } from './feed.ts'
import { ItemReads } from './item-reads.ts'
import { Lines } from './lines.ts'
import { Outbox } from './outbox.ts'
import { OwnWorkflows } from './own-workflows.ts'
import { Pauses } from './pauses.ts'
import { Pictures } from './pictures.ts'
import { newest, type Standing } from './newest.ts'
import { PictureAnalytics } from './picture-analytics.ts'
import { Policies } from './policies.ts'
import { SessionOwners } from './owners.ts'
import type { AtPoint } from './points.ts'
import { Previews } from './previews.ts'
import { Reads } from './reads.ts'
import { recent } from './recent.ts'
import { Registry } from './registry.ts'
import { Retention } from './retention.ts'
import { Schedules } from './schedules.ts'
import { Signals } from './signals.ts'
import { Store } from './store.ts'
import { Submissions } from './submit.ts'
import { Undoings } from './undoing.ts'
import { productTimes, type Times } from './times.ts'
import { Usage } from './usage.ts'
import { WaitingSessions } from './waiting.ts'

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

/** The parts of an engine: each knows of the others what it is given here, and nothing goes on by itself yet. */
export class EngineParts {
  readonly config: Config
  readonly log: Logger
  readonly times: Times
  readonly at: AtPoint | undefined
  readonly shards: number
  readonly store: Store
  readonly reads: Reads
  readonly registry: Registry
  readonly ownWorkflows: OwnWorkflows
  readonly dispatcher: Dispatcher
  readonly commits: Commits
  readonly pictures: Pictures
  /** Of content safety. */
  readonly policies: Policies
  /** How postprocessing went, by day. */
  readonly pictureAnalytics: PictureAnalytics
  /** How pictures look that are drawn now. */
  readonly previews: Previews
  readonly submissions: Submissions
  readonly again: Again
  readonly children: Children
  /** Of sessions that work some off. */
  readonly items: ItemReads
  readonly outbox: Outbox
  readonly lines: Lines
  /** What API keys have used, by day. */
  readonly usage: Usage
  readonly admission: Admission
  readonly pauses: Pauses
  /** The queue of those that wait for a device, to be seen and moved. */
  readonly waiting: WaitingSessions
  /** What would come of submissions. */
  readonly dryRuns: DryRuns
  readonly retention: Retention
  readonly schedules: Schedules
  readonly owners: SessionOwners
  readonly devices: Devices
  /** The models of all hosts. */
  readonly models: Catalogue
  /** Workers that live, as they published themselves last. */
  readonly workers: () => Promise<HeardWorker[]>
  /**
   * Counts an attempt of this session that the worker has lost; the worker reads the count and drains itself when it is
   * too high.
   */
  readonly countLoss: (worker: string, sessionId: string) => Promise<void>
  /** The farm in numbers. */
  readonly counts: () => Promise<Counts>
  /** Where the newest sessions stand. @throws DarkroomError `redis.unavailable` */
  readonly newest: (count: number) => Promise<Standing[]>
  readonly runs: Runs
  /** Models that were found broken. */
  readonly quarantine: Quarantine
  readonly webhooks: Webhooks
  /** What webhooks are told of ended sessions, and whether they were. */
  readonly deliveries: Deliveries
  protected readonly feed: Feed
  protected readonly signals: Signals
  protected readonly keyStore: KeyStore

  constructor(options: EngineOptions) {
    const { redis, subscriber, config, log, at, times = productTimes } = options
    const { workflows = builtInWorkflows, operations = builtInOperations, artifacts } = options
    const { shards } = config
    this.config = config
    this.log = log
    this.at = at
    this.times = times
    this.shards = shards
    this.workers = () => readWorkers(redis)
    // Each decision of the queue asks: one answer serves for those of a moment. A request sees what a command has left.
    const workers = recent(300, this.workers)
    this.countLoss = (worker, sessionId) => countLoss(redis, worker, sessionId)
    this.counts = () => readCounts(redis, shards)
    this.newest = (count) => newest(redis, shards, count)
    this.runs = new Runs(redis)
    this.quarantine = new Quarantine(redis)
    this.webhooks = new Webhooks(redis, config)
    this.deliveries = new Deliveries(redis, shards)
    this.devices = new Devices(redis, this.workers, log)
    this.models = new Catalogue({
      redis,
      folders: config.models,
      configs: configRoots(config),
      rescanMs: times.rescanMs,
      log,
      idleHash: config.idleHash,
      workers: this.workers,
    })

    this.store = new Store({ redis, times, at })
    this.reads = new Reads(redis, shards)
    this.registry = new Registry(workflows, operations)
    this.ownWorkflows = new OwnWorkflows({ redis, registry: this.registry, folder: config.workflows, log })
    this.dispatcher = new Dispatcher({ redis, store: this.store, reads: this.reads, workers, models: this.models, times, at })
    // What a commit puts into the outbox is handled at once; the outbox itself commits.
    const afterCommit = (committed: Committed): Promise<void> => this.outbox.committed(committed)
    const { store, reads, registry, ownWorkflows, dispatcher, devices, models } = this
    this.commits = new Commits({ store, reads, registry, ownWorkflows, shards, log, at, afterCommit })
    const { commits } = this
    this.signals = new Signals({ store, reads, registry, ownWorkflows, commits })
    const bytes = artifacts ?? new FileArtifactStore(join(config.data, 'artifacts'))
    this.pictures = new Pictures({ redis, reads, artifacts: bytes, minFreeDisk: config.minFreeDisk })
    this.previews = new Previews({ redis, artifacts: bytes })
    this.items = new ItemReads(redis)
    this.policies = new Policies(redis)
    this.pictureAnalytics = new PictureAnalytics(redis)
    const { pictures, policies, items, webhooks, quarantine } = this
    this.submissions = new Submissions({
      store,
      reads,
      items,
      registry,
      ownWorkflows,
      webhooks,
      devices,
      models,
      quarantine,
      pictures,
      policies,
      workers,
      config,
      afterCommit,
    })
    const { submissions } = this
    this.again = new Again({
      reads,
      items,
      registry,
      ownWorkflows,
      submissions,
      devices,
      models,
      quarantine,
      pictures,
      policies,
      workers,
      artifacts: bytes,
      config,
    })
    this.children = new Children({ store, reads, commits, submissions, items, shards, at })
    const { children } = this
    const undoings = new Undoings({ store, reads, registry, shards, afterCommit })
    this.lines = new Lines({ redis, at, shards })
    const { lines } = this
    this.usage = new Usage(redis, shards)
    const { usage } = this
    this.keyStore = new KeyStore(redis)
    const { keyStore } = this
    this.pauses = new Pauses(redis)
    const { pauses } = this
    this.admission = new Admission({
      lines,
      pauses,
      dispatcher,
      workers,
      weights: recent(1000, () => keyStore.weights()),
      usage,
      config,
      log,
    })
    const { admission } = this
    this.waiting = new WaitingSessions({ lines, admission, pauses, reads, workers })
    const { waiting, runs } = this
    this.dryRuns = new DryRuns({ submissions, registry, models, waiting, pauses, runs, workers })
    this.outbox = new Outbox({ store, reads, registry, commits, children, undoings, dispatcher, lines, admission, config, times, log, at })
    this.retention = new Retention({ redis, store, reads, commits, children, undoings, config, log })
    this.schedules = new Schedules({ redis, reads, store, submissions, keyStore, times, log, at })
    this.owners = new SessionOwners(redis, reads)
    this.feed = new Feed(subscriber, log)
  }
}
