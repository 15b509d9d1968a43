/** When a process that ended is started again. */
const backoffMs = { first: 200, longest: 10_000 }
/** A life is long when the process was ready for so long, ms. */
const longLifeMs = 2000

/**
 * Starts something again: at once after a long life, whatever ended it; after short ones, one after another, in 0.2 s,
 * then after twice as long each time, 10 s at most. So what is killed again and again is away no longer than its start
 * takes, and what cannot live does not keep the machine busy.
 */
export class Backoff {
  #shortLives = 0
  #timer: NodeJS.Timeout | undefined

  /** `readyMs`: how long it was ready, 0 for never. Returns the milliseconds until `work` runs. */
  again(readyMs: number, work: () => void): number {
    const isLong = readyMs >= longLifeMs
    this.#shortLives = isLong ? 0 : this.#shortLives + 1
    const ms = isLong ? 0 : Math.min(backoffMs.longest, backoffMs.first * 2 ** (this.#shortLives - 1))
    this.#timer = setTimeout(work, ms)
    return ms
  }

  cancel(): void {
    clearTimeout(this.#timer)
  }
}
