/** How many allocations of this device an API key may have. Counted are those that are there, and those being made. */
import type { DeviceMemory } from '../../domains/device-memory.ts'
import { counted, limitReached, mostOf, type Limits } from '../../limits.ts'

/** One allocation that is counted while it is being made, and by its id once it is. */
export interface Counted extends Disposable {
  made: (id: number) => void
}

const uncounted: Counted = { made: () => undefined, [Symbol.dispose]: () => undefined }

export class Quota {
  readonly #memory: Pick<DeviceMemory, 'list'>
  readonly #limits: Limits
  /**
   * By owner: what is being made, and ids of what was. The memory lists an allocation before who asked for it hears of
   * it, so its list alone would count that one twice.
   */
  readonly #owners = new Map<string, { making: number; ids: Set<number> }>()

  constructor(memory: Pick<DeviceMemory, 'list'>, limits: Limits) {
    this.#memory = memory
    this.#limits = limits
  }

  /**
   * One more allocation of its owner. What a session owns ends with it and is not counted.
   * @throws DarkroomError `limit.allocations`
   */
  another(owner: string): Counted {
    const [, id] = /^key:(.*)$/.exec(owner) ?? []
    if (id === undefined) return uncounted
    const keyId = id === counted(null) ? null : id
    const most = mostOf(this.#limits, 'allocations', keyId)
    const own = this.#owners.get(owner) ?? { making: 0, ids: new Set<number>() }
    const listed = new Set(this.#memory.list().map((each) => each.id))
    for (const each of own.ids) if (!listed.has(each)) own.ids.delete(each)
    if (own.ids.size + own.making >= most) throw limitReached('allocations', keyId, most)
    own.making++
    this.#owners.set(owner, own)
    let isMaking = true
    const end = (): void => {
      if (isMaking) own.making--
      isMaking = false
      if (own.making === 0 && own.ids.size === 0) this.#owners.delete(owner)
    }
    return {
      made: (allocation) => {
        own.ids.add(allocation)
        end()
      },
      [Symbol.dispose]: end,
    }
  }
}
