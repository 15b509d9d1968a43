/**
 * Who is let in next. Pure.
 *
 * | first | by |
 * | --- | --- |
 * | priority | 0…9, which rises by one with every `ageingMs` that a session waits, to 9 at most |
 * | API key | the one that was served least for its weight: its *share* is the sum of 1/weight over what was let in |
 * | model | one whose model a device has that could begin it: before others of its level and share, a few in a row |
 * | order | since when it waits |
 *
 * A key that had nothing waiting gets no credit for that time: its share counts from the *floor*, which is the least
 * share among the keys that wait (start-time fair queueing, Goyal et al. 1997).
 */

/** A step in a line. */
export interface Waiter {
  stepKey: string
  /** Since when it counts as waiting, by the time of its shard, and for how long that is. */
  order: number
  waitedMs: number
}

/** How many sessions of one API key with this concurrency key may be on devices at once. */
export interface Group {
  key: string
  limit: number
}

/** A session's concurrency key and limit as its record and its line have them; null: `-`. */
export function groupOf(text: string): Group | null {
  const [key = '', limit] = text.split('/')
  return limit === undefined ? null : { key, limit: Number(limit) }
}

/** The steps of one queue, priority, API key, group and model; `head`: as many of the longest waiting as were read. */
export interface Line {
  name: string
  shard: number
  queue: string
  priority: number
  /** `local` without API keys. */
  key: string
  group: Group | null
  /** The model that they draw with, in a word (`modelWord`). */
  model: string
  length: number
  head: readonly Waiter[]
}

export interface Shares {
  floor: number
  byKey: ReadonlyMap<string, number>
}

export interface TurnRules {
  ageingMs: number
  weightOf(key: string): number
}

/** One that is let in, and the shares from then on. */
export interface Choice {
  line: Line
  waiter: Waiter
  /** Its priority, with what waiting has added to it. */
  level: number
  share: number
  floor: number
  /** Whether one of its level and share waits longer. */
  passes: boolean
  /** Keys whose shares the floor has overtaken: they need no record. */
  overtaken: string[]
}

export const highestPriority = 9

/** Priority of what waits, with what waiting adds to it. */
export const risen = (priority: number, waitedMs: number, ageingMs: number): number =>
  Math.min(highestPriority, priority + Math.floor(Math.max(0, waitedMs) / ageingMs))

/** The lines as they empty from their heads. */
export class Turns {
  readonly #lines: { line: Line; at: number }[]
  readonly #rules: TurnRules
  readonly #shares: Map<string, number>
  #floor: number

  constructor(lines: readonly Line[], shares: Shares, rules: TurnRules) {
    this.#lines = lines.map((line) => ({ line, at: 0 }))
    this.#rules = rules
    this.#shares = new Map(shares.byKey)
    this.#floor = shares.floor
  }

  /** Takes out the next one whose line may let in; undefined when there is none, or what was read is used up. */
  next(mayEnter: (line: Line) => boolean, isNear: (line: Line) => boolean = () => false): Choice | undefined {
    const open = this.#lines.filter(({ line, at }) => at < line.head.length)
    const candidates = open.filter(({ line }) => mayEnter(line))
    if (candidates.length === 0) return undefined
    this.#floor = Math.max(this.#floor, Math.min(...open.map(({ line }) => this.#shareOf(line.key))))
    const ranked = candidates.map((from) => ({ from, ...this.#rank(from) })).toSorted(byRank)
    const [first] = ranked
    if (!first) return undefined
    const best = ranked.find((each) => each.level === first.level && each.share === first.share && isNear(each.from.line)) ?? first
    const { from, waiter, level } = best
    from.at++
    const { key } = from.line
    const share = this.#shareOf(key) + 1 / this.#rules.weightOf(key)
    this.#shares.set(key, share)
    const overtaken = [...this.#shares].flatMap(([name, other]) => (other < this.#floor ? [name] : []))
    for (const name of overtaken) this.#shares.delete(name)
    return { line: from.line, waiter, level, share, floor: this.#floor, passes: best !== first, overtaken }
  }

  #shareOf(key: string): number {
    return Math.max(this.#shares.get(key) ?? 0, this.#floor)
  }

  #rank({ line, at }: { line: Line; at: number }): Rank {
    const waiter = line.head[at] as Waiter
    return { waiter, level: risen(line.priority, waiter.waitedMs, this.#rules.ageingMs), share: this.#shareOf(line.key) }
  }
}

interface Rank {
  waiter: Waiter
  level: number
  share: number
}

const byRank = (a: Rank, b: Rank): number =>
  b.level - a.level || a.share - b.share || b.waiter.waitedMs - a.waiter.waitedMs || (a.waiter.stepKey < b.waiter.stepKey ? -1 : 1)
