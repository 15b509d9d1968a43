/**
 * The private Redis of a data folder: a `redis-server` on a Unix socket with an append-only file. It outlives the
 * process that started it, so a killed supervisor loses nothing and the next one adopts it; only `stop()` ends it.
 *
 * It inherits the locked file `redis.lock` in its folder, so the lock lives exactly as long as the process that writes
 * there. No second Redis writes beside it, of whatever user, in whatever container.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, statSync } from 'node:fs'
import { mkdir, readFile, realpath, rmdir } from 'node:fs/promises'
import { connect as connectSocket } from 'node:net'
import { dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { socketFolder } from '../host/lock.mjs'
import { findRedis, howToInstall, redisVersion } from '../host/places.mjs'
import { ask as run } from '../host/programs.mjs'
import { isAlive } from '../host/processes.mjs'
import { AppendOnlyFile } from './append-only-file.ts'
import { root } from './config.ts'
import { defineErrors } from './errors.ts'
import { holdFile, type HeldFile } from './held-file.ts'
import { within } from './promises.ts'
import { checkReadable, cutIn, faultIn, repairAppendOnlyFile, type Repair } from './redis-data.ts'
import { connect, untilReady } from './redis.ts'

const serverError = defineErrors('redis', {
  not_found: { class: 'permanent', remedy: `Run \`npm start\` once, which installs one, or ${howToInstall()}.` },
  start_failed: { class: 'permanent', remedy: 'Read the end of its log, named above.' },
  taken: {
    class: 'permanent',
    remedy: 'Stop the one that runs there, or give this one a data folder of its own (DARKROOM_DATA).',
  },
})

/** How long a Redis may read its append-only file before it answers. */
const loadMs = 120_000
const stopMs = 15_000
/** How long another Redis may hold the folder before this one gives up: one that was killed may have a child left. */
const lockMs = 5_000
/** A Redis that holds the folder for so long and does not listen, ms, has lost its socket. */
const unreachableMs = 2_000

export interface RedisOptions {
  /** Folder of its files; one Redis each. */
  folder: string
  durability: 'standard' | 'strict'
  /** `512mb`, `4gb`; '0' is no limit. */
  maxmemory?: string
  /** Where set-up keeps a fetched Redis; needed without `command`. */
  home?: string
  /** The program; default: the one that set-up finds. */
  command?: string
  /** Called when its append-only file cannot be synced to the disk. */
  onUnsynced?: (error: Error) => void
}

export interface RedisServer {
  /** `unix:/path` */
  readonly url: string
  readonly pid: number
  readonly version: string
  /** It was running already. */
  readonly adopted: boolean
  /** What its user should know of its start: that it has cut a torn command off its file. */
  readonly note?: string
  /** Resolves when the process is gone. */
  readonly exited: Promise<void>
  /** Ends it in order and waits: everything that it answered is in its file. */
  stop(): Promise<void>
}

/**
 * Starts the Redis of a folder, or adopts the one that runs there.
 * @throws DarkroomError `redis.not_found`, `redis.start_failed`, `redis.taken`, `redis.unreadable`, `redis.damaged`
 */
export async function startRedis(options: RedisOptions): Promise<RedisServer> {
  await mkdir(options.folder, { recursive: true, mode: 0o700 })
  const folder = await realpath(options.folder)
  const socket = join(socketFolder(folder), 'redis.sock')
  const server = await adoptOrLaunch(folder, socket, options)
  if (options.durability === 'standard') {
    const file = new AppendOnlyFile(folder, (error) => options.onUnsynced?.(error))
    void server.exited.then(() => file.stop())
  }
  return server
}

/**
 * Cuts the damaged end off the append-only file of a folder; undefined when it is whole.
 * @throws DarkroomError `redis.not_found`, `redis.taken` while a Redis runs there, `redis.damaged` when it cannot be
 * repaired
 */
