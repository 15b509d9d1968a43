/**
 * `darkroom keys add | list | revoke | open`. They work on Redis itself: a farm without a key gets its first one this
 * way.
 */
import { join } from 'node:path'
import { askHolder } from '../../host/lock.mjs'
import { KeyStore, usualScopes, type Scope } from '../api-keys.ts'
import { readConfig } from '../config.ts'
import { configError, keyError } from '../errors.ts'
import { startRedis } from '../redis-server.ts'
import { connect, untilReady } from '../redis.ts'
import { say, sayJson, table, whisper } from './terminal.ts'

/**
 * Works on the farm's Redis. Where none runs, it starts the private one of the data folder and stops it afterwards.
 * @throws DarkroomError `config.invalid` when the farm's is another and REDIS_URL is not set
 */
async function withKeys<T>(work: (keys: KeyStore) => Promise<T>): Promise<T> {
  const { redisUrl, data, durability, home, maxmemory } = readConfig()
  const holder = redisUrl === undefined ? await askHolder(data, 'up') : undefined
  const running = redisUrl ?? (holder?.['privateRedis'] as string | undefined)
  if (holder && running === undefined) {
    const remedy = 'Set REDIS_URL to the Redis of that farm.'
    throw configError('invalid', `the \`darkroom up\` on ${data} has no Redis of its own, or has not started it yet`, {
      field: 'REDIS_URL',
      remedy,
    })
  }
  const own = running === undefined ? await startRedis({ folder: join(data, 'redis'), durability, home, maxmemory }) : undefined
  const redis = connect(own?.url ?? running ?? '', { patience: 'wait' })
  try {
    await untilReady(redis, 10_000)
    return await work(new KeyStore(redis))
  } finally {
    redis.disconnect()
    if (own && !own.adopted) await own.stop()
  }
}

export async function addKey(name: string, options: { scope?: Scope[]; weight?: number; json?: boolean }): Promise<void> {
  const { key, record } = await withKeys((keys) => keys.add(name, options.scope ?? usualScopes, options.weight))
  if (options.json) return sayJson({ ...record, key })
  whisper(`Key ${record.id} (${record.name}) may ${record.scopes.join(', ')}. This is the only time it is shown:`)
  say(key)
}

export async function listKeys(options: { json?: boolean }): Promise<void> {
  const { records, isOpen } = await withKeys(async (keys) => ({ records: await keys.list(), isOpen: await keys.isOpen() }))
  if (options.json) return sayJson(records)
  if (records.length === 0) return say(isOpen ? openWords : closedWords)
  const rows = records.map(({ id, name, scopes: granted, weight, createdAt }) => [
    id,
    granted.join(','),
    String(weight),
    new Date(createdAt).toISOString(),
    name,
  ])
  say(table(['KEY', 'SCOPES', 'WEIGHT', 'ADDED', 'NAME'], rows))
}

/** @throws DarkroomError `key.unknown` */
export async function revokeKey(id: string): Promise<void> {
  const left = await withKeys(async (keys) => ((await keys.revoke(id)) ? keys.list() : undefined))
  if (!left) throw keyError('unknown', `there is no key ${JSON.stringify(id)}`, { field: 'id' })
  say(`key ${id} opens nothing any more; its streams and waits end within two seconds`)
  say('what it has submitted goes on; a key with the scope operate sees it and can cancel it')
  if (left.length === 0) say(closedWords)
}

/**
 * Opens a farm without keys to every user of its machine.
 * @throws DarkroomError `key.left`
 */
export async function openFarm(): Promise<void> {
  await withKeys((keys) => keys.open())
  say(openWords)
}

const openWords = 'no keys, and the farm is open: every user of this machine may do everything, without a key'
const closedWords =
  'no keys, and the farm is closed: nobody gets in until you make a key (`darkroom keys add`) or open the farm (`darkroom keys open`)'
