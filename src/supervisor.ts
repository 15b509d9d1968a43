/**
 * `darkroom up`: a Redis (unless `REDIS_URL`), one API and N workers on one data folder.
 *
 * Redis is a process of its own and outlives a killed supervisor; the next one adopts it. API and workers are children:
 * they drain and exit when the channel to their parent closes, are started again when they end by themselves (`Backoff`
 * says after how long), and are stopped in reverse order. Beside a worker on a GPU another process stands by, whose
 * start is done but for the device; it takes the place of one that ends. One data folder has one supervisor: the lock
 * is a file in it, which holds in other containers as well; a listening socket tells this user's other commands where
 * the API is.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { closeSync } from 'node:fs'
import { join } from 'node:path'
import { devicesOf, listCards } from './cards.ts'
import { readConfig, type Config } from './config.ts'
import { Backoff } from './backoff.ts'
import { takeDataFolder, type Told } from './data-folder.ts'
import { DarkroomError, defineErrors, ensureError, type WireError } from './errors.ts'
import { keepSmall, openLog } from './log-files.ts'
import { deferred, within } from './promises.ts'
import { startRedis, type RedisServer } from './redis-server.ts'

const supervisorError = defineErrors('supervisor', {
  role_died: { class: 'transient', remedy: '`darkroom up` starts it again; read the end of its log, named above.' },
})

/** How long the start of a child may fail for reasons that pass, such as a port that the last run still holds. */
const startMs = 15_000

export interface SupervisorEvent {
  what: 'redis' | 'api' | `worker ${number}` | 'logs'
  /**
   * `failed`: it did not start; `ended`: it had been ready; `unsynced`: its file cannot be synced to the disk;
   * `unlogged`: it runs without its log.
   * `againMs`: when it is started again.
   */
  is: 'starting' | 'ready' | 'failed' | 'ended' | 'unsynced' | 'unlogged' | 'stopping' | 'stopped'
  pid?: number
  detail?: string
  againMs?: number
}

export interface SupervisorOptions {
  /** Environment of the configuration and of the children. */
  env?: NodeJS.ProcessEnv
  /** Program and first arguments of a child; `api` or `worker` follows. */
  program: string[]
  /** Workers to begin with; default: `DARKROOM_WORKERS`. */
  workers?: number
  on?: (event: SupervisorEvent) => void
  /** Aborted while it starts: everything stops, and the start rejects. */
  signal?: AbortSignal
}

/** A child process that is kept running. */
export interface Role {
  readonly name: string
  readonly pid: number | undefined
  /** The child's first ready message. Rejects with the reason when there will be none. */
  readonly ready: Promise<Record<string, unknown>>
  /** Kills it, as a crash would, and never starts it again; resolves when it is gone. */
  kill(): Promise<void>
  /** Asks it to drain, and waits. */
  stop(): Promise<void>
}

export interface Supervisor {
  readonly config: Config
  readonly url: string
  /** Undefined when the Redis is `REDIS_URL`'s. */
  readonly redis: { adopted: boolean; version: string; pid: number } | undefined
  readonly redisUrl: string
  readonly workers: readonly Role[]
  addWorker(env?: NodeJS.ProcessEnv): Role
  /** Workers first, then the API, then Redis. */
  stop(): Promise<void>
  /** Ends the children without letting them drain; Redis still stops in order. */
  hurry(): void
}

/**
 * Starts everything; resolves when the API answers. Workers may still be importing: `workers[i].ready` tells.
 * @throws DarkroomError `supervisor.taken`, `config.invalid`, `worker.start_failed`, `redis.*`, or the reason why the
 *   API
 * cannot start
 * @throws BadPlace when others could read or change what is kept
 */
