/**
 * Repeats a turn, with a pause between the end of one and the start of the next. A turn that fails is reported, and the
 * next one comes all the same.
 */
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

  /** For a long turn, to end early. */
  get isStopped(): boolean {
    return this.#isStopped
  }

  start(): void {
    // The next turn alone does not keep a process running.
    this.#timer = setTimeout(this.#tick, this.#pauseMs).unref()
  }

  /** Resolves when the turn that runs has ended. */
  async stop(): Promise<void> {
    this.#isStopped = true
    clearTimeout(this.#timer)
    await this.#running
  }
}