export async function repairRedis({
  folder,
  home,
  command,
}: Pick<RedisOptions, 'folder' | 'home' | 'command'>): Promise<Repair | undefined> {
  const program = await programOf({ home, command })
  if (!existsSync(folder)) return undefined
  const lock = holdFile(lockFile(folder))
  if (!lock) throw taken(folder, 'a Redis runs on it')
  try {
    return await repairAppendOnlyFile(await realpath(folder), program)
  } finally {
    lock.close()
  }
}

async function adoptOrLaunch(folder: string, socket: string, options: RedisOptions): Promise<RedisServer> {
  const startedAt = performance.now()
  for (let isAsked = false; ;) {
    const running = (await listens(socket)) ? await adopt(folder, socket, options) : undefined
    if (running) return running
    const lock = hold(folder)
    if (lock) {
      try {
        return await launch(folder, socket, options, lock)
      } finally {
        // From now on Redis alone holds it.
        lock.close()
      }
    }
    const waitedMs = performance.now() - startedAt
    if (waitedMs > unreachableMs && !isAsked) {
      isAsked = true
      await endUnreachable(folder, socket)
    } else if (waitedMs > lockMs) throw taken(folder, 'another Redis writes there, in another container or of another user')
    await delay(50)
  }
}

/** @throws DarkroomError `redis.start_failed` where nothing can be locked */
function hold(folder: string): HeldFile | undefined {
  try {
    return holdFile(lockFile(folder))
  } catch (error) {
    throw serverError('start_failed', `${lockFile(folder)} cannot be opened and locked: ${(error as Error).message}`, {
      remedy: 'Give this user the folder, on a file system that has locks, or choose another one with DARKROOM_DATA.',
      cause: error,
    })
  }
}

const lockFile = (folder: string): string => join(folder, 'redis.lock')

const taken = (folder: string, why: string): Error => serverError('taken', `the Redis folder ${folder} is in use: ${why}`)

async function programOf({ home, command }: { home?: string | undefined; command?: string | undefined }): Promise<string> {
  const program = command ?? (await findRedis(home ?? ''))?.command
  if (program !== undefined) return program
  throw serverError('not_found', 'there is no redis-server or valkey-server ≥ 6.2 on PATH, and set-up has installed none')
}

/** Undefined when it ends meanwhile. */
async function adopt(folder: string, socket: string, { durability, maxmemory }: RedisOptions): Promise<RedisServer | undefined> {
  const redis = connect(`unix:${socket}`, { patience: 'fail' })
  try {
    await untilReady(redis, loadMs)
    const info = await redis.info('server')
    const pid = Number(/^process_id:(\d+)/m.exec(info)?.[1])
    const dir = settingIn(await redis.config('GET', 'dir'))
    if (dir !== folder) throw serverError('start_failed', `the Redis on ${socket} (pid ${pid}) uses ${String(dir)}, not ${folder}`)
    if (!(await isOurs(pid, socket)))
      throw taken(folder, `a Redis that is no process here, such as one in another container, listens on ${socket}`)
    await redis.config('SET', 'appendfsync', fsync(durability))
    await redis.config('SET', 'maxmemory', maxmemory ?? '0')
    const exited = untilGone(pid)
    return { url: `unix:${socket}`, pid, version: versionIn(info), adopted: true, exited, stop: () => stop(pid, exited, socket) }
  } finally {
    redis.disconnect()
  }
}