export async function startSupervisor(options: SupervisorOptions): Promise<Supervisor> {
  const env = options.env ?? process.env
  const config = readConfig(env)
  const tell = options.on ?? (() => undefined)
  const count = options.workers ?? config.workers
  const devices = await devicesOf(config.device, count, () => listCards(config, env))
  const told: Told = {}
  const folder = await takeDataFolder(config.data, told)
  const logs = join(config.data, 'logs')
  const redis = config.redisUrl === undefined ? new KeptRedis(config, tell) : undefined
  const workers: KeptRole[] = []
  let api: KeptRole | undefined
  let stopping: Promise<void> | undefined
  const logKeeper = keepSmall(config.data, ({ message }) => tell({ what: 'logs', is: 'failed', detail: message }))
  const stop = (): Promise<void> =>
    (stopping ??= (async () => {
      await Promise.all(workers.map((worker) => worker.stop()))
      await api?.stop()
      await redis?.stop()
      await logKeeper.stop()
      await folder.release()
    })())

  try {
    const own = await redis?.start()
    if (own !== undefined) told.privateRedis = own
    const redisUrl = own ?? config.redisUrl ?? ''
    const childEnv: NodeJS.ProcessEnv = { ...env, REDIS_URL: redisUrl }
    const role = (name: 'api' | `worker ${number}`, more: NodeJS.ProcessEnv): KeptRole =>
      new KeptRole({
        name,
        command: [...options.program, name.split(' ')[0] ?? ''],
        env: { ...childEnv, ...more },
        logs,
        stopMs: config.drainS * 1000 + 10_000,
        hasStandby: name !== 'api' && standsBy(config),
        tell,
      })
    const addWorker = (more: NodeJS.ProcessEnv = {}): Role => {
      const device = devices[workers.length]
      const worker = role(`worker ${workers.length + 1}`, { ...(device !== undefined && { DARKROOM_DEVICE: device }), ...more })
      workers.push(worker)
      worker.start()
      return worker
    }

    options.signal?.throwIfAborted()
    const first = (api = role('api', {}))
    const giveUp = (): void => void first.stop()
    options.signal?.addEventListener('abort', giveUp)
    api.start()
    const { url } = (await api.ready) as { url: string }
    options.signal?.removeEventListener('abort', giveUp)
    told.url = url
    // A restarted API listens where the first one did.
    api.env['DARKROOM_PORT'] = new URL(url).port
    for (let i = 0; i < count; i++) addWorker()
    return {
      config,
      url,
      redis: redis?.server,
      redisUrl,
      workers,
      addWorker,
      stop,
      hurry: () => {
        for (const child of [...workers, ...(api ? [api] : [])]) child.signal('SIGKILL')
      },
    }
  } catch (error) {
    await stop()
    throw error
  }
}

const standsBy = ({ standby, device }: Config): boolean => standby === 'always' || (standby === 'auto' && device.startsWith('cuda'))

class KeptRedis {
  server: RedisServer | undefined
  readonly #config: Config
  readonly #tell: (event: SupervisorEvent) => void
  readonly #backoff = new Backoff()
  #isStopping = false

  constructor(config: Config, tell: (event: SupervisorEvent) => void) {
    this.#config = config
    this.#tell = tell
  }

  /** @throws DarkroomError `redis.*` */
  async start(): Promise<string> {
    const { data, durability, home, maxmemory } = this.#config
    this.#tell({ what: 'redis', is: 'starting' })
    const onUnsynced = ({ message }: Error): void =>
      this.#tell({ what: 'redis', is: 'unsynced', detail: `a crash of the machine may lose more than its last second: ${message}` })
    const server = await startRedis({ folder: join(data, 'redis'), durability, home, maxmemory, onUnsynced })
    this.server = server
    const readyAt = performance.now()
    this.#tell({
      what: 'redis',
      is: 'ready',
      pid: server.pid,
      detail: [server.version, ...(server.adopted ? ['adopted'] : []), ...(server.note === undefined ? [] : [server.note])].join(', '),
    })
    void server.exited.then(() => {
      if (!this.#isStopping) this.#restart('it ended', performance.now() - readyAt)
    })
    return server.url
  }

  #restart(detail: string, readyMs: number): void {
    const againMs = this.#backoff.again(readyMs, () => {
      this.start().catch((error: unknown) => this.#restart(ensureError(error, 'redis.start_failed').message, 0))
    })
    this.#tell({ what: 'redis', is: 'ended', detail, againMs })
  }

  async stop(): Promise<void> {
    this.#isStopping = true
    this.#backoff.cancel()
    if (!this.server) return
    this.#tell({ what: 'redis', is: 'stopping' })
    await this.server.stop()
    this.#tell({ what: 'redis', is: 'stopped' })
  }
}

interface RoleOptions {
  name: 'api' | `worker ${number}`
  command: string[]
  env: NodeJS.ProcessEnv
  logs: string
  stopMs: number
  hasStandby: boolean
  tell: (event: SupervisorEvent) => void
}

/** A child's message over its channel: that it is ready, or why it gives up. */
export type RoleMessage = { ready: Record<string, unknown> } | { failed: WireError }

/** How long after the end of one that stood by none is started. */
const standbyBackoffMs = 60_000

/** A child from its spawn on. `ended`: how it ended, in words. */
interface Life {
  child: ChildProcess
  ended: Promise<string>
}

class KeptRole implements Role {
  readonly name: RoleOptions['name']
  readonly ready: Promise<Record<string, unknown>>
  /** Environment of the next start. */
  readonly env: NodeJS.ProcessEnv
  readonly #options: RoleOptions
  readonly #backoff = new Backoff()
  readonly #ready = deferred<Record<string, unknown>>()
  readonly #bornAt = performance.now()
  #child: ChildProcess | undefined
  #gone: Promise<void> = Promise.resolve()
  #standby: Life | undefined
  #standbyTimer: NodeJS.Timeout | undefined
  #wasReady = false
  #isStopping = false

