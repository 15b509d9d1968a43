/** One waits, others ring. A ring while no one waits is kept for the next wait; several count as one. */
export class Bell {
  #isRung = false
  /** Ends the wait that is under way. */
  #wake: (() => void) | undefined

  ring(): void {
    this.#isRung = true
    this.#wake?.()
  }

  /** Resolves at the next ring, after `ms`, or when one of the signals aborts. */
  async wait(ms: number, ...signals: (AbortSignal | undefined)[]): Promise<void> {
    const over = signals.filter((signal) => signal !== undefined)
    if (!this.#isRung && !over.some((signal) => signal.aborted)) await this.#sleep(ms, over)
    this.#isRung = false
  }

  async #sleep(ms: number, over: AbortSignal[]): Promise<void> {
    let wake = (): void => undefined
    const woken = new Promise<void>((resolve) => (wake = resolve))
    const timer = setTimeout(wake, ms)
    for (const signal of over) signal.addEventListener('abort', wake)
    this.#wake = wake
    await woken
    this.#wake = undefined
    clearTimeout(timer)
    for (const signal of over) signal.removeEventListener('abort', wake)
  }
}
