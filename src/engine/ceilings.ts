/**
 * How many sessions may be on devices at a time, of one API key and of one concurrency key. Pure: what is counted are
 * slots, so a holder that dies is counted no longer.
 */
import type { Holder } from './slots.ts'
import type { Line } from './turns.ts'

export class Ceilings {
  readonly #ofKey: number
  readonly #counts = new Map<string, Set<string>>()

  /** `ofKey`: of each API key; 0 is no limit. */
  constructor(holders: readonly Holder[], ofKey: number) {
    this.#ofKey = ofKey === 0 ? Infinity : ofKey
    for (const { stepKey, key, group } of holders) this.#count(stepKey, key, group)
  }

  /** Why a line may let nobody in; undefined when it may. */
  reached({ key, group }: Pick<Line, 'key' | 'group'>): string | undefined {
    if (this.#size(key) >= this.#ofKey) return `its API key has ${this.#ofKey} on devices, as many as it may (DARKROOM_KEY_AT_ONCE)`
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