  constructor(options: RoleOptions) {
    this.name = options.name
    this.env = options.env
    this.#options = options
    this.ready = this.#ready.promise
  }

  get pid(): number | undefined {
    return this.#child?.pid
  }

  /** Starts it; one that stands by takes the place. */
  start(): void {
    const { tell } = this.#options
    const standby = this.#standby?.child.connected ? this.#standby : undefined
    this.#standby = undefined
    const { child, ended } = standby ?? this.#spawn()
    // One that ends just now is started again by its end.
    standby?.child.send({ turn: true }, () => undefined)
    this.#child = child
    tell({ what: this.name, is: 'starting', ...(child.pid !== undefined && { pid: child.pid }) })
    let readyAt: number | undefined
    let failure: DarkroomError | undefined
    child.on('message', (message: RoleMessage) => {
      if ('failed' in message) failure = DarkroomError.fromWire(message.failed)
      else {
        readyAt ??= performance.now()
        this.#wasReady = true
        this.#ready.resolve(message.ready)
        tell({
          what: this.name,
          is: 'ready',
          ...(child.pid !== undefined && { pid: child.pid }),
          detail: String(message.ready['url'] ?? message.ready['id']),
        })
        this.#standBy()
      }
    })
    this.#gone = ended.then((how) => this.#ended(failure ?? how, readyAt))
  }

  #spawn(...more: string[]): Life {
    const { command, logs, tell } = this.#options
    const [program = '', ...args] = command
    const logFile = join(logs, `${this.name.replace(' ', '-')}.log`)
    const log = openLog(logFile)
    const output = typeof log === 'number' ? log : 'ignore'
    // A process group of its own: Ctrl-C in the terminal reaches the supervisor alone, which stops the children in
    // order.
    const child = spawn(program, [...args, ...more], { env: this.env, stdio: ['ignore', output, output, 'ipc'], detached: true })
    if (typeof log === 'number') closeSync(log)
    else tell({ what: this.name, is: 'unlogged', detail: log.message })
    const exited = once(child, 'spawn').then(() => once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>)
    const ended = exited.then(
      ([code, signal]) => `${code === null ? `ended by ${signal}` : `exited with code ${code}`}; ${logFile}`,
      (error: Error) => `cannot be started: ${error.message}`,
    )
    return { child, ended }
  }

  /** Keeps one that stands by beside the one that is ready. One that ended by itself is not followed at once. */
  #standBy(): void {
    if (!this.#options.hasStandby || this.#standby || this.#isStopping) return
    const life = (this.#standby = this.#spawn('--standby'))
    void life.ended.then(() => {
      if (this.#standby !== life) return
      this.#standby = undefined
      this.#standbyTimer = setTimeout(() => this.#child && this.#standBy(), standbyBackoffMs).unref()
    })
  }

  #ended(why: DarkroomError | string, readyAt: number | undefined): void {
    const { tell } = this.#options
    this.#child = undefined
    if (this.#isStopping) {
      this.#ready.reject(supervisorError('role_died', `${this.name} was stopped`))
      tell({ what: this.name, is: 'stopped' })
      return
    }
    const error = typeof why === 'string' ? supervisorError('role_died', `${this.name} ${why}`) : why
    const isHopeless = !this.#wasReady && (error.class === 'permanent' || performance.now() - this.#bornAt > startMs)
    if (isHopeless) {
      this.#ready.reject(error)
      tell({ what: this.name, is: 'failed', detail: error.message })
      return
    }
    const againMs = this.#backoff.again(readyAt === undefined ? 0 : performance.now() - readyAt, () => this.start())
    tell({ what: this.name, is: readyAt === undefined ? 'failed' : 'ended', detail: error.message, againMs })
  }

  signal(signal: NodeJS.Signals): void {
    for (const child of [this.#child, this.#standby?.child]) child?.kill(signal)
  }

  async kill(): Promise<void> {
    this.#rest()
    this.signal('SIGKILL')
    await this.#over()
  }

  async stop(): Promise<void> {
    this.#rest()
    if (this.#child) this.#options.tell({ what: this.name, is: 'stopping' })
    this.signal('SIGTERM')
    const gone = this.#over().then(() => true)
    if (!(await within(this.#options.stopMs, gone, false))) this.signal('SIGKILL')
    await gone
  }

  /** Starts nothing from now on. */
  #rest(): void {
    this.#isStopping = true
    this.#backoff.cancel()
    clearTimeout(this.#standbyTimer)
  }

  async #over(): Promise<void> {
    await Promise.all([this.#gone, this.#standby?.ended])
  }
}
