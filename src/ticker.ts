/** Repeats a turn with a pause between two; a failed turn is reported and does not stop the next. */
export class Ticker {
  readonly #tick: () => void
  readonly #pauseMs: number
  #timer: NodeJS.Timeout | undefined
  #running: Promise<void> = Promise.resolve()
  #isStopped = false

  constructor(pauseMs: number, turn: () => Promise<void>, failed: (error: unknown) => void) {
    this.#pauseMs = pauseMs
    this.#tick = () => {
      this.#running = turn()
        .catch(failed)
        .finally(() => {
          if (!this.#isStopped) this.start()
        })
    }
  }

  /** A long turn looks here between its parts. */
  get isStopped(): boolean {
    return this.#isStopped
  }

  start(): void {
    // No process lives on for the next turn alone.
    this.#timer = setTimeout(this.#tick, this.#pauseMs).unref()
  }

  /** Resolves when the turn that runs has ended. */
  async stop(): Promise<void> {
    this.#isStopped = true
    clearTimeout(this.#timer)
    await this.#running
  }
}
