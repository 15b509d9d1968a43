/**
 * What a host has of models, as Redis keeps it: its shelf. One process of the host at a time keeps it, whoever holds
 * its lease; every process of the farm reads it.
 */
import { tellTime } from '../clock.ts'
import { keys } from '../keys.ts'
import { runScript, translated, translatedAll, type Redis } from '../redis.ts'
import { indexFormat, type Entry } from './entry.ts'
import type { FileHashes } from './hash.ts'
import type { RootProblem } from './roots.ts'
import type { FileState } from './found.ts'

/** How long the lease of a keeper lives without it, ms. */
export const keeperMs = 3000
/** How long a shelf stays in Redis that nobody keeps, ms. */
const staysMs = 30 * 86_400_000
/** A shelf counts as part of the farm for so long after its keeper was last there, ms. */
const presentMs = 3_600_000
/** Progress of a hash that nobody goes on with is forgotten after so long, ms. */
const hashingMs = 10_000
const batch = 500
/** Asked for among paths: a look at all folders. */
export const everything = '*'

/** What a keeper says of its shelf. */
export interface ShelfRecord {
  id: string
  /** Id of the host. */
  host: string
  format: number
  /** Of the index: another one was begun anew. */
  series: string
  version: number
  folders: string[]
  problems: RootProblem[]
  /** When the last look at everything ended, milliseconds since 1970; null before the first. */
  scannedAt: number | null
  /** By the farm's time. */
  seenAt: number
}

const stateOfFile = ({ size, modifiedMs, inode }: Omit<FileState, 'path'>): string => `${size} ${modifiedMs} ${inode}`

export class Shelf {
  readonly id: string
  readonly #redis: Redis

  constructor(redis: Redis, id: string) {
    this.#redis = redis
    this.id = id
  }

  // ---- the keeper ----

