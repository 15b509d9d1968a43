/**
 * A worker node: one process, one device, one Python child.
 *
 * | status | entered | left |
 * | --- | --- | --- |
 * | `starting` | device leased, child imports | handshake → `ready` |
 * | `ready` | lanes take steps | SIGTERM, or no child or device any more → `draining`; three lost sessions in a row → `suspect` |
 * | `stalled` | a lane has room and takes no job although jobs wait for it | it takes one, or none waits → `ready` |
 * | `suspect` | it lost attempts of three different sessions without completing a step | the operator restarts it |
 * | `draining` | what runs is checkpointed and given back | the process exits |
 */
import { randomBytes, randomUUID } from 'node:crypto'
import { join } from 'node:path'
import type { ArtifactStore } from '../artifacts/store.ts'
import type { Config } from '../config.ts'
import { deviceError } from '../domains/device/errors.ts'
import type { Lane, OperationTable } from '../domains/operation.ts'
import type { Exactness } from '../domains/values.ts'
import type { Attempt, AttemptPort } from '../engine/attempt.ts'
import type { DarkroomError } from '../errors.ts'
import { bookMemory } from '../farm/bookings.ts'
import type { DeviceLease } from '../farm/device-lease.ts'
import { countLosses, forgiveLosses, publishAnalytics, publishWorker, withdrawWorker } from '../farm/presence.ts'
import type { WorkerRecord } from '../farm/record.ts'
import { reserve, type Need, type Reservation } from '../farm/reservations.ts'
import { keys, queues } from '../keys.ts'
import { logFile, type Logger } from '../log.ts'
import { within, type Deferred } from '../promises.ts'
import type { Redis } from '../redis.ts'
import { Ticker } from '../ticker.ts'
import { pictureLimits } from './device/limits.ts'
import { DeviceMonitor } from './device/monitor.ts'
import type { OwnDevice } from './device/open.ts'
import { PictureMemory, shapeOf } from './device/picture-memory.ts'
import { LaneWatch } from './lane-watch.ts'
import { Lane as StepLane, type LaneOptions } from './lanes.ts'
import { prefetch } from './prefetch.ts'
import type { Convert } from './python/convert.ts'
import type { Heartbeat, Ready } from './python/protocol.ts'
import type { PythonChild } from './python/supervisor.ts'
import { StepRunner } from './runner.ts'
import { allowsSpare } from './standby.ts'
import type { ToolsOptions } from './tools.ts'

const publishMs = 1000
/** Sessions whose attempts a worker may lose in a row before it stops taking work. */
const suspectLimit = 3
/** How long a spare waits at most for a CPU that draws nothing, seconds after the Python child has started. */
const spareWaitS = 60
/** Commands that a worker carries out at a time, and of one API key: others find a place beside long ones. */
const [maxCommands, maxCommandsOfKey] = [8, 6]
/** How long a step waits for its place on the device, ms: longer than a dead worker's reservation lasts. */
const stepWaitMs = 10_000
/** How long an allocation waits for its place, ms: shorter, for its caller waits too. */
const commandWaitMs = 2000

/** What boot.ts has opened for a node. */
export interface NodeParts {
  config: Config
  log: Logger
  redis: Redis
  /** A connection for the control channel. */
  subscriber: Redis
  artifacts: ArtifactStore
  /** Folder for attempt files. */
  attempts: string
  child: PythonChild
  convert: Convert
  port: AttemptPort
  operations: OperationTable
  ready: Ready
  exactness: Exactness
  host: string
  epoch: string
  /** Id of the device. */
  device: string
  lease: DeviceLease
  own: OwnDevice
  /** Resolved when the worker cannot go on. */
  failure: Deferred<DarkroomError>
  /** Closes all parts. */
  close(): Promise<void>
}

export class WorkerNode {
  readonly id: string
  /** Resolves when the node has drained by itself: its child cannot be started any more, or its device is another's. */
  readonly ended: Promise<DarkroomError>
  readonly #parts: NodeParts
  readonly #runner: StepRunner
  readonly #monitor: DeviceMonitor
  readonly #publisher: Ticker
  readonly #watches: { lane: Lane; size: number; watch: LaneWatch }[]
  readonly #startedAt = Date.now()
  #status: WorkerRecord['status'] = 'starting'
  #lanes: StepLane[] = []
  /** The step that reserved the device last. */
  #reserving: Attempt | undefined
  /** What pictures take of the device. */
  readonly #pictures = new PictureMemory()
  #hasCompleted = true
  #isPrefetching = false
  #draining: Promise<void> | undefined

