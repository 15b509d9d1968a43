/**
 * What sessions use, by session and by API key and day (UTC): counted by the scripts that end attempts and sessions, so
 * each attempt counts once, whatever dies.
 *
 * | measure | counts |
 * | --- | --- |
 * | `ms` | from the moment an attempt took a step on a device until it ended, or its lease did |
 * | `lost` | of these what came to nothing: of an attempt that failed or was lost, the time since its last checkpoint |
 * | `kept`, `scratch` | bytes of the pictures that steps made, and of what one step left for the next |
 * | `hits`, `misses` | steps whose model was on the device, and those that loaded it first |
 * | `sessions` | sessions that have ended; of a day alone |
 */
import { counted } from '../limits.ts'
import { keys } from '../keys.ts'
import { translatedAll, type Redis } from '../redis.ts'

/** As the scripts are given them (`redis/prelude.lua`). */
export const measures = ['ms', 'lost', 'kept', 'scratch', 'hits', 'misses'] as const
export type Measure = (typeof measures)[number]
export type Use = Record<Measure, number>

export const noUse: Use = { ms: 0, lost: 0, kept: 0, scratch: 0, hits: 0, misses: 0 }

/** Of a session's record. */
export const useOf = (record: Record<string, string | null | undefined>): Use =>
  Object.fromEntries(measures.map((measure) => [measure, Math.max(0, Number(record[`use:${measure}`] ?? 0))])) as Use

/** As the scripts take it. */
export const valuesOf = (use: Use): number[] => measures.map((measure) => use[measure])

/** Why a session changes, as far as it tells of use. */
interface Caused {
  artifacts: readonly { group: string; bytes?: number | undefined }[]
  entry: Readonly<Record<string, unknown>>
  /** Of a child. */
  use?: Use | undefined
}

const bytesOf = (artifacts: Caused['artifacts'], group: string): number =>
  artifacts.reduce((sum, each) => sum + (each.group === group ? (each.bytes ?? 0) : 0), 0)

/** What a cause adds, as the scripts take it: of a step what its result says; its time they know by themselves. */
export function usedBy({ use, artifacts, entry }: Caused): number[] {
  const { wasResident } = (entry['stats'] ?? {}) as { wasResident?: unknown }
  const found = {
    kept: bytesOf(artifacts, 'references'),
    scratch: bytesOf(artifacts, 'scratch'),
    hits: Number(wasResident === true),
    misses: Number(wasResident === false),
  }
  return valuesOf(use ?? { ...noUse, ...found })
}

/** One API key's day. */
export interface DayOfKey extends Use {
  /** As in `2030-01-31`, UTC. */
  day: string
  keyId: string | null
  sessions: number
}

const dayMs = 86_400_000
/** Days that are kept. */
export const keptDays = 31

export class Usage {
  readonly #redis: Redis
  readonly #shards: number

  constructor(redis: Redis, shards: number) {
    this.#redis = redis
    this.#shards = shards
  }

  /** Of each key the last days on which it has used anything, today with them; the newest first. */
  async days(keyIds: readonly (string | null)[], count: number): Promise<DayOfKey[]> {
    const today = Math.floor(Date.now() / dayMs)
    const found = await Promise.all(keyIds.map(async (keyId) => this.#daysOf(keyId, today - count)))
    return found.flat().toSorted((a, b) => (a.day < b.day ? 1 : a.day > b.day ? -1 : counted(a.keyId) < counted(b.keyId) ? -1 : 1))
  }

  async #daysOf(keyId: string | null, after: number): Promise<DayOfKey[]> {
    const shards = Array.from({ length: this.#shards }, (_, shard) => keys.use(shard, counted(keyId)))
    const records = await translatedAll(shards.reduce((pipeline, key) => pipeline.hgetall(key), this.#redis.pipeline()))
    const days = new Map<number, DayOfKey>()
    for (const [field, value] of records.flatMap((record) => Object.entries(record as Record<string, string>))) {
      const [number, measure] = field.split(' ') as [string, Measure | 'sessions']
      if (Number(number) <= after) continue
      const fresh = { day: new Date(Number(number) * dayMs).toISOString().slice(0, 10), keyId, sessions: 0, ...noUse }
      const day = days.get(Number(number)) ?? fresh
      days.set(Number(number), { ...day, [measure]: day[measure] + Number(value) })
    }
    return [...days.values()]
  }

  /** How long these API keys, by the names of their lines, have had devices today, ms. */
  async today(names: readonly string[]): Promise<ReadonlyMap<string, number>> {
    const field = `${Math.floor(Date.now() / dayMs)} ms`
    const each = await Promise.all(
      names.map(async (name) => {
        const shards = Array.from({ length: this.#shards }, (_, shard) => keys.use(shard, name))
        const values = await translatedAll(shards.reduce((pipeline, key) => pipeline.hget(key, field), this.#redis.pipeline()))
        return [name, values.reduce<number>((sum, value) => sum + Number(value ?? 0), 0)] as const
      }),
    )
    return new Map(each)
  }
}