  /** Takes or renews the lease of its keeper. False while another process holds it. */
  async hold(token: string): Promise<boolean> {
    return (await runScript(this.#redis, 'leaseDevice', keys.shelfKeeper(this.id), [token, keeperMs]))[0] === 'ok'
  }

  async letGo(token: string): Promise<void> {
    await runScript(this.#redis, 'leaseDevice', keys.shelfKeeper(this.id), [token, 0])
  }

  /** All that was found up to now; a part at a time, since it may be many megabytes. */
  async load(): Promise<Map<string, Entry>> {
    const entries = new Map<string, Entry>()
    let cursor = '0'
    do {
      const [next, pairs] = await translated(this.#redis.hscan(keys.shelfModels(this.id), cursor, 'COUNT', batch))
      cursor = next
      for (let i = 0; i < pairs.length; i += 2)
        for (const [path, entry] of parsed(pairs[i] ?? '', pairs[i + 1] ?? '')) entries.set(path, entry)
    } while (cursor !== '0')
    return entries
  }

  /** Returns the version of the index with what has changed; undefined when this process is not its keeper any more. */
  async write(token: string, changed: readonly Entry[], removed: readonly string[]): Promise<number | undefined> {
    const pairs = [...changed.map((entry) => [entry.path, JSON.stringify(entry)] as const), ...removed.map((path) => [path, ''] as const)]
    let version: number | undefined
    for (let i = 0; i === 0 || i < pairs.length; i += batch) {
      const args = pairs.slice(i, i + batch).flat()
      const [is, now] = await runScript(this.#redis, 'noteModels', keys.shelfModels(this.id), [token, staysMs, ...args])
      if (is !== 'ok') return undefined
      version = Number(now)
    }
    return version
  }

  /** Begins the index anew. */
  async clear(): Promise<void> {
    const { id } = this
    await translatedAll(this.#redis.pipeline().del(keys.shelfModels(id)).del(keys.shelfChanges(id)))
  }

  async publish(record: Omit<ShelfRecord, 'id' | 'seenAt' | 'format'>): Promise<ShelfRecord> {
    const { id } = this
    const { now } = await tellTime(this.#redis, keys.storeClock())
    const whole: ShelfRecord = { ...record, id, format: indexFormat, seenAt: now }
    await translatedAll(this.#redis.pipeline().hset(keys.shelves(), id, JSON.stringify(whole)).pexpire(keys.shelfHashes(id), staysMs))
    return whole
  }

  async record(): Promise<ShelfRecord | undefined> {
    const text = await translated(this.#redis.hget(keys.shelves(), this.id))
    return text === null ? undefined : (JSON.parse(text) as ShelfRecord)
  }

  // ---- hashes ----

  /** Those of these files that were hashed in this state; undefined for the others. */
  async hashesOf(files: readonly (FileState & { at: string })[]): Promise<(FileHashes | undefined)[]> {
    if (files.length === 0) return []
    const texts = await translated(this.#redis.hmget(keys.shelfHashes(this.id), ...files.map(({ at }) => at)))
    return files.map((file, i) => {
      const [state, body, sha256, short] = texts[i]?.split('\n') ?? []
      return state === stateOfFile(file) && body && sha256 && short ? { body, sha256, short } : undefined
    })
  }

  async noteHashes(at: string, state: Omit<FileState, 'path'>, { body, sha256, short }: FileHashes): Promise<void> {
    await translated(this.#redis.hset(keys.shelfHashes(this.id), at, [stateOfFile(state), body, sha256, short].join('\n')))
  }

  /** Asks for the hashes of the models at these paths. */
  async want(paths: readonly string[]): Promise<void> {
    if (paths.length === 0) return
    await translatedAll(
      this.#redis
        .pipeline()
        .sadd(keys.shelfWanted(this.id), ...paths)
        .pexpire(keys.shelfWanted(this.id), staysMs),
    )
  }

  wanted(): Promise<string[]> {
    return translated(this.#redis.smembers(keys.shelfWanted(this.id)))
  }

  async unwant(path: string): Promise<void> {
    const { id } = this
    await translatedAll(this.#redis.pipeline().srem(keys.shelfWanted(id), path).hdel(keys.shelfHashing(id), path))
  }

  /** How far the hash of a model is, in bytes. */
  async tell(path: string, done: number, total: number): Promise<void> {
    const key = keys.shelfHashing(this.id)
    await translatedAll(this.#redis.pipeline().hset(key, path, `${done} ${total}`).pexpire(key, hashingMs))
  }

  async progress(path: string): Promise<{ done: number; total: number } | undefined> {
    const text = await translated(this.#redis.hget(keys.shelfHashing(this.id), path))
    const [done, total] = text?.split(' ').map(Number) ?? []
    return done === undefined || total === undefined ? undefined : { done, total }
  }
}

/** An entry that cannot be read any more is looked at again. */
function parsed(path: string, text: string): [string, Entry][] {
  try {
    const entry = JSON.parse(text) as Entry
    // One text for what is the same: there may be ten thousand of them.
    const real = entry.real === path ? path : entry.real
    return [[path, { ...entry, path, real }]]
  } catch {
    return []
  }
}

/** A copy of another process's shelf, brought up to date by what has changed. */
export interface ShelfCopy {
  record: ShelfRecord
  version: number
  entries: Map<string, Entry>
}

/** The shelves of hosts that are part of the farm, by the farm's time: no setting of a clock makes one of them gone. */
export async function readShelves(redis: Redis): Promise<ShelfRecord[]> {
  const { now } = await tellTime(redis, keys.storeClock())
  const all = await translated(redis.hgetall(keys.shelves()))
  const records = Object.values(all).map((text) => JSON.parse(text) as ShelfRecord)
  const gone = records.filter(({ seenAt }) => now - seenAt > staysMs)
  if (gone.length > 0) await translated(redis.hdel(keys.shelves(), ...gone.map(({ id }) => id)))
  return records.filter(({ format, seenAt }) => format === indexFormat && now - seenAt <= presentMs)
}

/** The copy with what has changed since; the same one when nothing has. */
export async function readChanges(redis: Redis, record: ShelfRecord, copy: ShelfCopy | undefined): Promise<ShelfCopy> {
  const { id, series, version } = record
  if (copy?.record.series !== series) {
    return { record, version, entries: await new Shelf(redis, id).load() }
  }
  if (copy.version === version) return { ...copy, record }
  const paths = await translated(redis.zrangebyscore(keys.shelfChanges(id), `(${copy.version}`, '+inf'))
  const entries = new Map(copy.entries)
  for (let i = 0; i < paths.length; i += batch) {
    const some = paths.slice(i, i + batch)
    const texts = await translated(redis.hmget(keys.shelfModels(id), ...some))
    for (const [j, path] of some.entries()) {
      const text = texts[j]
      if (text) for (const [, entry] of parsed(path, text)) entries.set(path, entry)
      else entries.delete(path)
    }
  }
  return { record, version, entries }
}
