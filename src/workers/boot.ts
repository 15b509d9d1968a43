/** Starts a worker: opens everything in order, and closes it in reverse order when the worker ends, or cannot start. */
import { randomUUID } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { ownFolder } from '../../host/own-folder.mjs'
import { checkStore } from '../artifacts/index-mark.ts'
import { FileArtifactStore } from '../artifacts/store.ts'
import { root, type Config } from '../config.ts'
import { deviceError } from '../domains/device/errors.ts'
import { operations as builtIn } from '../domains/index.ts'
import type { OperationTable } from '../domains/operation.ts'
import { openAttempts, type PortOptions } from '../engine/attempt.ts'
import { DarkroomError } from '../errors.ts'
import { leaseDevice, type DeviceLease } from '../farm/device-lease.ts'
import type { Logger } from '../log.ts'
import { configRoots } from '../models/configs.ts'
import { hostId, resolveRoots } from '../models/roots.ts'
import { deferred, within } from '../promises.ts'
import { connect, untilReady, type Redis } from '../redis.ts'
import { attemptRoots, openAttemptFolder } from './attempt-folder.ts'
import type { OpenOptions } from './device/native.ts'
import { openOwnDevice } from './device/open.ts'
import { exactnessOf } from './exactness.ts'
import { WorkerNode } from './node.ts'
import { standBy } from './standby.ts'
import { converter } from './python/convert.ts'
import { childEnvironment } from './python/environment.ts'
import type { Stall } from './python/stall.ts'
import type { Ready } from './python/protocol.ts'
import { PythonChild } from './python/supervisor.ts'

/** How long a worker that cannot reach Redis waits at its start, ms. */
const connectMs = 30_000
/** How long the Python child may take to end by itself, ms. */
const childGraceMs = 1000
/** How long a worker that is ready otherwise waits for the first look at its model folders, ms. */
const lookMs = 5000
/** How long a leaving worker waits for Redis, ms: without it, leases end by themselves. */
const farewellMs = 1000
/** Workers that one CPU can have. */
const maxCpuSlots = 64

export interface WorkerOptions extends Pick<PortOptions, 'workflows' | 'sweeps' | 'times' | 'at'> {
  config: Config
  log: Logger
  redisUrl: string
  /** The Python child's program and arguments. */
  command: string[]
  /** Folder for attempt files; default: shared memory, else the temporary folder. */
  attempts?: string
  operations?: OperationTable
  stall?: Partial<Stall>
  /** Where it stands by until its turn comes: resolves then; rejects when it will not come. */
  turn?: Promise<void> | undefined
  /** How its device's memory is opened. */
  native?: OpenOptions | undefined
}

/**
 * Starts a worker and resolves when its lanes take steps. One that stands by takes part in nothing before its turn.
 * @throws DarkroomError `device.taken`, `artifact.not_shared`, `worker.start_failed`, `redis.unavailable`
 */
export async function startWorker(options: WorkerOptions): Promise<WorkerNode> {
  const closers: (() => unknown)[] = []
  let closing: Promise<void> | undefined
  const closeAll = async (): Promise<void> => {
    for (const closer of closers.toReversed()) await closer()
  }
  const close = (): Promise<void> => (closing ??= closeAll())
  try {
    return await open(options, closers, close)
  } catch (error) {
    await close()
    throw error
  }
}

/** Where children keep what they compile; null where there is no such folder that is this user's alone. */
function compiledFolder({ home }: Pick<Config, 'home'>, log: Logger): string | null {
  try {
    mkdirSync(home, { recursive: true })
    return ownFolder(join(home, 'compiled'))
  } catch (error) {
    log.warn(`what is compiled for pictures of the class fast is not kept: ${(error as Error).message}`)
    return null
  }
}

