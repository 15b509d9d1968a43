/**
 * Workers that are there: each publishes its own record, the queues that it serves and its memory's analytics, and is
 * their only writer.
 */
import { keys } from '../keys.ts'
import { runScript, translated, translatedAll, type Redis } from '../redis.ts'
import type { HeardWorker, WorkerRecord } from './record.ts'

/** How long a record counts without its worker, ms. */
const recordMs = 5000
/** How long a queue counts as served after its workers were last there, ms. */
const servedMs = 3 * recordMs
/** Queues without a worker that are handed to one caller at most. */
const maxDeserted = 100
/** How long analytics of a device's memory stay after their worker, ms. */
const analyticsMs = 60_000
/** How long losses count that no completed step has cleared, s. */
const lossesS = 3600

/**
 * Writes a worker's record, and which queues it serves. To be repeated every second or two: it ends with the worker.
 */
export async function publishWorker(redis: Redis, record: WorkerRecord, served: string[]): Promise<void> {
  await runScript(redis, 'publishWorker', keys.workers(), [record.id, JSON.stringify(record), recordMs, servedMs, ...served])
}

/** Removes the record of a worker that leaves. */
export async function withdrawWorker(redis: Redis, id: string): Promise<void> {
  await translatedAll(redis.pipeline().del(keys.worker(id)).zrem(keys.workers(), id))
}

/** Records of the workers that live now, with their age by the farm's time. Removes those whose time is over. */
export async function readWorkers(redis: Redis): Promise<HeardWorker[]> {
  const [, now, ...found] = await runScript(redis, 'readWorkers', keys.workers(), [])
  return found.flatMap((until, i) => {
    const text = found[i + 1]
    if (i % 2 === 1 || typeof text !== 'string' || text === '') return []
    return [{ ...(JSON.parse(text) as WorkerRecord), ageMs: Math.max(0, Number(now) - (Number(until) - recordMs)) }]
  })
}

/** Writes what a worker has seen of its device's memory over time. To be repeated every few seconds. */
export async function publishAnalytics(redis: Redis, deviceId: string, analytics: object): Promise<void> {
  await translated(redis.psetex(keys.deviceMemory(deviceId), analyticsMs, JSON.stringify(analytics)))
}

/** Queues whose workers are all gone. Each is handed to one caller, who removes it and then calls `forgetQueue`. */
export async function claimDeserted(redis: Redis): Promise<string[]> {
  return (await runScript(redis, 'claimDue', keys.serving(), [maxDeserted, servedMs])) as unknown as string[]
}

export async function forgetQueue(redis: Redis, name: string): Promise<void> {
  await translated(redis.zrem(keys.serving(), name))
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
