/** Device leases and what workers publish about themselves. A worker is the only writer of its own record. */
import { DarkroomError } from './errors.ts'
import { keys } from './keys.ts'
import { ask, askAll, runScript, type Redis } from './redis.ts'

/** How long a record and a device lease live without their worker, ms. */
export const workerTtlMs = 5000

/** Writes a worker's record, to be repeated every second or two; it vanishes with the worker. */
export async function publishWorker(redis: Redis, id: string, record: object): Promise<void> {
  await askAll(redis.pipeline().psetex(keys.worker(id), workerTtlMs, JSON.stringify(record)).zadd(keys.workers(), String(Date.now()), id))
}

export async function withdrawWorker(redis: Redis, id: string): Promise<void> {
  await askAll(redis.pipeline().del(keys.worker(id)).zrem(keys.workers(), id))
}

/** Records of the workers that live now; forgets those whose record has expired. */
export async function readWorkers<Record>(redis: Redis): Promise<Record[]> {
  const ids = await ask(redis.zrange(keys.workers(), '0', '-1'))
  if (ids.length === 0) return []
  const texts = await ask(redis.mget(ids.map(keys.worker)))
  const dead = ids.filter((_, i) => texts[i] === null)
  if (dead.length > 0) await ask(redis.zrem(keys.workers(), dead))
  return texts.flatMap((text) => (text === null || text === undefined ? [] : [JSON.parse(text) as Record]))
}

/** Counts a session whose attempt this worker lost. */
export async function countLoss(redis: Redis, workerId: string, sessionId: string): Promise<void> {
  await askAll(redis.pipeline().sadd(keys.losses(workerId), sessionId).expire(keys.losses(workerId), 3600))
}

/** How many different sessions' attempts the worker has lost since it last completed a step. */
export const countLosses = (redis: Redis, workerId: string): Promise<number> => ask(redis.scard(keys.losses(workerId)))

/** The worker has completed a step: its losses do not count any more. */
export async function forgiveLosses(redis: Redis, workerId: string): Promise<void> {
  await ask(redis.del(keys.losses(workerId)))
}

/** A device held by one worker; `Symbol.asyncDispose` gives it back. */
export interface DeviceLease extends AsyncDisposable {
  /** False when another worker holds it: this one must stop using the device. */
  renew(): Promise<boolean>
}

/**
 * Takes the device for `owner`; `waits` up to one lease time for a dead worker's lease to end.
 * @throws DarkroomError `device.taken` when a living worker holds it.
 */
export async function leaseDevice(redis: Redis, deviceId: string, owner: string, waits: boolean): Promise<DeviceLease> {
  const hold = async (): Promise<boolean> =>
    (await runScript(redis, 'leaseDevice', keys.deviceLease(deviceId), [owner, workerTtlMs]))[0] === 'ok'
  const until = waits ? performance.now() + workerTtlMs + 1000 : 0
  while (!(await hold())) {
    if (performance.now() > until) throw new DarkroomError('device.taken', `device ${deviceId} is owned by another living worker`)
    await new Promise((resolve) => setTimeout(resolve, 250))
  }
  return {
    renew: hold,
    [Symbol.asyncDispose]: async () => void (await runScript(redis, 'leaseDevice', keys.deviceLease(deviceId), [owner, 0])),
  }
}
