import { setTimeout as delay } from 'node:timers/promises'

/** One waits, others ring. A ring while no one waits is kept for the next wait; several count as one. */
export class Bell {
  /** Aborted by a ring. */
  #rung = new AbortController()

  ring(): void {
    this.#rung.abort()
  }

  /** Resolves at the next ring, after `ms`, or when one of the signals aborts. */
  async wait(ms: number, ...signals: (AbortSignal | undefined)[]): Promise<void> {
    const over = AbortSignal.any([this.#rung.signal, ...signals.filter((signal) => signal !== undefined)])
    await delay(ms, undefined, { signal: over }).catch(() => undefined)
    this.#rung = new AbortController()
  }
}
