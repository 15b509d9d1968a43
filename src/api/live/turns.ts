/**
 * Turns of many who would all speak at once, as after the same pause: some at a time, and requests are answered between
 * them.
 */
export class Turns {
  readonly #atOnce: number
  readonly #waiting: (() => void)[] = []

  constructor(atOnce: number) {
    this.#atOnce = atOnce
  }

  take(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#waiting.push(resolve) === 1) setImmediate(() => this.#next())
    })
  }

  #next(): void {
    for (const begin of this.#waiting.splice(0, this.#atOnce)) begin()
    if (this.#waiting.length > 0) setImmediate(() => this.#next())
  }
}
