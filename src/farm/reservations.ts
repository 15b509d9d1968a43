/** Reservations: what attempts hold of a device (a slot, memory, a model), all or nothing. */
import { setTimeout as delay } from 'node:timers/promises'
import { memoryError } from '../domains/memory/errors.ts'
import { keys } from '../keys.ts'
import { runScript, type Redis } from '../redis.ts'

/** How long a reservation outlives its worker, ms. */
const reservationMs = 5000
/** How often a waiting attempt asks again, and how long its place in the line is kept meanwhile, ms. */
const retryMs = 100
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

/** What there is to reserve, by the worker's own figures; `bytes` is null when they are unknown. */
export interface Capacity {
  slots: number
  bytes: number | null
}

/** What one owner holds of a device; `Symbol.asyncDispose` gives it back. */
export interface Reservation extends AsyncDisposable {
  /** False when its time was over and another owner has counted it as free. */
  renew(): Promise<boolean>
}

export interface ReserveOptions {
  device: string
  worker: string
  /** An attempt: no other one can renew it or give it back. */
  owner: string
  need: Need
  /** Asked anew at each try. */
  capacity(): Capacity
  /** How long it may wait for others, ms. */
  waitMs: number
  signal?: AbortSignal
}

/**
 * Reserves a slot, memory and a model of a device. Waits for those who hold it, and behind those of higher priority; a
 * reservation is never taken from its owner before its time.
 * @throws DarkroomError `memory.reserved` when it has waited, or was stopped; `memory.exhausted` for more than there is
 */
export async function reserve(redis: Redis, options: ReserveOptions): Promise<Reservation> {
  const { device, owner, signal } = options
  const key = keys.reservations(device)
  const until = performance.now() + options.waitMs
  const hold = async (ms: number): Promise<boolean> => (await runScript(redis, 'holdReservation', key, [owner, ms]))[0] === 'ok'
  // A Redis that is away is not waited for: a reservation ends by its time.
  const release = async (): Promise<void> => void (await hold(0).catch(() => undefined))
  for (;;) {
    const answer = await tryReserve(redis, key, options)
    if (answer.is === 'reserved') return { renew: () => hold(reservationMs), [Symbol.asyncDispose]: release }
    if (answer.is === 'exhausted') throw refusal('exhausted', options, answer)
    if (signal?.aborted || performance.now() > until) {
      await release()
      throw refusal('reserved', options, answer)
    }
    await delay(retryMs)
  }
}

interface Refused {
  is: 'waits' | 'exhausted'
  free: Capacity
  /** How many that wait go first. */
  ahead: number
}

async function tryReserve(redis: Redis, key: string, options: ReserveOptions): Promise<{ is: 'reserved' } | Refused> {
  const { need, owner, worker } = options
  const { slots, bytes } = options.capacity()
  const asked = [need.slots, need.bytes, need.model ?? '', need.modelBytes, need.priority]
  const there = [slots, bytes ?? '']
  const reply = await runScript(redis, 'reserveDevice', key, [owner, ...asked, worker, ...there, reservationMs, placeMs])
  const [is, slotsFree, bytesFree, ahead] = reply
  if (is === 'reserved') return { is }
  const free = { slots: Number(slotsFree), bytes: bytesFree === '' ? null : Number(bytesFree) }
  return { is: is === 'exhausted' ? is : 'waits', free, ahead: Number(ahead ?? 0) }
}

function refusal(reason: 'reserved' | 'exhausted', { device, need }: ReserveOptions, { ahead, free }: Refused): Error {
  const wanted = `${need.slots} slots and ${need.bytes + need.modelBytes} bytes of ${device}`
  const has = `it has ${free.slots} slots and ${free.bytes ?? 'an unknown number of'} bytes free`
  const others = ahead > 0 ? `, and ${ahead} with a better claim wait` : ''
  const message = reason === 'exhausted' ? `${wanted} are more than there is: ${has}` : `${wanted} are reserved: ${has}${others}`
  return memoryError(reason, message, { details: { need, free } })
}
