/**
 * The composition root: the command line, and the roles it can start.
 *
 * | role | started by | ends |
 * | --- | --- | --- |
 * | `up` | a person | SIGINT or SIGTERM: workers, API and Redis stop in this order |
 * | `api`, `worker` | `up`, or a person with `REDIS_URL` | the same signals, or when the channel to its `up` closes |
 * | `worker --standby` | `up` | the same; it begins when `up` says that it is its turn |
 */
import { askHolder } from '../host/lock.mjs'
import { interpreterOf } from './cards.ts'
import { commandLine } from './cli/program.ts'
import { readConfig, type Config } from './config.ts'
import type { DarkroomError } from './errors.ts'
import { ensureError, configError } from './errors.ts'
import { createLog } from './log.ts'
import { checkSafety, connect, untilReady } from './redis.ts'
import type { RoleMessage } from './supervisor.ts'
import { checkShards } from './engine/shards.ts'

interface Role {
  /** Reported to `up`: its address or its id. */
  ready: Record<string, string>
  stop(): Promise<void>
  /** Resolves with the reason when the role has ended by itself. */
  ended?: Promise<DarkroomError>
}

async function api(config: Config): Promise<Role> {
  const { startApi } = await import('./api/server.ts')
  const running = await startApi(config, createLog(config.logLevel, 'api'))
  return { ready: { url: running.url }, stop: () => running.close() }
}

async function worker(config: Config, turn?: Promise<void>): Promise<Role> {
  const { startWorker } = await import('./workers/boot.ts')
  const log = createLog(config.logLevel, 'worker')
  const command = [interpreterOf(config), '-P', '-m', 'darkroom']
  const node = await startWorker({ config, log, redisUrl: config.redisUrl ?? '', command, turn })
  return { ready: { id: node.id }, stop: () => node.drain(), ended: node.ended }
}

/** Runs a role until a signal, or the end of its `up`, asks it to stop. */
async function run(start: (config: Config, turn?: Promise<void>) => Promise<Role>, isStandby = false): Promise<void> {
  const asked = new Promise<void>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => resolve())
    process.once('disconnect', () => resolve())
  })
  const noTurn = new Error('it was asked to end before its turn came')
  const taken = new Promise<void>((resolve) => void (isStandby && process.once('message', () => resolve())))
  const turn = isStandby ? Promise.race([taken, asked.then(() => Promise.reject(noTurn))]) : undefined
  turn?.catch(() => undefined)
  const tell = (message: RoleMessage): void => void process.send?.(message)
  try {
    const config = await withRedis(readConfig())
    const role = await start(config, turn)
    tell({ ready: role.ready })
    const reason = await Promise.race([asked, ...(role.ended ? [role.ended] : [])])
    await role.stop()
    if (reason) throw reason
  } catch (error) {
    if (error === noTurn) return
    tell({ failed: ensureError(error, 'worker.start_failed').toWire() })
    throw error
  } finally {
    if (process.connected) process.disconnect()
  }
}

/**
 * The configuration with the address of its Redis: `REDIS_URL`, else that of the `darkroom up` on the same data folder.
 * @throws DarkroomError `config.invalid` without either, `redis.unavailable`, `redis.unsafe`
 */
async function withRedis(config: Config): Promise<Config> {
  const holder = config.redisUrl === undefined ? await askHolder(config.data, 'up') : undefined
  const redisUrl = config.redisUrl ?? (holder?.['privateRedis'] as string | undefined)
  if (redisUrl === undefined) {
    const why = holder ? 'the `darkroom up` on the data folder uses a Redis of your own' : 'no `darkroom up` runs on the data folder'
    const problem = `REDIS_URL is not set, and ${why} (${config.data})`
    throw configError('invalid', problem, { remedy: 'Start `npm start` first, or set REDIS_URL to the Redis of your farm.' })
  }
  const redis = connect(redisUrl, { patience: 'wait' })
  try {
    await untilReady(redis, 10_000)
    await checkSafety(redis, redisUrl, config.durability)
    await checkShards(redis, config.shards)
  } finally {
    redis.disconnect()
  }
  return { ...config, redisUrl }
}

process.exitCode = await commandLine({ api: () => run(api), worker: ({ standby }) => run(worker, standby) }, process.argv)
// Connections that still wait for an absent Redis would keep the process alive for ever.
setTimeout(() => process.exit(), 1000).unref()
