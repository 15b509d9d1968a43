/** How many allocations of this device an API key may have. Counted are those that are there, and those being made. */
import type { DeviceMemory } from '../../domains/device-memory.ts'
import { counted, limitReached, mostOf, type Limits } from '../../limits.ts'

export class Quota {
  readonly #memory: Pick<DeviceMemory, 'list'>
  readonly #limits: Limits
  /** Allocations that are being made, by owner. */
  readonly #making = new Map<string, number>()

  constructor(memory: Pick<DeviceMemory, 'list'>, limits: Limits) {
    this.#memory = memory
    this.#limits = limits
  }

  /**
   * One more allocation of its owner, held while it is being made. What a session owns ends with it and is not counted.
   * @throws DarkroomError `limit.allocations`
   */
  another(owner: string): Disposable {
    const [, id] = /^key:(.*)$/.exec(owner) ?? []
    if (id === undefined) return { [Symbol.dispose]: () => undefined }
    const keyId = id === counted(null) ? null : id
    const most = mostOf(this.#limits, 'allocations', keyId)
    const making = this.#making.get(owner) ?? 0
    const there = this.#memory.list().filter((each) => each.owner === owner).length
    if (there + making >= most) throw limitReached('allocations', keyId, most)
    this.#making.set(owner, making + 1)
    return { [Symbol.dispose]: () => this.#made(owner) }
  }

  #made(owner: string): void {
    const left = (this.#making.get(owner) ?? 1) - 1
    if (left === 0) this.#making.delete(owner)
    else this.#making.set(owner, left)
  }
}