  constructor(parts: NodeParts) {
    const { child, config, device, epoch, exactness, log, operations, own, port, ready, redis } = parts
    this.id = `${device}-${randomBytes(2).toString('hex')}`
    this.#parts = parts
    this.#monitor = new DeviceMonitor(own, {
      target: { device, worker: this.id, epoch },
      ready,
      child,
      families: () => [...new Set(port.models.own().flatMap(({ drawing }) => (drawing ? [drawing.family] : [])))],
      cacheBytes: config.modelCache,
      limits: pictureLimits(config),
      sessions: port.owners,
      keyLimits: config.limits,
      log,
      isBusy: () => this.#runner.running.some(({ step }) => operations[step]?.lane === 'gpu'),
      publish: () => this.#publish(),
      fail: (reason) => parts.failure.resolve(reason),
      reserve: (bytes) => this.#reserve(randomUUID(), { slots: 0, bytes, model: null, modelBytes: 0, priority: 5 }, commandWaitMs),
      promises: {
        keyQuota: config.keyMemory,
        reserved: () => this.#unloadedBytes(),
        bookRam: (booking) => bookMemory(redis, keys.hostMemory(parts.host), this.id, booking),
        bookKey: (principal, booking) => bookMemory(redis, keys.keyMemory(principal), this.id, booking),
      },
      publishAnalytics: (analytics) => publishAnalytics(redis, device, analytics),
    })
    this.#runner = new StepRunner({
      port,
      operations,
      log,
      taker: (lane) => ({ worker: this.id, device, exactnessKey: lane === 'gpu' ? exactness.key : '' }),
      tools: (attempt) => this.#toolsOf(attempt),
      reserve: async (attempt, signal) => {
        const reservation = await this.#reserve(attempt.id, this.#needOf(attempt), stepWaitMs, signal)
        this.#reserving = attempt
        return reservation
      },
      maxInARow: config.stepsInARow,
      hostLane: config.hostLane,
      onCompleted: ({ step, input }, output, went) => {
        this.#hasCompleted = true
        // It costs no step anything, and none waits for it.
        port.count(step, input, output, went).catch((error: unknown) => log.debug({ step, err: error }, 'a step was not counted'))
      },
    })
    this.#publisher = new Ticker(
      publishMs,
      async () => {
        await this.#watchLanes()
        this.#keepSpare()
        this.#prefetch()
        await this.#publish()
      },
      (error) => log.warn({ err: error }, 'the worker could not publish itself'),
    )
    this.#watches = [
      // Beside what runs, others may wait rightly: for a device that draws with another model.
      { lane: 'gpu', size: 1, watch: new LaneWatch(redis, this.#deviceQueues) },
      { lane: 'host', size: config.hostLane, watch: new LaneWatch(redis, this.#hostQueues) },
    ]
    this.ended = parts.failure.promise.then(async (reason) => {
      log.fatal({ worker: this.id, code: reason.code }, `this worker ends: ${reason.message}`)
      await this.drain()
      return reason
    })
  }

  /** Publishes the worker and opens its lanes. */
  async open(): Promise<void> {
    const { child, config, device, exactness, log, port, redis, subscriber } = this.#parts
    subscriber.on('message', (_channel: string, sessionId: string) => this.#control(sessionId))
    await subscriber.subscribe(keys.control())
    await this.#monitor.open()
    this.#status = 'ready'
    await this.#publish()
    const putBack = port.putBack.bind(port)
    const open = (lane: Lane, names: string[], size: number, more: Partial<LaneOptions> = {}): StepLane =>
      new StepLane({ redis, runner: this.#runner, log, putBack, lane, queues: names, size, ...more })
    this.#lanes = [
      open('gpu', this.#deviceQueues, config.deviceSlots, { isOpen: () => child.isReady, isPaused: () => this.#isPaused() }),
      ...this.#hostQueues.map((queue) => open('host', [queue], config.hostLane)),
      open('control', [queues.control(device)], maxCommands, { ofOneKey: maxCommandsOfKey }),
    ]
    this.#publisher.start()
    log.info({ worker: this.id, device, exactness: exactness.key }, 'the worker takes steps')
  }

  /** Asks the Python child what it holds now. */
  heartbeat(): Promise<Heartbeat> {
    return this.#parts.child.ping()
  }

  /** Gives back what runs, from its checkpoint, and stops; resolves within `drainS`, whether Redis answers or not. */
  drain(): Promise<void> {
    this.#draining ??= this.#drain()
    return this.#draining
  }

  async #drain(): Promise<void> {
    const { config, log } = this.#parts
    this.#status = 'draining'
    this.#runner.drain()
    try {
      await within(config.drainS * 1000, this.#leave(), undefined).catch((error: unknown) =>
        log.warn({ worker: this.id, err: error }, 'the worker could not leave in order'),
      )
      await this.#monitor.close()
    } finally {
      await this.#parts.close()
    }
  }

  async #leave(): Promise<void> {
    // Not awaited: a turn may wait for a Redis that is away.
    void this.#publisher.stop()
    await Promise.all([this.#publish(), ...this.#lanes.map((lane) => lane.close())])
    await this.#runner.closed()
    await withdrawWorker(this.#parts.redis, this.id)
    await Promise.all(this.#watches.map(({ watch }) => watch.close()))
  }

  /** The session's desired state has changed, or it has ended. */
  #control(sessionId: string): void {
    this.#runner.renew(sessionId)
    this.#monitor
      .releaseIfEnded(sessionId)
      .catch((error: unknown) => this.#parts.log.debug({ err: error }, 'an end was not checked; the monitor does it in its next turn'))
  }

  /** Queues of steps that this worker can run on its device, its own first. */
  get #deviceQueues(): string[] {
    const { device, exactness, port } = this.#parts
    return [queues.gpuDevice(device), queues.gpuClass(exactness.key), queues.gpuShelf(exactness.key, port.models.shelf)]
  }

  /** Queues of host steps: of all, and of those that need a model of this host. */
  get #hostQueues(): string[] {
    return [queues.host, queues.hostShelf(this.#parts.port.models.shelf)]
  }

  #toolsOf(attempt: Attempt): ToolsOptions {
    const { artifacts, attempts, child, config, convert, exactness, log, operations, port } = this.#parts
    return {
      attempt,
      port,
      artifacts,
      child,
      convert,
      storesIn: config.models.at(-1) ?? config.data,
      exactness,
      models: port.models,
      // By its id: one that began ahead and got no lease has the epoch of the one that comes after it.
      get folder() {
        return join(attempts, `${attempt.stepKey}.${attempt.epoch}.${attempt.id}`)
      },
      fileBytes: operations[attempt.step]?.needs?.(attempt.input).fileBytes ?? 0,
      get log() {
        return log.child({ trace: attempt.traceId })
      },
      device: this.#monitor.tools,
      cache: this.#monitor.cache,
      onStats: this.#onStats,
    }
  }

  readonly #onStats: ToolsOptions['onStats'] = ({ step, input }, stats, { id: model, family }) => {
    const shape = shapeOf(step, input)
    if (shape && stats.peakBytes !== undefined) this.#pictures.measured(shape, stats.peakBytes)
    if (step === 'inference.denoise') this.#monitor.speeds.note({ model, family, input, stats })
  }

  /**
   * Keeps a spare Python child where RAM allows; it goes again when half of what it needed to start is left. Its
   * imports take a core for some seconds, which the first picture on a CPU shall have.
   */
  #keepSpare(): void {
    const { child, config, operations, ready } = this.#parts
    const isWanted = this.#takes && allowsSpare(config, child, this.#monitor.report.ram.available ?? 0)
    const isDrawing = this.#runner.running.some(({ step }) => operations[step]?.lane === 'gpu')
    const waits = isDrawing && ready.hardware.kind === 'cpu' && (child.heartbeat?.uptimeS ?? 0) < spareWaitS
    if (child.spare || !isWanted || !waits) child.keepSpare(isWanted)
  }

  /** Not awaited: reading what waits holds up no sign of life. */
  #prefetch(): void {
    const { child, exactness, log, operations, port } = this.#parts
    if (this.#isPrefetching || !this.#runner.running.some(({ step }) => operations[step]?.lane === 'gpu')) return
    const parts = { port, cache: this.#monitor.cache, worker: this.id, exactnessKey: exactness.key, queues: this.#deviceQueues }
    this.#isPrefetching = true
    prefetch(parts, child.heartbeat?.models.map(({ id }) => id) ?? [])
      .catch((error: unknown) => log.debug({ err: error }, 'what waits was not looked at'))
      .finally(() => (this.#isPrefetching = false))
  }

  /** What a step reserves of the device. */
  #needOf({ input, models, priority, step }: Attempt): Need {
    // What is no network of its own, such as an adapter, is never resident.
    const ids = models.filter(({ kind }) => kind === undefined).map(({ id }) => id)
    const modelBytes = ids.reduce((sum, id) => sum + this.#monitor.bytesOf(id), 0)
    const shape = shapeOf(step, input)
    const bytes = shape ? this.#pictures.bytesOf(shape, (this.#monitor.capacity ?? 0) - modelBytes) : 0
    return { slots: 1, bytes, model: ids.toSorted().join(' + ') || null, modelBytes, priority }
  }

  /** Bytes of RAM that the step on the device has reserved for its models and that these have not taken yet. */
  #unloadedBytes(): number {
    const { child, ready } = this.#parts
    const isRunning = this.#runner.running.some(({ key }) => key === this.#reserving?.stepKey)
    if (!isRunning || ready.hardware.kind !== 'cpu') return 0
    const resident = new Set(child.heartbeat?.models.map(({ id }) => id))
    const missing = this.#reserving?.models.filter(({ id }) => !resident.has(id)) ?? []
    return missing.reduce((sum, { id }) => sum + this.#monitor.bytesOf(id), 0)
  }

  #reserve(owner: string, need: Need, waitMs: number, signal?: AbortSignal): Promise<Reservation> {
    const { config, device, redis } = this.#parts
    const capacity = () => ({ slots: config.deviceSlots, bytes: this.#monitor.capacity })
    return reserve(redis, { device, worker: this.id, owner, need, capacity, waitMs, ...(signal && { signal }) })
  }

  async #publish(): Promise<void> {
    const { device, failure, lease, log, redis } = this.#parts
    if (!(await lease.renew())) {
      failure.resolve(deviceError('taken', `another worker holds device ${device} since this one lost touch with Redis`))
      return
    }
    if (this.#hasCompleted) await forgiveLosses(redis, this.id)
    this.#hasCompleted = false
    if (this.#takes && (await countLosses(redis, this.id)) >= suspectLimit) {
      this.#status = 'suspect'
      log.error({ worker: this.id }, `this worker lost attempts of ${suspectLimit} sessions in a row and takes no more steps`)
      this.#runner.drain()
      void Promise.all(this.#lanes.map((lane) => lane.close()))
    }
    await publishWorker(redis, this.#record(), [
      ...this.#deviceQueues,
      queues.hostShelf(this.#parts.port.models.shelf),
      queues.control(device),
    ])
  }

  #record(): WorkerRecord {
    const { child, config, device, epoch, exactness, host, port, ready } = this.#parts
    const { kind, name, index, totalBytes, uuid: _uuid, ...hardware } = ready.hardware
    return {
      id: this.id,
      host,
      pid: process.pid,
      epoch,
      device: { id: device, kind, name, index, totalBytes },
      exactnessKey: exactness.key,
      hardware,
      build: ready.build,
      settings: ready.settings,
      status: this.#status,
      shelf: port.models.shelf,
      resident: child.heartbeat?.models.map((model) => model.id) ?? [],
      running: this.#runner.running,
      lanes: { gpu: config.deviceSlots, host: config.hostLane },
      childPid: child.pid,
      sparePid: child.spare?.isWaiting ? child.spare.pid : null,
      report: this.#monitor.report,
      pictures: this.#pictures.told,
      logLinesDropped: logFile.dropped,
      startedAt: this.#startedAt,
      seenAt: Date.now(),
    }
  }

  /** An operator lets no session begin on its device. */
  #isPaused(): Promise<boolean> {
    const { device, exactness, port } = this.#parts
    return port.isPaused(device, exactness.key)
  }

  get #takes(): boolean {
    return this.#status === 'ready' || this.#status === 'stalled'
  }

  /** Sets the status by whether the lanes take the jobs that wait for them. */
  async #watchLanes(): Promise<void> {
    const { log, operations } = this.#parts
    const stalled: Lane[] = []
    for (const { lane, size, watch } of this.#watches) {
      const running = this.#runner.running.filter(({ step }) => operations[step]?.lane === lane).length
      // What waits in the queues of a paused device's class is for the others of it.
      const mayTake = running < size && !(lane === 'gpu' && (await this.#isPaused()))
      if (await watch.isStalled(this.#runner.taken[lane], mayTake)) stalled.push(lane)
    }
    if (!this.#takes) return
    const status = stalled.length > 0 ? 'stalled' : 'ready'
    if (status === 'stalled' && this.#status === 'ready')
      log.error({ worker: this.id, lanes: stalled }, 'this worker takes no job although jobs wait for it')
    this.#status = status
  }
}
