/** The farm in numbers: what there is now, and what has been since its first day. */
import { keys } from '../keys.ts'
import { translated, translatedAll, type Redis } from '../redis.ts'
import { statuses, type Status } from './session.ts'

/** Sums over all shards. */
export interface Counts {
  sessions: Record<Status, number>
  /** Entries of the due lists: due now, or later. */
  due: { outbox: number; timers: number; leases: number }
  /** Webhooks that are still to be told something. */
  webhooks: number
  /** Sessions made and ended, and leases that ended without their attempt, since there are these counts. */
  totals: { created: number; succeeded: number; failed: number; cancelled: number; recovered: number }
  /** Bytes; `limit` 0: none. */
  redis: { used: number; limit: number }
}

export async function readCounts(redis: Redis, shards: number): Promise<Counts> {
  const pipeline = redis.pipeline()
  for (let shard = 0; shard < shards; shard++) {
    for (const status of statuses) pipeline.zcard(keys.index(shard, 'status', status))
    for (const list of dueLists) pipeline.zcard(keys[list](shard))
    pipeline.zcard(keys.dueWebhooks(shard)).hgetall(keys.totals(shard))
  }
  const [answers, info] = await Promise.all([translatedAll(pipeline), translated(redis.info('memory'))])
  const each = statuses.length + dueLists.length + 2
  const sum = (place: number): number => Array.from({ length: shards }, (_, i) => Number(answers[i * each + place])).reduce(add, 0)
  const total = (name: string): number =>
    Array.from({ length: shards }, (_, i) => Number((answers[(i + 1) * each - 1] as Record<string, string>)[name] ?? 0)).reduce(add, 0)
  const bytes = (name: string): number => Number(new RegExp(`^${name}:(\\d+)`, 'm').exec(info)?.[1] ?? 0)
  const due = dueLists.map((list, i) => [list, sum(statuses.length + i)] as const)
  return {
    sessions: Object.fromEntries(statuses.map((status, i) => [status, sum(i)])) as Record<Status, number>,
    due: Object.fromEntries(due) as Counts['due'],
    webhooks: sum(statuses.length + dueLists.length),
    totals: Object.fromEntries(totalNames.map((name) => [name, total(name)])) as Counts['totals'],
    redis: { used: bytes('used_memory'), limit: bytes('maxmemory') },
  }
}

const dueLists = ['outbox', 'timers', 'leases'] as const
const totalNames = ['created', 'succeeded', 'failed', 'cancelled', 'recovered'] as const
const add = (a: number, b: number): number => a + b
