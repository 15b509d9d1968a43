/**
 * Memory that is promised before it is used. The system counts a page only when it is written, so two workers, or two
 * allocations of one, could be promised the same RAM, and the kernel would kill one of them later. So what is promised
 * counts: of the host's RAM all that its workers have promised together and nobody has touched yet, and of an API key
 * all that it holds in the farm.
 */
import type { AllocationInfo } from '../../domains/device-memory.ts'
import { memoryError } from '../../domains/memory/errors.ts'
import type { Booked, Booking } from '../../farm/bookings.ts'
import type { OwnDevice } from './open.ts'

export interface PromisedOptions {
  own: OwnDevice
  /** Books what this worker holds, and asks for more, of the RAM that all workers of its host share. */
  bookRam(booking: Booking): Promise<Booked>
  /** The same of what one API key may hold in the farm. */
  bookKey(principal: string, booking: Booking): Promise<Booked>
  /** Maximum of what an API key may hold in the farm, bytes; 0 is no limit. */
  keyQuota: number
  /** Whose an owner's allocations are: `key:<id>`, or `key:local`. */
  principal(owner: string): Promise<string>
  /** Bytes of RAM that steps have reserved and not taken yet. */
  reserved(): number
}

/** An allocation that is asked for. */
interface Asked {
  bytes: number
  owner: string
  isRam: boolean
  /** Bytes of RAM that are free now. */
  free: number
}

/** Of the RAM that is free, this share stays: figures are a second old, and the system needs some itself. */
const spare = 0.02

export class PromisedMemory {
  readonly #options: PromisedOptions
  /** What is asked for and not made yet. */
  readonly #asked = new Set<{ bytes: number; isRam: boolean; principal: string }>()
  /** What is being taken, each with what is left of it. */
  readonly #taking = new Set<() => number>()
  /** Whose the allocations are, by id. */
  readonly #principals = new Map<number, string>()
  /** RAM of this process before anything was allocated, and now. */
  readonly #baseBytes = ownBytes()
  /** Who had something booked of a quota when it was last renewed, or since. */
  readonly #booked = new Set<string>()
  #renewing: Promise<void> | undefined
  #othersRam = 0
  #booking: Promise<void> = Promise.resolve()

  constructor(options: PromisedOptions) {
    this.#options = options
  }

  /** Bytes of the host's RAM that all its workers have promised and nobody has touched. */
  get ram(): number {
    return this.#othersRam + this.#ownRam()
  }

  /**
   * Makes an allocation of what is not promised to others.
   * @throws DarkroomError `memory.quota`, `memory.exhausted`, and what `make` throws
   */
  async keep<T extends AllocationInfo>({ bytes, free, isRam, owner }: Asked, make: () => Promise<T>): Promise<T> {
    const principal = await this.#options.principal(owner)
    const asked = { bytes, isRam, principal }
    try {
      await this.#inTurn(async () => {
        this.#booked.add(principal)
        await this.#bookQuota(principal, bytes)
        if (isRam) await this.#bookRam(bytes, free)
        this.#asked.add(asked)
      })
      const made = await make()
      this.#principals.set(made.id, principal)
      return made
    } finally {
      this.#asked.delete(asked)
    }
  }

  /**
   * Books RAM that `act` takes bit by bit: `left` of it is promised, and not taken yet.
   * @throws DarkroomError `memory.exhausted`, and what `act` throws
   */
  async taking<T>(bytes: number, free: number, left: () => number, act: () => Promise<T>): Promise<T> {
    await this.#inTurn(async () => {
      await this.#bookRam(bytes, free)
      this.#taking.add(left)
    })
    try {
      return await act()
    } finally {
      this.#taking.delete(left)
    }
  }

  /** Books what is held now. To be called every second: bookings end by themselves. */
  renew(): Promise<void> {
    this.#renewing ??= this.#inTurn(() => this.#renew()).finally(() => (this.#renewing = undefined))
    return this.#renewing
  }

  async #renew(): Promise<void> {
    const live = this.#live()
    const before = new Set(this.#booked)
    this.#booked.clear()
    for (const [id, principal] of this.#principals)
      if (live.has(id)) this.#booked.add(principal)
      else this.#principals.delete(id)
    await this.#bookRam(0, 0)
    // Those who hold nothing any more too, once: what they had is theirs to ask for again.
    for (const principal of new Set([...before, ...this.#booked])) await this.#bookQuota(principal, 0)
  }

  /** One booking after another: each replaces the one before, and must know what that asked for. */
  #inTurn(book: () => Promise<void>): Promise<void> {
    const booked = this.#booking.then(book)
    this.#booking = booked.catch(() => undefined)
    return booked
  }

  async #bookRam(more: number, free: number): Promise<void> {
    const held = this.#ownRam()
    const { isBooked, others } = await this.#options.bookRam({ held, more, limit: more === 0 ? 0 : free * (1 - spare) })
    this.#othersRam = others
    if (isBooked) return
    const promised = held + others
    throw memoryError(
      'exhausted',
      `${more} bytes do not fit into system RAM: it has ${free} bytes free, of which ${promised} are promised already`,
      {
        field: 'bytes',
        details: { need: more, free, promised },
        remedy: 'Release allocations on this host, or ask for fewer bytes.',
      },
    )
  }

  /** Nobody limits this machine's own user. */
  async #bookQuota(principal: string, more: number): Promise<void> {
    const { keyQuota: limit } = this.#options
    if (principal === 'key:local' || limit === 0) return
    const held = this.#heldBy(principal)
    const { isBooked, others } = await this.#options.bookKey(principal, { held, more, limit })
    if (isBooked) return
    throw memoryError('quota', `${more} bytes more pass the quota of ${limit} bytes of this API key, which holds ${held + others}`, {
      field: 'bytes',
      details: { need: more, held: held + others, quota: limit },
    })
  }

  #live(): Map<number, AllocationInfo> {
    return new Map(this.#options.own.memory.list().map((info) => [info.id, info]))
  }

  #heldBy(principal: string): number {
    const live = this.#live()
    const made = [...this.#principals].reduce((sum, [id, whose]) => sum + (whose === principal ? (live.get(id)?.bytes ?? 0) : 0), 0)
    return [...this.#asked].reduce((sum, each) => sum + (each.principal === principal ? each.bytes : 0), made)
  }

  /** What this worker has promised of the host's RAM and nobody has touched: the books, less what the process grew. */
  #ownRam(): number {
    const { index, memory } = this.#options.own
    const { pinned, reserved } = memory.usage(index ?? 0)
    const held = pinned + (memory.backend === 'host' ? reserved : 0)
    const asked = [...this.#asked].reduce((sum, { bytes, isRam }) => sum + (isRam ? bytes : 0), 0)
    const touched = Math.max(0, ownBytes() - this.#baseBytes)
    const taking = [...this.#taking].reduce((sum, left) => sum + left(), 0)
    return Math.max(0, held - touched) + asked + taking + this.#options.reserved()
  }
}

/** RAM that this process has touched beside JavaScript's heap. */
function ownBytes(): number {
  const { heapTotal, rss } = process.memoryUsage()
  return rss - heapTotal
}
