/**
 * A whole farm for one test: a private Redis, API processes, worker processes with the fake Python child, each in a
 * process group of its own. Here they are started and stopped; a farm is a `User` as well, who submits and waits over
 * HTTP, and an `Inspector`, who looks into Redis.
 *
 *     await using farm = await startFarm({ workers: 2, fake: ['--call-ms', '20'] })
 *
 * Its end is part of the test: every session must have ended, and no process, lease, timer, open effect or outbox entry
 * may be left over.
 */
import { mkdir, mkdtemp, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { root } from '../../src/config.ts'
import { keys } from '../../src/keys.ts'
import { productTimes, type Times } from '../../src/engine/times.ts'
import { ApiClient } from './http.ts'
import type { ApiSetup } from './api.ts'
import { fakeChild, realChild } from './child.ts'
import { writeModel } from './model.ts'
import { ArmedPoints, type Kind } from './points.ts'
import { GroupProcess } from './process.ts'
import { moduleUrl } from './program-file.ts'
import { startProxy, type FaultProxy } from './proxy.ts'
import { defaultShards, startTestRedis, type TestRedis } from './redis.ts'
import { smallDisks, type SmallDisks } from './small-disk.ts'
import { quickTimes } from './times.ts'
import { withoutWatches } from './watches.ts'
import { User } from './user.ts'
import { eventually, patienceMs } from './wait.ts'
import type { WorkerSetup } from './worker.ts'

export interface WorkerOptions {
  /** Switches of the fake child. */
  fake?: string[]
  stall?: WorkerSetup['stall']
  /** File URL of a module with further workflows and operations; of a whole farm, for its APIs too. */
  module?: string | undefined
  preload?: string[]
  env?: Record<string, string>
  /** The product's own Python child and the models of the repository, in place of the fake ones. */
  real?: boolean
  /** Folder for attempt files, by its name below that of all of them; each worker has its own when left out. */
  attempts?: string
  /** Device memory in plain TypeScript, as where the native addon is not built. */
  plain?: boolean
}

export interface FarmOptions extends WorkerOptions {
  apis?: number
  /** How many, or one by one what sets each apart. */
  workers?: number | WorkerOptions[]
  shards?: number
  checkpointCalls?: number
  /** Further settings (`DARKROOM_…`) of every process. */
  settings?: Record<string, string>
  /**
   * How long its engines wait for what: a fraction of the product's, but those for `real` pictures, which take all of a
   * machine.
   */
  times?: Times
  /** No process of it can watch a folder, as where the user watches too many already. */
  unwatched?: boolean
  /** Durability and memory of its Redis. */
  redis?: Parameters<typeof startTestRedis>[0]
  /** Every process reaches Redis through a proxy that can break the line. */
  proxied?: boolean
  /** Data and attempt files of its processes lie on disks of so many bytes, which a test can fill. */
  disks?: { data: number; attempts: number }
  /** A file that its processes write their logs to, all of them. */
  ownLog?: string
  /** Processes of this kind die at crash points that the test arms, and they alone sweep; needs a `module`. */
  dying?: Kind
}

/** A disk of a farm, by paths below it. */
export interface Disk {
  seen(path: string): string
  fill(): Promise<void>
  free(): Promise<void>
}

/** Steps with checkpoints. */
const resuming = new Set(['inference.denoise', 'postprocessing.upscale'])

export interface ChildVitals {
  sessions: Record<string, number>
  busy: { action: string } | null
}

export async function startFarm(options: FarmOptions = {}): Promise<Farm> {
  const folder = await mkdtemp(join(tmpdir(), 'darkroom-farm-'))
  if (!options.real) await writeModel(join(folder, 'models'))
  const [data, attempts] = [join(folder, 'data'), join(folder, 'attempts')]
  if (options.disks) await Promise.all([mkdir(data), mkdir(attempts)])
  const disks = options.disks && (await smallDisks({ [data]: options.disks.data, [attempts]: options.disks.attempts }))
  const redis = await startTestRedis(options.redis)
  const farm = new Farm({ folder, redis, options, disks, proxy: options.proxied ? await startProxy(redis.url) : undefined })
  try {
    await farm.open()
    return farm
  } catch (error) {
    await farm.end()
    throw error
  }
}

interface FarmParts {
  folder: string
  redis: TestRedis
  options: FarmOptions
  disks: SmallDisks | undefined
  proxy: FaultProxy | undefined
}

export class Farm extends User implements AsyncDisposable {
  readonly folder: string
  readonly redis: TestRedis
  /** Those of its engines. */
  readonly times: Times
  readonly apis: GroupProcess[] = []
  readonly workers: GroupProcess[] = []
  readonly points: ArmedPoints
  readonly #options: FarmOptions
  readonly #env: Record<string, string | undefined>
  readonly #clients = new Map<GroupProcess, ApiClient>()
  readonly #proxy: FaultProxy | undefined
  readonly #disks: SmallDisks | undefined

  constructor({ folder, redis, options, disks, proxy }: FarmParts) {
    const artifacts = join(folder, 'data', 'artifacts')
    super({ redisUrl: redis.url, shards: options.shards ?? defaultShards, artifacts: disks?.seen(artifacts) ?? artifacts })
    this.folder = folder
    this.#proxy = proxy
    this.#disks = disks
    this.redis = redis
    this.times = options.times ?? (options.real ? productTimes : quickTimes)
    this.#options = options
    this.points = new ArmedPoints(join(folder, 'points'))
    this.#env = {
      PATH: process.env['PATH'],
      HOME: process.env['HOME'],
      TMPDIR: process.env['TMPDIR'],
      DARKROOM_DATA: join(folder, 'data'),
      DARKROOM_MODELS: join(options.real ? root : folder, 'models'),
      DARKROOM_THREADS: '1',
      DARKROOM_SHARDS: String(this.shards),
      DARKROOM_CHECKPOINT_CALLS: String(options.checkpointCalls ?? 1),
      DARKROOM_DRAIN_S: '10',
      // A spare costs a test's start as much as a worker does.
      DARKROOM_SPARE_MB: '0',
      DARKROOM_LOG: 'info',
      REDIS_URL: proxy?.url ?? redis.url,
      ...options.settings,
    }
  }

  /** The line between the processes and Redis, of a farm that is `proxied`. */
  get proxy(): FaultProxy {
    if (!this.#proxy) throw new Error('this farm reaches its Redis directly')
    return this.#proxy
  }

  /** Those under its data and its attempt files, of a farm that has them. */
  get disks(): { data: Disk; attempts: Disk } {
    const disks = this.#disks
    if (!disks) throw new Error('this farm has no disks of its own')
    const disk = (folder: string): Disk => ({
      seen: (path) => disks.seen(join(folder, path)),
      fill: () => disks.fill(folder),
      free: () => disks.free(folder),
    })
    return { data: disk(join(this.folder, 'data')), attempts: disk(join(this.folder, 'attempts')) }
  }

  /** The first API's. */
  get client(): ApiClient {
    return this.clientOf(this.#first())
  }

  clientOf(api: GroupProcess): ApiClient {
    const client = this.#clients.get(api)
    if (!client) throw new Error(`${api.name} is not an API of this farm`)
    return client
  }

  /** A path of its processes as the test sees it. */
  seen(path: string): string {
    return this.#disks?.seen(path) ?? path
  }

  #first(): GroupProcess {
    const [api] = this.apis
    if (!api) throw new Error('this farm has no API')
    return api
  }

  async open(): Promise<void> {
    const { apis = 1, workers = 1 } = this.#options
    // One after another: the first writes the store's id, which the others compare.
    for (let i = 0; i < apis; i++) await this.addApi()
    const each = typeof workers === 'number' ? Array.from({ length: workers }, (): WorkerOptions => ({})) : workers
    await Promise.all(each.map((worker) => this.addWorker(worker)))
  }

  /** Program and arguments that run what follows them. */
  get #inside(): readonly string[] {
    return this.#options.unwatched ? withoutWatches : (this.#disks?.inside ?? [])
  }

  #dying(kind: Kind): { points?: string; sweeps?: boolean } {
    const { dying } = this.#options
    if (dying === undefined) return {}
    return dying === kind ? { points: this.points.folder, sweeps: true } : { sweeps: false }
  }

  async addApi(): Promise<GroupProcess> {
    const name = `api-${this.apis.length}`
    const env = { ...this.#env, DARKROOM_PORT: String(await freePort()) }
    const { module, preload = [] } = this.#options
    const setup: ApiSetup = { times: this.times, ...(module !== undefined && { module: moduleUrl(module) }), ...this.#dying('api') }
    const args = [JSON.stringify(setup)]
    const log = join(this.folder, `${name}.log`)
    const inside = this.#inside
    const api = new GroupProcess({
      name,
      entry: 'test/support/api.ts',
      args,
      env,
      preload,
      inside,
      log,
      ownLog: this.#options.ownLog,
    })
    this.apis.push(api)
    await api.start()
    this.#clients.set(api, new ApiClient(api.ready))
    return api
  }

  async addWorker(options: WorkerOptions = {}): Promise<GroupProcess> {
    const name = `worker-${this.workers.length}`
    const {
      fake = [],
      stall = {},
      module,
      preload = [],
      env = {},
      real = false,
      plain = false,
      attempts: below = name,
    } = { ...this.#options, ...options }
    const attempts = join(this.folder, 'attempts', below)
    const command = real ? realChild() : fakeChild('--gates', join(this.folder, 'gates'), ...fake)
    const { times } = this
    const setup: WorkerSetup = {
      command,
      attempts,
      stall,
      plain,
      times,
      ...(module !== undefined && { module: moduleUrl(module) }),
      ...this.#dying('worker'),
    }
    const worker = new GroupProcess({
      name,
      entry: 'test/support/worker.ts',
      args: [JSON.stringify(setup)],
      env: { ...this.#env, ...env },
      preload,
      inside: this.#inside,
      ownLog: this.#options.ownLog,
      log: join(this.folder, `${name}.log`),
    })
    this.workers.push(worker)
    await mkdir(this.seen(attempts), { recursive: true, mode: 0o700 })
    await worker.start()
    return worker
  }

  /**
   * Holds denoise steps of this seed once they have done so many calls; the returned function lets them go on. With it
   * a test meets a step in its middle however busy the machine is.
   */
  async gate(seed: number, call: number): Promise<() => Promise<void>> {
    const file = join(this.folder, 'gates', String(seed))
    await mkdir(join(this.folder, 'gates'), { recursive: true })
    await writeFile(`${file}.part`, String(call))
    await rename(`${file}.part`, file)
    return () => rm(file, { force: true })
  }

  // ---- which process does what ----

  /** Waits until the denoise step that runs has recorded a checkpoint at this call or a later one. */
  async untilCall(
    id: string,
    call: number,
    ms = patienceMs,
  ): Promise<{ call: number; sha256: string; worker: GroupProcess; stepKey: string }> {
    return eventually(
      `${id} at call ${call}`,
      async () => {
        const started = (await this.history(id)).findLast(({ type, step = '' }) => type === 'step.started' && resuming.has(step))
        if (!started?.key) return undefined
        const [checkpoint] = await this.eye.hmget(keys.step(started.key), 'checkpoint')
        if (!checkpoint) return undefined
        const made = JSON.parse(checkpoint) as { call: number; sha256: string }
        return made.call >= call && { ...made, worker: this.worker(started.worker), stepKey: started.key }
      },
      ms,
    )
  }

  /** The process behind a worker's id. */
  worker(id: string | undefined): GroupProcess {
    const found = this.workers.find((worker) => worker.ready === id)
    if (!found) throw new Error(`no worker of this farm is ${id}`)
    return found
  }

  /** The other one of two. */
  other(worker: GroupProcess): GroupProcess {
    const [other] = this.workers.filter((each) => each !== worker && each.isAlive)
    if (!other) throw new Error(`there is no living worker but ${worker.name}`)
    return other
  }

  workersAlive(): GroupProcess[] {
    return this.workers.filter((worker) => worker.isAlive)
  }

  /** Asks a worker's child itself what it holds. */
  async vitals(worker: GroupProcess): Promise<ChildVitals> {
    return (await worker.answer('SIGUSR2'))['vitals'] as ChildVitals
  }

  lastWords(): string {
    return [...this.apis, ...this.workers].map((each) => `── ${each.name}\n${each.lastWords()}`).join('\n')
  }

  // ---- the end ----

  /** Stops everything this farm started; says what was not as it should be. */
  async end(): Promise<string[]> {
    const problems: string[] = []
    const attempt = async (act: () => Promise<void>): Promise<void> => act().catch((error: Error) => void problems.push(error.message))
    const alive = this.workersAlive()
    await Promise.all(this.workers.map((worker) => attempt(() => worker.stop(12_000))))
    for (const { name } of alive)
      await attempt(async () => {
        const files = await readdir(this.seen(join(this.folder, 'attempts', name))).catch(() => [])
        if (files.length > 0) problems.push(`${name} left attempt folders: ${files.join(', ')}`)
      })
    await Promise.all(this.apis.map((api) => attempt(() => api.stop(8000))))
    await attempt(
      async () => void problems.push(...(await this.leftovers()), ...(await this.reservationsOf(alive.map(({ ready }) => ready)))),
    )
    this.eye.disconnect()
    await attempt(async () => this.#proxy?.close())
    await attempt(() => this.redis.stop())
    await attempt(async () => this.#disks?.[Symbol.asyncDispose]())
    await attempt(() => rm(this.folder, { recursive: true, force: true }))
    return problems
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const words = this.lastWords()
    const problems = await this.end()
    if (problems.length > 0) throw new Error(`left over at the end of the farm:\n${problems.slice(0, 30).join('\n')}\n${words}`)
  }
}

/** Below the range that outgoing connections take their ports from, so that a killed API finds its port free again. */
async function freePort(): Promise<number> {
  for (;;) {
    const port = 18_000 + Math.floor(Math.random() * 12_000)
    const server = createServer()
    const isFree = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false))
      server.listen(port, '127.0.0.1', () => resolve(true))
    })
    await new Promise((resolve) => server.close(resolve))
    if (isFree) return port
  }
}
