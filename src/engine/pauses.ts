/**
 * What an operator has paused: the whole queue, or the devices of one class, or one device. Nobody is let in there;
 * what runs, and what has begun, goes on.
 */
import { keys } from '../keys.ts'
import { translated, type Redis } from '../redis.ts'

/** One device, or all of an exactness key; neither: the whole queue. */
export interface Paused {
  device?: string | undefined
  class?: string | undefined
}

const nameOf = ({ device, class: exactnessKey }: Paused): string =>
  device !== undefined ? `device ${device}` : exactnessKey !== undefined ? `class ${exactnessKey}` : 'queue'

export interface PauseEntry extends Paused {
  /** Milliseconds since 1970 by the clock of the process that paused it. */
  since: number
}

export class Pauses {
  readonly #redis: Redis

  constructor(redis: Redis) {
    this.#redis = redis
  }

  /** The oldest first. */
  async list(): Promise<PauseEntry[]> {
    const all = await translated(this.#redis.hgetall(keys.paused()))
    return Object.entries(all)
      .map(([name, since]): PauseEntry => {
        const [kind, id = ''] = name.split(' ')
        return { ...(kind === 'device' && { device: id }), ...(kind === 'class' && { class: id }), since: Number(since) }
      })
      .toSorted((a, b) => a.since - b.since)
  }

  async pause(what: Paused): Promise<void> {
    await translated(this.#redis.hsetnx(keys.paused(), nameOf(what), Date.now()))
  }

  /** Of the whole queue: devices and classes that are paused by themselves stay so. */
  async resume(what: Paused): Promise<void> {
    await translated(this.#redis.hdel(keys.paused(), nameOf(what)))
  }

  /** Whether a device is to begin nothing: it is paused itself, or its class is. */
  async holds(device: string, exactnessKey: string): Promise<boolean> {
    const names = [nameOf({ device }), nameOf({ class: exactnessKey })]
    return (await translated(this.#redis.hmget(keys.paused(), ...names))).some((since) => since !== null)
  }
}

/** Whether nothing is let in at all. */
export const isAllPaused = (pauses: readonly PauseEntry[]): boolean =>
  pauses.some(({ device, class: exactnessKey }) => device === undefined && exactnessKey === undefined)

/** Whether a device begins something. */
export const isOpenTo = (
  pauses: readonly PauseEntry[],
  { device, exactnessKey }: { device: { id: string }; exactnessKey: string },
): boolean => !isAllPaused(pauses) && !pauses.some((paused) => paused.device === device.id || paused.class === exactnessKey)
