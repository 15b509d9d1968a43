/**
 * The event streams and waits that each API key has open, in all APIs of the farm together. Each is a lease in Redis
 * that its process prolongs while it is open, so what a killed API had open is free again after one lease. While it is
 * open, it also learns that its caller would be let in no more.
 */
import { randomUUID } from 'node:crypto'
import { counted, limitReached, mostOf, type Limits } from '../limits.ts'
import type { KeyStore } from '../api-keys.ts'
import { keys as redisKeys } from '../keys.ts'
import type { Logger } from '../log.ts'
import { runScript, translated, type Redis } from '../redis.ts'
import { Ticker } from '../ticker.ts'

const leaseMs = 5000
/** A revoked key's streams and waits end after one such pause and a question to Redis. */
const lookMs = 500

type Kind = 'streams' | 'waits'

/** An open stream or wait. */
export interface Slot {
  /** Aborted when its key is revoked, or the farm is closed to callers without a key. */
  shut: AbortSignal
  release(): void
}

export interface SlotsParts {
  redis: Redis
  keys: KeyStore
  limits: Limits
  log: Logger
}

export class Slots {
  readonly #parts: SlotsParts
  readonly #open = new Map<string, { kind: Kind; keyId: string | null; shut: AbortController }>()
  readonly #ticker: Ticker

  constructor(parts: SlotsParts) {
    this.#parts = parts
    this.#ticker = new Ticker(
      lookMs,
      () => this.#look(),
      (error) => parts.log.debug({ err: error }, 'open streams and waits are looked at again'),
    )
    this.#ticker.start()
  }

  /** @throws DarkroomError `limit.streams`, `limit.waits`, `redis.unavailable` */
  async take(kind: Kind, keyId: string | null): Promise<Slot> {
    const { redis, limits, log } = this.#parts
    const most = mostOf(limits, kind, keyId)
    const key = redisKeys.slots(kind, counted(keyId))
    const id = randomUUID()
    const [is] = await runScript(redis, 'takeSlot', key, [id, leaseMs, most === Infinity ? '' : most])
    if (is === 'full') throw limitReached(kind, keyId, most)
    const shut = new AbortController()
    this.#open.set(id, { kind, keyId, shut })
    const release = (): void => {
      if (!this.#open.delete(id)) return
      translated(redis.zrem(key, id)).catch((error: unknown) => log.debug({ err: error }, 'a slot is free when its lease ends'))
    }
    return { shut: shut.signal, release }
  }

  async #look(): Promise<void> {
    if (this.#open.size === 0) return
    const { redis, keys } = this.#parts
    const held = new Map<string, string[]>()
    for (const [id, { kind, keyId }] of this.#open) {
      const key = redisKeys.slots(kind, counted(keyId))
      held.set(key, [...(held.get(key) ?? []), id])
    }
    const holding = [...held].map(([key, ids]) => runScript(redis, 'holdSlots', key, [leaseMs, ids.join(' ')]))
    const callers = [...new Set([...this.#open.values()].map(({ keyId }) => keyId))]
    const [gone] = await Promise.all([keys.shutOut(callers), ...holding])
    for (const { keyId, shut } of this.#open.values()) if (gone.has(keyId)) shut.abort()
  }

  close(): Promise<void> {
    return this.#ticker.stop()
  }
}
