/**
 * What comes while others are being sent goes together, when their turn is over; what comes alone waits for nobody.
 */
export class Bundles<T> {
  readonly #send: (items: readonly T[]) => Promise<void>
  readonly #most: number
  /** When all that came before has been sent. */
  #turn: Promise<void> = Promise.resolve()
  /** Those that wait for it. */
  #next: { items: T[]; sent: Promise<void> } | undefined

  /** @param most items of one bundle */
  constructor(most: number, send: (items: readonly T[]) => Promise<void>) {
    this.#most = most
    this.#send = send
  }

  /** Resolves when the bundle with this item has been sent. @throws what `send` throws of it */
  add(item: T): Promise<void> {
    if (this.#next && this.#next.items.length < this.#most) {
      this.#next.items.push(item)
      return this.#next.sent
    }
    const items = [item]
    const sent = this.#turn.then(() => {
      if (this.#next === next) this.#next = undefined
      return this.#send(items)
    })
    const next = { items, sent }
    this.#next = next
    this.#turn = sent.catch(() => undefined)
    return sent
  }
}
