/**
 * Bytes of pools that several workers share: each books what it has promised, and asks before it promises more. A pool
 * is the RAM of a host, or what one API key may hold in the farm.
 */
import { runScript, type Redis } from '../redis.ts'

/** How long a booking outlives its worker, ms; it is renewed every second. */
const bookingMs = 5000

export interface Booking {
  /** Bytes that the holder has promised already. */
  held: number
  /** Bytes that it asks for now; 0 renews. */
  more: number
  /** Bytes that there are for all; `more` is refused beyond them. */
  limit: number
}

/** `others`: bytes that the other holders have booked. */
export interface Booked {
  isBooked: boolean
  others: number
}

/** Books what a holder has and asks for, at once for all holders of the pool. */
export async function bookMemory(redis: Redis, pool: string, holder: string, { held, more, limit }: Booking): Promise<Booked> {
  const [is, others] = await runScript(redis, 'bookMemory', pool, [holder, held, more, Math.floor(limit), bookingMs])
  return { isBooked: is === 'booked', others: Number(others) }
}
