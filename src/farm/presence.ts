/**
 * Workers that are there: each publishes its own record, the queues that it serves and its memory's analytics, and is
 * their only writer.
 */
import { keys } from '../keys.ts'
import { translated, translatedAll, type Redis } from '../redis.ts'
import type { WorkerRecord } from './record.ts'

/** How long a record lives without its worker, ms. */
const recordMs = 5000
/** How long a queue counts as served after its workers were last there, ms. */
const servedMs = 3 * recordMs
/** How long analytics of a device's memory stay after their worker, ms. */
const analyticsMs = 60_000
/** How long losses count that no completed step has cleared, s. */
const lossesS = 3600

/**
 * Writes a worker's record, and which queues it serves. To be repeated every second or two: it expires with the worker.
 */
export async function publishWorker(redis: Redis, record: WorkerRecord, served: string[]): Promise<void> {
  const pipeline = redis
    .pipeline()
    .psetex(keys.worker(record.id), recordMs, JSON.stringify(record))
    .zadd(keys.workers(), String(Date.now()), record.id)
  for (const queue of served) pipeline.psetex(keys.served(queue), servedMs, '1').sadd(keys.queues(), queue)
  await translatedAll(pipeline)
}

/** Removes the record of a worker that leaves. */
export async function withdrawWorker(redis: Redis, id: string): Promise<void> {
  await translatedAll(redis.pipeline().del(keys.worker(id)).zrem(keys.workers(), id))
}

/** Records of the workers that live now. Removes the ids of those whose record has expired. */
export async function readWorkers(redis: Redis): Promise<WorkerRecord[]> {
  const ids = await translated(redis.zrange(keys.workers(), '0', '-1'))
  if (ids.length === 0) return []
  const texts = await translated(redis.mget(ids.map(keys.worker)))
  const dead = ids.filter((_, i) => texts[i] === null)
  if (dead.length > 0) await translated(redis.zrem(keys.workers(), dead))
  return texts.flatMap((text) => (text === null || text === undefined ? [] : [JSON.parse(text) as WorkerRecord]))
}

/** Writes what a worker has seen of its device's memory over time. To be repeated every few seconds. */
export async function publishAnalytics(redis: Redis, deviceId: string, analytics: object): Promise<void> {
  await translated(redis.psetex(keys.deviceMemory(deviceId), analyticsMs, JSON.stringify(analytics)))
}

/** Queues whose workers are all gone. Each is handed to one caller, who removes it and then calls `forgetQueue`. */
export async function claimDeserted(redis: Redis): Promise<string[]> {
  const names = await translated(redis.smembers(keys.queues()))
  if (names.length === 0) return []
  const served = await translated(redis.mget(names.map(keys.served)))
  const claims = names
    .filter((_, i) => served[i] === null)
    .map(async (name) => ((await translated(redis.set(keys.served(name), '', 'PX', servedMs, 'NX'))) === null ? [] : [name]))
  return (await Promise.all(claims)).flat()
}

export async function forgetQueue(redis: Redis, name: string): Promise<void> {
  await translated(redis.srem(keys.queues(), name))
}

/** Counts a session whose attempt this worker lost. */
export async function countLoss(redis: Redis, workerId: string, sessionId: string): Promise<void> {
  await translatedAll(redis.pipeline().sadd(keys.losses(workerId), sessionId).expire(keys.losses(workerId), lossesS))
}

/** How many different sessions' attempts the worker has lost since it last completed a step. */
export const countLosses = (redis: Redis, workerId: string): Promise<number> => translated(redis.scard(keys.losses(workerId)))

/** The worker has completed a step: its losses do not count any more. */
export async function forgiveLosses(redis: Redis, workerId: string): Promise<void> {
  await translated(redis.del(keys.losses(workerId)))
}
