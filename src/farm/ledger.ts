/** Device leases, reservations, and what workers publish about themselves. A worker is the only writer of its own record. */
import { keys } from '../keys.ts'
import { ask, askAll, runScript, type Redis } from '../redis.ts'
import { memoryError } from '../domains/memory/errors.ts'
import { deviceError } from '../domains/device/errors.ts'

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
    if (performance.now() > until) throw deviceError('taken', `device ${deviceId} is owned by another living worker`)
    await new Promise((resolve) => setTimeout(resolve, 250))
  }
  return {
    renew: hold,
    [Symbol.asyncDispose]: async () => void (await runScript(redis, 'leaseDevice', keys.deviceLease(deviceId), [owner, 0])),
  }
}

/** How long a reservation outlives its worker, ms. */
const reservationMs = 5000
/** How often one that waits asks again, and how long its place is kept meanwhile, ms. */
const askAgainMs = 100
const placeMs = 2000

/** What an attempt needs of a device, all or nothing. Bytes; `priority` 0 to 9, higher goes first. */
export interface Need {
  slots: number
  bytes: number
  /** Kept resident, and counted once however many reserve it. */
  model: string | null
  modelBytes: number
  priority: number
}

/** What there is to reserve, by the worker's own figures; `bytes` null when nobody knows. */
export interface Capacity {
  slots: number
  bytes: number | null
}

/** What one owner holds of a device; `Symbol.asyncDispose` gives it back. */
export interface Reservation extends AsyncDisposable {
  /** False when its time was over and somebody else has counted it as free. */
  renew(): Promise<boolean>
}

export interface ReserveOptions {
  device: string
  worker: string
  /** An attempt: nobody else can renew it or give it back. */
  owner: string
  need: Need
  /** Asked anew at each try. */
  capacity(): Capacity
  /** How long it may wait for others, ms. */
  waitMs: number
  signal?: AbortSignal
}

/**
 * Reserves a slot, memory and a model of a device. Waits for those who hold it, and behind those of higher priority; nothing is taken from
 * anybody before its time.
 * @throws DarkroomError `memory.reserved` when it has waited, or was stopped; `memory.exhausted` for more than there is
 */
export async function reserve(redis: Redis, options: ReserveOptions): Promise<Reservation> {
  const { device, worker, owner, need, signal } = options
  const key = keys.reservations(device)
  const until = performance.now() + options.waitMs
  const hold = async (ms: number): Promise<boolean> => (await runScript(redis, 'holdReservation', key, [owner, ms]))[0] === 'ok'
  for (;;) {
    const { slots, bytes } = options.capacity()
    const asked = [need.slots, need.bytes, need.model ?? '', need.modelBytes, need.priority]
    const [is, slotsFree, bytesFree, first] = await runScript(redis, 'reserveDevice', key, [
      owner,
      ...asked,
      worker,
      slots,
      bytes ?? '',
      reservationMs,
      placeMs,
    ])
    // A Redis that is away is not waited for: what was reserved ends by its time.
    const release = async (): Promise<void> => void (await hold(0).catch(() => undefined))
    if (is === 'reserved') return { renew: () => hold(reservationMs), [Symbol.asyncDispose]: release }
    const free = { slots: Number(slotsFree), bytes: bytesFree === '' ? null : Number(bytesFree) }
    const wanted = `${need.slots} slots and ${need.bytes + need.modelBytes} bytes`
    const has = `${free.slots} slots and ${free.bytes ?? 'an unknown number of'} bytes free`
    if (is === 'exhausted')
      throw memoryError('exhausted', `${wanted} of ${device} are more than there is: it has ${has}`, {
        details: { need, free },
      })
    if (signal?.aborted || performance.now() > until) {
      await release()
      const others = Number(first) > 0 ? `, and ${Number(first)} with a better claim wait` : ''
      throw memoryError('reserved', `${wanted} of ${device} are reserved: it has ${has}${others}`, { details: { need, free } })
    }
    await new Promise((resolve) => setTimeout(resolve, askAgainMs))
  }
}
