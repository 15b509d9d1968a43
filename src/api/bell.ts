/** One waits, others ring. A ring before the wait ends it at once; several rings count as one. */
export class Bell {
  #rung = false
  #wake: (() => void) | undefined

  ring(): void {
    this.#rung = true
    this.#wake?.()
  }

  /** Resolves at the next ring, after `ms`, or when one of the signals aborts. */
  async wait(ms: number, ...signals: (AbortSignal | undefined)[]): Promise<void> {
    if (!this.#rung && !signals.some((signal) => signal?.aborted)) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, ms)
        this.#wake = () => {
          clearTimeout(timer)
          resolve()
        }
        for (const signal of signals) signal?.addEventListener('abort', this.#wake, { once: true })
      })
      for (const signal of signals) if (this.#wake) signal?.removeEventListener('abort', this.#wake)
      this.#wake = undefined
    }
    this.#rung = false
  }
}
