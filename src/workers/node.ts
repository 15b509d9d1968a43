/**
 * A worker node: one process, one device, one Python child.
 *
 * | status | entered | left |
 * | --- | --- | --- |
 * | `starting` | device leased, child imports | handshake → `ready` |
 * | `ready` | lanes take steps | SIGTERM, or no child or device any more → `draining`; three lost sessions in a row → `suspect` |
 * | `stalled` | a lane has room and takes nothing although jobs wait for it | it takes something, or nothing waits → `ready` |
 * | `suspect` | it lost attempts of three different sessions without completing a step | the operator restarts it |
 * | `draining` | what runs is checkpointed and given back | the process exits |
 */
import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, readdir, rm } from 'node:fs/promises'
import { hostname, tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { checkStore, FileArtifactStore, type ArtifactStore } from '../artifacts/store.ts'
import { root, type Config } from '../config.ts'
import { operations as builtIn } from '../domains/index.ts'
import type { Lane, OperationTable } from '../domains/operation.ts'
import type { Exactness } from '../domains/values.ts'
import { DarkroomError } from '../errors.ts'
import { keys, queues } from '../keys.ts'
import { leaseDevice, type DeviceLease } from '../farm/device-lease.ts'
import { countLosses, forgiveLosses, publishAnalytics, publishWorker, withdrawWorker } from '../farm/presence.ts'
import { reserve, type Capacity, type Need, type Reservation } from '../farm/reservations.ts'
import type { Logger } from '../log.ts'
import { discoverModels } from '../models/scan.ts'
import { connect, untilReady, type Redis } from '../redis.ts'
import { openAttempts, type AttemptPort, type PortOptions } from '../engine/attempt.ts'
import type { WorkerRecord } from '../farm/record.ts'
import { DeviceMonitor } from './device/monitor.ts'
import type { OpenOptions } from './device/native.ts'
import { openOwnDevice, type OwnDevice } from './device/open.ts'
import type { Heartbeat, Ready } from './python/protocol.ts'
import { childEnvironment } from './python/environment.ts'
import type { Stall } from './python/process.ts'
import { PythonChild } from './python/supervisor.ts'
import { exactnessOf } from './exactness.ts'
import { LaneWatch } from './lane-watch.ts'
import { DeviceLane, openLane, StepRunner, type LaneHandle } from './runner.ts'
import { deviceError } from '../domains/device/errors.ts'

const publishMs = 1000
/** How long a leaving worker waits for Redis to hear that it leaves. */
const farewellMs = 1000
/** Sessions whose attempts a worker may lose in a row before it stops taking work. */
const suspectLimit = 3
/** Commands that a worker carries out at a time. */
const controlAtOnce = 8
/** How long a step waits for its place on the device, longer than a dead worker's reservation lasts; and an allocation, for which somebody waits. */
const stepWaitMs = 10_000
const commandWaitMs = 2000

export interface NodeOptions {
  config: Config
  log: Logger
  redisUrl: string
  /** The Python child's program and arguments. */
  command: string[]
  /** Folder for attempt files; default: shared memory, else the temporary folder. */
  attempts?: string
  operations?: OperationTable
  workflows?: PortOptions['workflows']
  sweeps?: PortOptions['sweeps']
  times?: PortOptions['times']
  at?: PortOptions['at']
  stall?: Partial<Stall>
  /** How its device's memory is opened. */
  native?: OpenOptions | undefined
}

export interface WorkerNode {
  id: string
  /** Asks the Python child what it holds now. */
  vitals(): Promise<Heartbeat>
  /** Gives back what runs, from its checkpoint, and stops; resolves within `drainS`, whether Redis answers or not. */
  drain(): Promise<void>
  /** Resolves when the node has drained by itself: its Python child cannot be started any more, or another worker holds its device. */
  readonly ended: Promise<DarkroomError>
}

/**
 * Starts a worker and resolves when its lanes take steps.
 * @throws DarkroomError `device.taken`, `artifact.not_shared`, `worker.start_failed`, `redis.unavailable`
 */
export async function startWorker(options: NodeOptions): Promise<WorkerNode> {
  const { config, log } = options
  const redis = connect(options.redisUrl, { patience: 'wait', onError: (error) => log.debug({ err: error }, 'Redis connection') })
  await untilReady(redis, 30_000)
  const artifacts = new FileArtifactStore(join(config.data, 'artifacts'))
  await checkStore(redis, artifacts)

  const host = createHash('sha256').update(hostname()).digest('hex').slice(0, 8)
  const epoch = randomUUID()
  const owner = `${host}-${epoch}`
  const attempts = await openAttemptFolder(options.attempts ?? attemptRoot(), host, epoch)
  const home = join(attempts, 'home')
  await mkdir(home, { mode: 0o700 })

  let fail: (reason: DarkroomError) => void = () => undefined
  const failed = new Promise<DarkroomError>((resolve) => (fail = resolve))
  const child = new PythonChild({
    command: options.command,
    env: childEnvironment(home, join(root, 'python')),
    hello: {
      workerId: owner,
      device: config.device,
      threads: config.threads,
      roots: { models: config.models, attempts },
      checkpoint: { intervalS: config.checkpointS, calls: config.checkpointCalls ?? null },
    },
    log,
    ...(options.stall && { stall: options.stall }),
    onEnded: (reason) => fail(reason),
  })
  let port: AttemptPort | undefined
  let held: { device: string; lease: DeviceLease } | undefined
  let own: OwnDevice | undefined
  const undo = async (): Promise<void> => {
    await child.stop(1000)
    await own?.memory.close()
    // A Redis that is away is not waited for: leases and records end by themselves.
    await within(farewellMs, held?.lease[Symbol.asyncDispose]())
    await within(farewellMs, port?.close())
    await rm(attempts, { recursive: true, force: true })
    redis.disconnect()
  }
  try {
    const ready = await child.ready()
    held = await takeDevice(redis, host, ready, owner)
    own = await openOwnDevice(ready.hardware, options.native)
    const models = await discoverModels(config.models)
    const exactness = exactnessOf(ready.facts)
    const operations = options.operations ?? builtIn
    const { redisUrl, workflows, sweeps, times, at } = options
    port = openAttempts({ config, log, redisUrl, operations, workflows, sweeps, artifacts, times, at })
    return await new Node({
      config,
      log,
      redis,
      artifacts,
      attempts,
      child,
      port,
      operations,
      ready,
      exactness,
      models,
      host,
      epoch,
      held,
      own,
      fail,
      failed,
    }).open(undo)
  } catch (error) {
    await undo()
    throw error
  }
}

interface Parts {
  config: Config
  log: Logger
  redis: Redis
  artifacts: ArtifactStore
  attempts: string
  child: PythonChild
  port: AttemptPort
  operations: OperationTable
  ready: Ready
  exactness: Exactness
  models: Awaited<ReturnType<typeof discoverModels>>
  host: string
  epoch: string
  held: { device: string; lease: DeviceLease }
  own: OwnDevice
  fail(reason: DarkroomError): void
  failed: Promise<DarkroomError>
}

class Node {
  readonly #parts: Parts
  readonly #id: string
  readonly #runner: StepRunner
  readonly #monitor: DeviceMonitor
  readonly #startedAt = Date.now()
  #status: WorkerRecord['status'] = 'starting'
  #lanes: LaneHandle[] = []
  #hasCompleted = true
  /** Jobs that each lane has taken so far. */
  readonly #taken = { gpu: 0, host: 0, control: 0 }
  readonly #watches: { lane: Lane; size: number; watch: LaneWatch }[]
  #publishing: NodeJS.Timeout | undefined

  constructor(parts: Parts) {
    this.#parts = parts
    const { artifacts, attempts, child, config, epoch, exactness, held, log, models, operations, own, port, ready, redis } = parts
    this.#id = `${held.device}-${randomBytes(2).toString('hex')}`
    this.#monitor = new DeviceMonitor(own, {
      target: { device: held.device, worker: this.#id, epoch },
      ready,
      child,
      families: [...new Set(models.map((model) => model.family))],
      sessions: port.owners,
      log,
      isBusy: () => this.#runner.running.some(({ step }) => operations[step]?.lane === 'gpu'),
      publish: () => this.#publish(),
      fail: (reason) => parts.fail(reason),
      reserve: (bytes) => this.#reserve(randomUUID(), { slots: 0, bytes, model: null, modelBytes: 0, priority: 5 }, commandWaitMs),
      publishAnalytics: (analytics) => publishAnalytics(parts.redis, held.device, analytics),
    })
    this.#runner = new StepRunner({
      port,
      operations,
      log,
      taker: (lane) => {
        this.#taken[lane]++
        return { worker: this.#id, device: held.device, exactnessKey: lane === 'gpu' ? exactness.key : '' }
      },
      tools: (attempt) => ({
        attempt,
        port,
        artifacts,
        child,
        exactness,
        device: this.#monitor.tools,
        log,
        models: () => Promise.resolve(parts.models),
        folder: join(attempts, `${attempt.stepKey}.${attempt.epoch}`),
      }),
      reserve: (attempt, signal) => {
        const ids = attempt.models.map(({ id }) => id)
        const modelBytes = ids.reduce((sum, id) => sum + this.#monitor.bytesOf(id), 0)
        const need = { slots: 1, bytes: 0, model: ids.toSorted().join(' + ') || null, modelBytes, priority: attempt.priority }
        return this.#reserve(attempt.id, need, stepWaitMs, signal)
      },
      inARow: parts.config.stepsInARow,
      onCompleted: () => (this.#hasCompleted = true),
    })
    this.#watches = [
      { lane: 'gpu', size: 1, watch: new LaneWatch(redis, [queues.gpuDevice(held.device), queues.gpuClass(exactness.key)]) },
      { lane: 'host', size: config.hostLane, watch: new LaneWatch(redis, [queues.host]) },
    ]
  }

  async open(undo: () => Promise<void>): Promise<WorkerNode> {
    const { config, exactness, held, log, redis } = this.#parts
    const subscriber = redis.duplicate()
    subscriber.on('error', (error: Error) => log.debug({ err: error }, 'Redis connection'))
    subscriber.on('message', (_channel: string, sessionId: string) => {
      this.#runner.ask(sessionId)
      this.#monitor
        .releaseIfEnded(sessionId)
        .catch((error: unknown) => log.debug({ err: error }, 'an end was not heard; it is asked about again'))
    })
    await subscriber.subscribe(keys.control())
    await this.#monitor.open()
    this.#status = 'ready'
    await this.#publish()
    const lane = { redis, runner: this.#runner, log }
    this.#lanes = [
      new DeviceLane({
        ...lane,
        queues: [queues.gpuDevice(held.device), queues.gpuClass(exactness.key)],
        isOpen: () => this.#parts.child.isReady,
      }),
      openLane('host', queues.host, config.hostLane, lane),
      openLane('control', queues.control(held.device), controlAtOnce, lane),
    ]
    const publish = (): void => {
      this.#look()
        .then(() => this.#publish())
        .catch((error: unknown) => log.warn({ err: error }, 'the worker could not publish itself'))
        .finally(() => {
          if (this.#status !== 'draining') this.#publishing = setTimeout(publish, publishMs)
        })
    }
    this.#publishing = setTimeout(publish, publishMs)
    log.info({ worker: this.#id, device: held.device, exactness: exactness.key }, 'the worker takes steps')
    let draining: Promise<void> | undefined
    const close = async (): Promise<void> => {
      try {
        await this.#drain()
      } finally {
        subscriber.disconnect()
        await undo()
      }
    }
    const drain = (): Promise<void> => (draining ??= close())
    const ended = this.#parts.failed.then(async (reason) => {
      log.fatal({ worker: this.#id, code: reason.code }, `this worker ends: ${reason.message}`)
      await drain()
      return reason
    })
    return { id: this.#id, vitals: () => this.#parts.child.ping(), drain, ended }
  }

  /** Queues that wait for this worker, or one of its class. */
  get #served(): string[] {
    const { held, exactness } = this.#parts
    return [queues.gpuDevice(held.device), queues.gpuClass(exactness.key), queues.control(held.device)]
  }

  #reserve(owner: string, need: Need, waitMs: number, signal?: AbortSignal): Promise<Reservation> {
    const capacity = (): Capacity => ({ slots: 1, bytes: this.#monitor.capacity })
    const { held, redis } = this.#parts
    return reserve(redis, { device: held.device, worker: this.#id, owner, need, capacity, waitMs, ...(signal && { signal }) })
  }

  async #publish(): Promise<void> {
    const { child, config, epoch, exactness, held, host, log, models, ready, redis } = this.#parts
    if (!(await held.lease.renew())) {
      this.#parts.fail(deviceError('taken', `another worker holds device ${held.device} since this one lost touch with Redis`))
      return
    }
    if (this.#hasCompleted) await forgiveLosses(redis, this.#id)
    this.#hasCompleted = false
    if (this.#takes && (await countLosses(redis, this.#id)) >= suspectLimit) {
      this.#status = 'suspect'
      log.error({ worker: this.#id }, 'this worker lost attempts of three sessions in a row and takes no more steps')
      this.#runner.drain()
      void Promise.all(this.#lanes.map((lane) => lane.close()))
    }
    const { kind, name, index, totalBytes, uuid: _uuid, ...hardware } = ready.hardware
    const record: WorkerRecord = {
      id: this.#id,
      host,
      pid: process.pid,
      epoch,
      device: { id: held.device, kind, name, index, totalBytes },
      exactnessKey: exactness.key,
      hardware,
      build: ready.build,
      settings: ready.settings,
      status: this.#status,
      models: models.map((model) => model.bodyHash),
      resident: child.heartbeat?.models.map((model) => model.id) ?? [],
      running: this.#runner.running,
      lanes: { gpu: 1, host: config.hostLane },
      childPid: child.pid,
      report: this.#monitor.report,
      startedAt: this.#startedAt,
      seenAt: Date.now(),
    }
    await publishWorker(redis, record, this.#served)
  }

  get #takes(): boolean {
    return this.#status === 'ready' || this.#status === 'stalled'
  }

  /** Whether its lanes take what waits for them. */
  async #look(): Promise<void> {
    const { log, operations } = this.#parts
    const stalled: Lane[] = []
    for (const { lane, size, watch } of this.#watches) {
      const running = this.#runner.running.filter(({ step }) => operations[step]?.lane === lane).length
      if (await watch.isStalled(this.#taken[lane], running < size)) stalled.push(lane)
    }
    if (!this.#takes) return
    const status = stalled.length > 0 ? 'stalled' : 'ready'
    if (status === 'stalled' && this.#status === 'ready')
      log.error({ worker: this.#id, lanes: stalled }, 'this worker takes nothing although jobs wait for it')
    this.#status = status
  }

  async #drain(): Promise<void> {
    const { config, redis } = this.#parts
    this.#status = 'draining'
    clearTimeout(this.#publishing)
    this.#runner.drain()
    const leave = async (): Promise<void> => {
      await Promise.all([this.#publish(), ...this.#lanes.map((lane) => lane.close())])
      await withdrawWorker(redis, this.#id)
    }
    await within(config.drainS * 1000, leave())
    await this.#monitor.close()
  }
}

/** Waits for it, but no longer than that; what goes wrong is not ours to mend any more. */
async function within(ms: number, act: PromiseLike<unknown> | undefined): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  await Promise.race([act?.then(undefined, () => undefined), new Promise((resolve) => (timer = setTimeout(resolve, ms)))])
  clearTimeout(timer)
}

/** Shared memory where there is some: attempt files live for seconds. */
const attemptRoot = (): string => join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), `darkroom-attempts-${userInfo().uid}`)

/** Makes this worker's own folder, and removes those whose worker on this host is gone: a killed one could not do it itself. */
async function openAttemptFolder(folder: string, host: string, epoch: string): Promise<string> {
  await mkdir(folder, { recursive: true, mode: 0o700 })
  for (const name of await readdir(folder)) {
    const [owner, pid] = name.split('-')
    if (owner === host && !isAlive(Number(pid))) await rm(join(folder, name), { recursive: true, force: true })
  }
  const own = join(folder, `${host}-${process.pid}-${epoch}`)
  await mkdir(own, { mode: 0o700 })
  return own
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

/** A device has one slot, a CPU as many as there are workers on it: each takes the first that is free. */
async function takeDevice(redis: Redis, host: string, { hardware }: Ready, owner: string): Promise<{ device: string; lease: DeviceLease }> {
  const { kind, uuid, index } = hardware
  const name = `${host}-${kind}-${uuid?.replaceAll('-', '').toLowerCase().slice(0, 8) ?? index}`
  if (kind !== 'cpu') return { device: name, lease: await leaseDevice(redis, name, owner, true) }
  for (let slot = 0; slot < 64; slot++) {
    const device = `${name}-${slot}`
    const lease = await leaseDevice(redis, device, owner, false).catch((error: unknown) => {
      if (error instanceof DarkroomError && error.code === 'device.taken') return undefined
      throw error
    })
    if (lease) return { device, lease }
  }
  throw deviceError('taken', `all 64 slots of ${name} are taken`)
}
