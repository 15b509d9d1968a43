/**
 * The private Redis of a data folder: a `redis-server` on a Unix socket with an append-only file. It outlives the
 * process that started it, so a killed supervisor loses nothing and the next one adopts it; only `stop()` ends it.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { mkdir, readFile, realpath, rmdir } from 'node:fs/promises'
import { connect as connectSocket } from 'node:net'
import { dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { socketFolder } from '../host/lock.mjs'
import { findRedis, howToInstall } from '../host/places.mjs'
import { ask as run } from '../host/programs.mjs'
import { isAlive } from '../host/processes.mjs'
import { AppendOnlyFile } from './append-only-file.ts'
import { root } from './config.ts'
import { defineErrors } from './errors.ts'
import { within } from './promises.ts'
import { connect, untilReady } from './redis.ts'

const serverError = defineErrors('redis', {
  not_found: { class: 'permanent', remedy: `Run \`npm start\` once, which installs one, or ${howToInstall()}.` },
  start_failed: { class: 'permanent', remedy: 'Read the end of its log, named above.' },
})

/** How long a Redis may read its append-only file before it answers. */
const loadMs = 120_000
const stopMs = 15_000

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
  /** Resolves when the process is gone. */
  readonly exited: Promise<void>
  /** Ends it in order and waits: everything that it answered is in its file. */
  stop(): Promise<void>
}

/**
 * Starts the Redis of a folder, or adopts the one that runs there.
 * @throws DarkroomError `redis.not_found`, `redis.start_failed`
 */
export async function startRedis(options: RedisOptions): Promise<RedisServer> {
  await mkdir(options.folder, { recursive: true, mode: 0o700 })
  const folder = await realpath(options.folder)
  const socket = join(socketFolder(folder), 'redis.sock')
  const server = (await adopt(folder, socket, options)) ?? (await launch(folder, socket, options))
  if (options.durability === 'standard') {
    const file = new AppendOnlyFile(folder, (error) => options.onUnsynced?.(error))
    void server.exited.then(() => file.stop())
  }
  return server
}

async function adopt(folder: string, socket: string, { durability, maxmemory }: RedisOptions): Promise<RedisServer | undefined> {
  if (!(await listens(socket))) {
    await endUnreachable(folder, socket)
    return undefined
  }
  const redis = connect(`unix:${socket}`, { patience: 'fail' })
  try {
    await untilReady(redis, loadMs)
    const info = await redis.info('server')
    const pid = Number(/^process_id:(\d+)/m.exec(info)?.[1])
    const dir = settingIn(await redis.config('GET', 'dir'))
    if (dir !== folder) throw serverError('start_failed', `the Redis on ${socket} (pid ${pid}) uses ${String(dir)}, not ${folder}`)
    await redis.config('SET', 'appendfsync', fsync(durability))
    await redis.config('SET', 'maxmemory', maxmemory ?? '0')
    const exited = untilGone(pid)
    return { url: `unix:${socket}`, pid, version: versionIn(info), adopted: true, exited, stop: () => stop(pid, exited, socket) }
  } finally {
    redis.disconnect()
  }
}

async function launch(folder: string, socket: string, { durability, maxmemory, home, command }: RedisOptions): Promise<RedisServer> {
  const program = command ?? (await findRedis(home ?? ''))?.command
  if (program === undefined)
    throw serverError('not_found', 'there is no redis-server or valkey-server ≥ 6.2 on PATH, and set-up has installed none')
  const logFile = join(folder, 'redis.log')
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
  const child = spawn(program, [join(root, 'redis', 'redis.conf'), ...args], { cwd: folder, stdio: 'ignore', detached: true })
  child.unref()
  const failed = once(child, 'error').then(([error]: Error[]) => error?.message ?? 'it cannot be started')
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  const { pid } = child
  const giveUp = async (why: string): Promise<never> => {
    child.kill('SIGKILL')
    await rmdir(dirname(socket)).catch(() => undefined)
    const words = existsSync(logFile) ? readFileSync(logFile, 'utf8').trim().split('\n').slice(-3).join(' | ') : ''
    throw serverError('start_failed', `${program} ${why}; ${logFile}: ${words}`)
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
    return {
      url: `unix:${socket}`,
      pid,
      version: versionIn(await redis.info('server')),
      adopted: false,
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
