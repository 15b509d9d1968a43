/**
 * How many sessions may be on devices at a time, of one API key and of one concurrency key, and how long in a day.
 * Pure: what is counted are slots, so a holder that dies is counted no longer, and what attempts that have ended took.
 */
import type { Holder } from './slots.ts'
import type { Line } from './turns.ts'

/** Of each API key; 0 is no limit. */
export interface KeyLimits {
  atOnce: number
  deviceS: number
}

export class Ceilings {
  readonly #limits: KeyLimits
  /** How long each API key has had devices today, ms. */
  readonly #usedMs: ReadonlyMap<string, number>
  readonly #counts = new Map<string, Set<string>>()

  constructor(holders: readonly Holder[], { atOnce, deviceS }: KeyLimits, usedMs: ReadonlyMap<string, number> = new Map()) {
    this.#limits = { atOnce: atOnce || Infinity, deviceS: deviceS || Infinity }
    this.#usedMs = usedMs
    for (const { stepKey, key, group } of holders) this.#count(stepKey, key, group)
  }

  /** Why a line may let nobody in; undefined when it may. */
  reached({ key, group }: Pick<Line, 'key' | 'group'>): string | undefined {
    const { atOnce, deviceS } = this.#limits
    if (this.#size(key) >= atOnce) return `its API key has ${atOnce} on devices, as many as it may (DARKROOM_KEY_AT_ONCE)`
    if ((this.#usedMs.get(key) ?? 0) >= deviceS * 1000)
      return `its API key has had devices for ${deviceS} s today, as long as it may (DARKROOM_KEY_DEVICE_S); the day ends at midnight UTC`
    if (group && this.#size(`${key} ${group.key}`) >= group.limit)
      return `${group.limit} with the concurrency key ${group.key} are on devices, as many as it allows`
    return undefined
  }

  enter(stepKey: string, { key, group }: Pick<Line, 'key' | 'group'>): void {
    this.#count(stepKey, key, group?.key ?? null)
  }

  #count(stepKey: string, key: string, group: string | null): void {
    const session = stepKey.slice(0, stepKey.indexOf('.'))
    for (const name of group === null ? [key] : [key, `${key} ${group}`])
      this.#counts.set(name, (this.#counts.get(name) ?? new Set()).add(session))
  }

  #size(name: string): number {
    return this.#counts.get(name)?.size ?? 0
  }
}
