/** Device leases and what workers publish about themselves. A worker is the only writer of its own record. */
import { DarkroomError } from './errors.ts'
import { keys } from './keys.ts'
import { ask, askAll, runScript, type Redis } from './redis.ts'

/** How long a record and a device lease live without their worker, ms. */
export const workerTtlMs = 5000

/** Nobody believes in a worker that was not heard for so long, ms. */
const desertedMs = 3 * workerTtlMs

/** Writes a worker's record, and which queues it serves, to be repeated every second or two; it vanishes with the worker. */
export async function publishWorker(redis: Redis, id: string, record: object, served: string[]): Promise<void> {
  const pipeline = redis
    .pipeline()
    .psetex(keys.worker(id), workerTtlMs, JSON.stringify(record))
    .zadd(keys.workers(), String(Date.now()), id)
  for (const queue of served) pipeline.psetex(keys.served(queue), desertedMs, '1').sadd(keys.queues(), queue)
  await askAll(pipeline)
}

/** Queues whose workers are all gone: each is handed to one caller, who removes it and then says so with `forgetQueue`. */
export async function claimDeserted(redis: Redis): Promise<string[]> {
  const names = await ask(redis.smembers(keys.queues()))
  if (names.length === 0) return []
  const served = await ask(redis.mget(names.map(keys.served)))
  const claims = names
    .filter((_, i) => served[i] === null)
    .map(async (name) => {
      return (await ask(redis.set(keys.served(name), '', 'PX', desertedMs, 'NX'))) === null ? [] : [name]
    })
  return (await Promise.all(claims)).flat()
}

export async function forgetQueue(redis: Redis, name: string): Promise<void> {
  await ask(redis.srem(keys.queues(), name))
}

export async function withdrawWorker(redis: Redis, id: string): Promise<void> {
  await askAll(redis.pipeline().del(keys.worker(id)).zrem(keys.workers(), id))
}

/** How long analytics of a device's memory stay after their worker, ms. */
const analyticsTtlMs = 60_000

/** Writes what a worker has seen of its device's memory, to be repeated every few seconds. */
export async function publishAnalytics(redis: Redis, deviceId: string, analytics: object): Promise<void> {
  await ask(redis.psetex(keys.deviceMemory(deviceId), analyticsTtlMs, JSON.stringify(analytics)))
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

/** What was noted last of each device that is here, by its id, as text. */
export const readKnownDevices = (redis: Redis): Promise<Record<string, string>> => ask(redis.hgetall(keys.devices()))

/**
 * Notes how a device is now (`after`; '' it has gone), with its events as JSON objects without number and time.
 * @returns false when somebody noted something else than `before` meanwhile: then nothing was written
 */
export async function recordDevice(
  redis: Redis,
  device: string,
  { before, after, events, most }: { before: string; after: string; events: object[]; most: number },
): Promise<boolean> {
  const entries = events.map((event) => JSON.stringify(event).slice(1, -1))
  return (await runScript(redis, 'recordDevice', keys.devices(), [device, before, after, most, ...entries]))[0] === 'ok'
}

/** Device events after the one numbered `after`, oldest first; the newest ones where `after` is undefined. At most `limit`. */
export async function readDeviceEvents<Event>(redis: Redis, after: number | undefined, limit: number): Promise<Event[]> {
  const events = keys.deviceEvents()
  const texts =
    after === undefined
      ? await ask(redis.zrange(events, String(-limit), '-1'))
      : await ask(redis.zrangebyscore(events, `(${after}`, '+inf', 'LIMIT', 0, limit))
  return texts.map((text) => JSON.parse(text) as Event)
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
