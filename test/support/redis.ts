/**
 * A real Redis for one test file, durable as the product's own: on a Unix socket, in a folder of its own. With
 * `TEST_REDIS=cluster`, as `npm run test:cluster` sets it, each is the one node of a cluster, and what a test starts on
 * it has three shards.
 */
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { findRedis } from '../../host/places.mjs'
import { readConfig } from '../../src/config.ts'
import { smallDisks, type SmallDisks } from './small-disk.ts'
import { started } from './started.ts'
import { wallClock } from './wall-clock.ts'
import { startRedis, type RedisOptions, type RedisServer } from '../../src/redis-server.ts'

const kind = process.env['TEST_REDIS'] ?? 'single'
if (kind !== 'single' && kind !== 'cluster') throw new Error(`TEST_REDIS is ${kind}, not single or cluster`)

export const isCluster = kind === 'cluster'

/** Shards of what a test starts, unless it says how many. */
export const defaultShards = isCluster ? 3 : 1

export interface TestRedisOptions extends Partial<Omit<RedisOptions, 'folder'>> {
  /**
   * The one node of a cluster, with every slot: commands, scripts' commands and transactions that cross slots are
   * refused.
   */
  cluster?: boolean
  /** Its wall clock can be set. */
  clock?: boolean
  /** Its files lie on a disk of so many bytes, which a test can fill. */
  diskBytes?: number
}

export interface TestRedis {
  /** `unix:/path`; the same after `restart`. */
  readonly url: string
  readonly folder: string
  /** The one that its folder lies on. */
  readonly disks: SmallDisks | undefined
  readonly pid: number
  /** SIGKILL, as a crash would end it; resolves when it is gone. */
  kill(): Promise<void>
  /** SIGSTOP until the returned function is called. */
  freeze(): () => void
  /** Sets its wall clock off by so many milliseconds; only with `clock`. */
  setClock(offsetMs: number): Promise<void>
  /** Starts it again on the same files after `kill`. */
  restart(): Promise<void>
  /** Ends it and removes its files. */
  stop(): Promise<void>
}

export async function startTestRedis({
  cluster = kind === 'cluster',
  clock = false,
  diskBytes,
  ...options
}: TestRedisOptions = {}): Promise<TestRedis> {
  const folder = await mkdtemp(join(tmpdir(), 'darkroom-redis-'))
  const home = readConfig().home
  const redis = options.command ?? (await findRedis(home))?.command ?? ''
  // Beside the disk, which would hide it.
  const settable = clock ? await wallClock(await mkdtemp(`${folder}-clock-`), redis) : undefined
  const disks = diskBytes === undefined ? undefined : await smallDisks({ [folder]: diskBytes })
  const start = async (): Promise<RedisServer> => {
    let command = settable?.program ?? redis
    if (disks) command = await insideProgram(`${folder}.sh`, command, disks)
    else if (cluster) command = await clusterProgram(folder, command)
    const running = await startRedis({ durability: 'standard', home, ...options, ...(command !== '' && { command }), folder })
    void running.exited.then(started(running.pid))
    return running
  }
  let server = await start()
  return {
    url: server.url,
    folder,
    disks,
    get pid() {
      return server.pid
    },
    kill: async () => {
      process.kill(server.pid, 'SIGKILL')
      await server.exited
    },
    freeze: () => {
      process.kill(server.pid, 'SIGSTOP')
      return () => void process.kill(server.pid, 'SIGCONT')
    },
    setClock: async (offsetMs) => {
      if (!settable) throw new Error('this Redis was started without a clock of its own')
      await settable.set(offsetMs)
    },
    restart: async () => {
      server = await start()
    },
    stop: async () => {
      await server.stop()
      await disks?.[Symbol.asyncDispose]()
      await rm(`${folder}.sh`, { force: true })
      await settable?.remove()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

/** A program that starts this Redis where the disks are. */
async function insideProgram(program: string, redis: string, { inside }: SmallDisks): Promise<string> {
  await writeFile(program, `#!/bin/sh\nexec ${inside.join(' ')} '${redis}' "$@"\n`, { mode: 0o700 })
  return program
}

/**
 * A program that starts this Redis as the node of a cluster that has every slot. Such a one needs a port, and another
 * 10,000 above it, though nobody uses them. It takes no commands in its first two seconds, at each start.
 */
async function clusterProgram(folder: string, redis: string): Promise<string> {
  const [program, nodes] = [join(folder, 'cluster-node.sh'), join(folder, 'nodes.conf')]
  const settings = `--bind 127.0.0.1 --port ${await freePorts()} --cluster-enabled yes --cluster-config-file nodes.conf`
  await writeFile(program, `#!/bin/sh\nexec '${redis}' "$@" ${settings}\n`)
  await chmod(program, 0o700)
  const node = `${'0'.repeat(40)} :0@0 myself,master - 0 0 1 connected 0-16383\nvars currentEpoch 1 lastVoteEpoch 0\n`
  await writeFile(nodes, node, { flag: 'wx' }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EEXIST') throw error
  })
  return program
}

async function freePorts(): Promise<number> {
  for (;;) {
    const port = 10_100 + Math.floor(Math.random() * 7800)
    if ((await isFree(port)) && (await isFree(port + 10_000))) return port
  }
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer()
  const answer = await new Promise<boolean>((resolve) => {
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => resolve(true))
  })
  await new Promise((resolve) => server.close(resolve))
  return answer
}
