/** Where the newest sessions stand: a look at many of them that reads no record whole. */
import { keys } from '../keys.ts'
import { translated, translatedAll, type Redis } from '../redis.ts'
import { newestFirst, waitingOf } from './reads.ts'
import type { Session, Status } from './session.ts'

export type Standing = Pick<Session, 'id' | 'createdAt' | 'status' | 'version' | 'waiting'>

/** `count` of them at most, newest first. @throws DarkroomError `redis.unavailable` */
export async function newest(redis: Redis, shards: number, count: number): Promise<Standing[]> {
  const ofShards = Array.from({ length: shards }, (_, shard) =>
    translated(redis.zrange(keys.index(shard, 'all'), '0', String(count - 1), 'REV', 'WITHSCORES')),
  )
  const places = (await Promise.all(ofShards)).flatMap((pairs) =>
    pairs.flatMap((id, i) => (i % 2 === 0 ? [{ id, createdAt: Number(pairs[i + 1]) }] : [])),
  )
  const found = places.toSorted(newestFirst).slice(0, count)
  if (found.length === 0) return []
  const fields = ['status', 'version', 'waiting', 'parked'] as const
  const records = await translatedAll(found.reduce((asked, { id }) => asked.hmget(keys.session(id), ...fields), redis.pipeline()))
  return found.flatMap(({ id, createdAt }, i) => {
    const [status, version, waiting, parked] = records[i] as (string | null)[]
    if (!status) return []
    return [{ id, createdAt, status: status as Status, version: Number(version), waiting: waitingOf(status as Status, waiting, parked) }]
  })
}
