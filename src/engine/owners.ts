/** What a device has to know of the sessions that own its memory. */
import { keys, shardOf } from '../keys.ts'
import { translated, translatedAll, type Redis } from '../redis.ts'
import { ended, type Status } from './session.ts'
import type { Reads } from './reads.ts'

export class SessionOwners {
  readonly #redis: Redis
  readonly #reads: Reads

  constructor(redis: Redis, reads: Reads) {
    this.#redis = redis
    this.#reads = reads
  }

  /** Those of these sessions that have ended or are gone, with the time since, ms: Infinity for those that are gone. */
  async endedOf(sessions: readonly string[]): Promise<Map<string, number>> {
    const shards = [...new Set(sessions.map(shardOf))]
    const now = new Map(await Promise.all(shards.map(async (shard) => [shard, await this.#reads.now(shard)] as const)))
    const found = (await translatedAll(
      sessions.reduce(
        (pipeline, id) => pipeline.hget(keys.session(id), 'status').zscore(keys.index(shardOf(id), 'ended'), id),
        this.#redis.pipeline(),
      ),
    )) as (string | null)[]
    return new Map(
      sessions.flatMap((id, i) => {
        const [status = null, end = null] = found.slice(2 * i, 2 * i + 2)
        if (status !== null && !ended.has(status as Status)) return []
        return [[id, end === null ? Infinity : (now.get(shardOf(id)) ?? 0) - Number(end)] as const]
      }),
    )
  }

  /** Id of the API key that submitted a session; null without keys. */
  keyOf(sessionId: string): Promise<string | null> {
    return translated(this.#redis.hget(keys.session(sessionId), 'keyId'))
  }
}
