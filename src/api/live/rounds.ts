/** The rounds of one group of connections: between two of them what changes is gathered. */
import type { Session } from '../../engine/session.ts'

/** Between two rounds, ms: a connection tells its caller no more often. */
export const paceMs = 200

export interface Records {
  /** As they are now; undefined for one that is not there. @throws DarkroomError `redis.unavailable` */
  get(ids: string[]): Promise<(Session | undefined)[]>
}

export interface Listener {
  /** Whether it would say now what it is told. */
  isFree(): boolean
  changed(ids: ReadonlySet<string>): void
  /** What it has shown may be old: it begins anew. */
  anew(): void
}

export class Rounds {
  /** After what others begin with, when something changes after a pause, ms: so groups do not speak at once. */
  readonly #afterMs: number
  readonly #records: Records
  readonly #listeners = new Set<Listener>()
  #pending = new Set<string>()
  #timer: NodeJS.Timeout | undefined
  #lastAt = Number.NEGATIVE_INFINITY

  /** @param share of the pace by which these rounds come after those of the first group, 0 to 1 */
  constructor(share: number, records: Records) {
    this.#afterMs = share * paceMs
    this.#records = records
  }

  get size(): number {
    return this.#listeners.size
  }

  join(listener: Listener): () => void {
    this.#listeners.add(listener)
    return () => {
      this.#listeners.delete(listener)
      if (this.#listeners.size === 0) this.clear()
    }
  }

  changed(id: string): void {
    if (this.#listeners.size === 0) return
    this.#pending.add(id)
    this.#timer ??= setTimeout(() => void this.#tell(), Math.max(this.#afterMs, this.#lastAt + paceMs - performance.now())).unref()
  }

  anew(): void {
    for (const listener of this.#listeners) listener.anew()
  }

  clear(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#pending.clear()
  }

  async #tell(): Promise<void> {
    this.#lastAt = performance.now()
    this.#timer = undefined
    const ids = this.#pending
    this.#pending = new Set()
    // A Redis that is away is asked again by the connections.
    if ([...this.#listeners].some((listener) => listener.isFree())) await this.#records.get([...ids]).catch(() => undefined)
    for (const listener of this.#listeners) listener.changed(ids)
  }
}
