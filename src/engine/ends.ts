/** The index of ends: sessions of a shard that have ended, by the time from which their retention counts. */
import { keys, shardOf } from '../keys.ts'
import { translated, translatedAll, type Redis } from '../redis.ts'
import type { Reads } from './reads.ts'
import { ended } from './session.ts'

export class Ends {
  readonly #redis: Redis
  readonly #reads: Reads

  constructor(redis: Redis, reads: Reads) {
    this.#redis = redis
    this.#reads = reads
  }

  /**
   * Sessions that ended more than `keepS` seconds ago (0: for ever), or before the latest `keep`; the oldest, `limit`
   * at most.
   */
  async outlived(shard: number, keepS: number, keep: number, limit: number): Promise<string[]> {
    const index = keys.index(shard, 'ended')
    const surplus = keep === Infinity ? 0 : Math.min(limit, (await translated(this.#redis.zcard(index))) - keep)
    const [tooMany, tooOld] = await Promise.all([
      surplus > 0 ? translated(this.#redis.zrange(index, '0', String(surplus - 1))) : [],
      keepS > 0
        ? translated(this.#redis.zrangebyscore(index, '-inf', (await this.#reads.now(shard)) - keepS * 1000, 'LIMIT', 0, limit))
        : [],
    ])
    return tooMany.length > tooOld.length ? tooMany : tooOld
  }

  /** The session's retention counts from now. */
  async spare(id: string): Promise<void> {
    await translated(this.#redis.zadd(keys.index(shardOf(id), 'ended'), 'XX', await this.#reads.now(shardOf(id)), id))
  }

  /** Takes an entry without a session out. */
  async forget(id: string): Promise<void> {
    await translated(this.#redis.zrem(keys.index(shardOf(id), 'ended'), id))
  }

  /** Writes what the index of a shard lacks, beside whatever ends meanwhile. Returns how many entries that were. */
  async complete(shard: number): Promise<number> {
    return (await this.#missing(shard)) > 0 ? this.#write(shard) : 0
  }

  async #missing(shard: number): Promise<number> {
    const statuses = [...ended].map((status) => keys.index(shard, 'status', status))
    const [indexed = 0, ...counts] = (await translatedAll(
      [keys.index(shard, 'ended'), ...statuses].reduce((transaction, index) => transaction.zcard(index), this.#redis.multi()),
    )) as number[]
    return counts.reduce((sum, count) => sum + count, 0) - indexed
  }

  async #write(shard: number): Promise<number> {
    const index = keys.index(shard, 'ended')
    let written = 0
    for (const status of ended) {
      for await (const ids of this.#reads.members(keys.index(shard, 'status', status))) {
        const answers = await translatedAll(
          ids.reduce((pipeline, id) => pipeline.hget(keys.session(id), 'endedAt'), this.#redis.pipeline()),
        )
        const ends = answers as (string | null)[]
        const pairs = ids.flatMap((id, i) => (typeof ends[i] === 'string' ? [ends[i], id] : []))
        if (pairs.length > 0) written += Number(await translated(this.#redis.zadd(index, 'NX', ...pairs)))
      }
    }
    return written
  }
}