async function open(options: WorkerOptions, closers: (() => unknown)[], close: () => Promise<void>): Promise<WorkerNode> {
  const { at, config, log, operations = builtIn, redisUrl, stall, sweeps, times, workflows } = options
  const farewell = (act: PromiseLike<void>): Promise<void> =>
    within(farewellMs, act, undefined).catch((error: unknown) => log.debug({ err: error }, 'Redis did not hear that this worker ends'))

  const redis = connect(redisUrl, { patience: 'wait', onError: (error) => log.debug({ err: error }, 'Redis connection') })
  closers.push(() => redis.disconnect())
  const subscriber = redis.duplicate()
  subscriber.on('error', (error: Error) => log.debug({ err: error }, 'Redis connection'))
  closers.push(() => subscriber.disconnect())
  await untilReady(redis, connectMs)
  const artifacts = new FileArtifactStore(join(config.data, 'artifacts'))
  await checkStore(redis, artifacts)

  const host = hostId()
  const epoch = randomUUID()
  const owner = `${host}-${epoch}`
  const folder = await openAttemptFolder(options.attempts === undefined ? attemptRoots() : [options.attempts], owner)
  if (folder.told !== undefined) log.warn(folder.told)
  closers.push(() => folder.close())
  const attempts = folder.path
  const home = join(attempts, 'home')
  await mkdir(home, { mode: 0o700 })

  const { roots } = await resolveRoots(config.models)
  const failure = deferred<DarkroomError>()
  const child = new PythonChild({
    command: options.command,
    env: childEnvironment(home, join(root, 'python')),
    hello: {
      workerId: owner,
      device: config.device,
      threads: config.threads,
      slots: config.deviceSlots,
      // Those that are not there yet too: they may come while the worker runs.
      roots: {
        models: [...new Set([...config.models, ...roots.map(({ real }) => real), ...configRoots(config)])],
        attempts,
        compiled: compiledFolder(config, log),
      },
      checkpoint: { intervalS: config.checkpointS, calls: config.checkpointCalls ?? null },
      previewS: config.previewS,
      modelBytes: config.modelMemory,
    },
    log,
    ...(stall && { stall }),
    isStandby: options.turn !== undefined,
    onEnded: failure.resolve,
  })
  closers.push(() => child.stop(childGraceMs))
  if (options.turn) await standBy(config, child, options.turn, log)

  // Its catalogue looks at the models, and hashes those that are asked for, beside the child's imports.
  const port = openAttempts({ config, log, redisUrl, operations, workflows, sweeps, artifacts, times, at })
  closers.push(() => farewell(port.close()))
  const ready = await child.ready()
  await port.models.looked(lookMs)

  const { device, lease } = await takeDevice(redis, host, ready, owner, log)
  closers.push(async () => {
    // The device is free only when the child does not use it any more; and what fails with the child is still told
    // through the port.
    await child.stop(childGraceMs)
    await farewell(lease[Symbol.asyncDispose]())
  })
  const own = await openOwnDevice(ready.hardware, options.native)
  closers.push(() => own.memory.close())

  const node = new WorkerNode({
    config,
    log,
    redis,
    subscriber,
    artifacts,
    attempts,
    child,
    convert: converter(options.command[0] ?? '', config.pickles === 'convert'),
    port,
    operations,
    ready,
    exactness: exactnessOf(ready.facts),
    host,
    epoch,
    device,
    lease,
    own,
    failure,
    close,
  })
  await node.open()
  return node
}

/**
 * A GPU has one slot, a CPU as many as there are workers on it: each takes the first that is free.
 * @throws DarkroomError `device.taken`
 */
async function takeDevice(
  redis: Redis,
  host: string,
  { hardware }: Ready,
  owner: string,
  log: Logger,
): Promise<{ device: string; lease: DeviceLease }> {
  const { kind, uuid, index } = hardware
  const name = `${host}-${kind}-${uuid?.replaceAll('-', '').toLowerCase().slice(0, 8) ?? index}`
  if (kind !== 'cpu') return { device: name, lease: await leaseDevice(redis, name, owner, true, log) }
  for (let slot = 0; slot < maxCpuSlots; slot++) {
    const device = `${name}-${slot}`
    const lease = await leaseDevice(redis, device, owner, false, log).catch((error: unknown) => {
      if (error instanceof DarkroomError && error.code === 'device.taken') return undefined
      throw error
    })
    if (lease) return { device, lease }
  }
  throw deviceError('taken', `all ${maxCpuSlots} slots of ${name} are taken`)
}