async function launch(folder: string, socket: string, options: RedisOptions, lock: HeldFile): Promise<RedisServer> {
  const { durability, maxmemory } = options
  const program = await programOf(options)
  const version = await redisVersion(program)
  if (version !== undefined) checkReadable(folder, version)
  const logFile = join(folder, 'redis.log')
  const logged = statSync(logFile, { throwIfNoEntry: false })?.size ?? 0
  const log = (): string => {
    const text = existsSync(logFile) ? readFileSync(logFile) : Buffer.alloc(0)
    // A log that has become shorter was begun anew meanwhile.
    return text
      .subarray(text.length < logged ? 0 : logged)
      .toString('utf8')
      .trim()
  }
  const settings = {
    dir: folder,
    unixsocket: socket,
    pidfile: pidFile(folder),
    logfile: logFile,
    appendfsync: fsync(durability),
    maxmemory: maxmemory ?? '0',
  }
  const args = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value])
  // A process session of its own: Ctrl-C in the terminal reaches the supervisor alone, which stops Redis last.
  const child = spawn(program, [join(root, 'redis', 'redis.conf'), ...args], {
    cwd: folder,
    stdio: ['ignore', 'ignore', 'ignore', lock.fd],
    detached: true,
  })
  child.unref()
  const failed = once(child, 'error').then(([error]: Error[]) => error?.message ?? 'it cannot be started')
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()).once('error', () => resolve()))
  const { pid } = child
  const giveUp = async (why: string): Promise<never> => {
    child.kill('SIGKILL')
    await rmdir(dirname(socket)).catch(() => undefined)
    await exited
    const words = log()
    throw faultIn(words, folder) ?? serverError('start_failed', `${program} ${why}; ${logFile}: ${words.split('\n').slice(-3).join(' | ')}`)
  }
  if (pid === undefined) return giveUp(await failed)
  const early = exited.then(() => 'ended at once')
  const until = Date.now() + loadMs
  while (!(await listens(socket))) {
    const end = await within(20, early, undefined)
    if (end !== undefined) return giveUp(end)
    if (Date.now() > until) return giveUp(`did not listen within ${loadMs / 1000} s`)
  }
  const redis = connect(`unix:${socket}`, { patience: 'fail' })
  try {
    const end = await Promise.race([early, untilReady(redis, loadMs)])
    if (end !== undefined) return await giveUp(end)
    const note = cutIn(log())
    return {
      url: `unix:${socket}`,
      pid,
      version: versionIn(await redis.info('server')),
      adopted: false,
      ...(note !== undefined && { note }),
      exited,
      stop: () => stop(pid, exited, socket),
    }
  } finally {
    redis.disconnect()
  }
}

/** `no`: append-only-file.ts syncs each second. With `everysec` a `kill -9` could lose answered writes. */
const fsync = (durability: RedisOptions['durability']): string => (durability === 'strict' ? 'always' : 'no')
const pidFile = (folder: string): string => join(folder, 'redis.pid')
const versionIn = (info: string): string => /^(?:valkey|redis)_version:(\S+)/m.exec(info)?.[1] ?? '?'

function settingIn(reply: unknown): unknown {
  return Array.isArray(reply) ? reply[1] : Object.values(reply as Record<string, unknown>)[0]
}

function listens(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connectSocket(socket)
    probe.once('connect', () => {
      probe.destroy()
      resolve(true)
    })
    probe.once('error', () => resolve(false))
  })
}

/**
 * Ends a Redis that no client can reach because its socket was removed: it still writes to the folder, and a second one
 * beside it would break the file.
 */
async function endUnreachable(folder: string, socket: string): Promise<void> {
  const pid = Number(await readFile(pidFile(folder), 'utf8').catch(() => ''))
  if (!pid || !(await isOurs(pid, socket))) return
  await stop(pid, untilGone(pid), socket)
  socketFolder(folder)
}

/** Whether the process is a Redis on this socket, by its title or command line. */
async function isOurs(pid: number, socket: string): Promise<boolean> {
  if (!isAlive(pid)) return false
  const line = existsSync('/proc/self/cmdline')
    ? await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
    : (await run('ps', ['-o', 'command=', '-p', String(pid)])).out
  return line.includes(socket)
}

async function untilGone(pid: number): Promise<void> {
  // Waiting for a process alone does not keep this one running.
  while (isAlive(pid)) await delay(50, undefined, { ref: false })
}

async function stop(pid: number, exited: Promise<void>, socket: string): Promise<void> {
  if (isAlive(pid)) process.kill(pid, 'SIGTERM')
  const gone = exited.then(() => true)
  if (!(await within(stopMs, gone, false)) && isAlive(pid)) process.kill(pid, 'SIGKILL')
  await gone
  // It stays when other sockets are in it.
  await rmdir(dirname(socket)).catch(() => undefined)
}
