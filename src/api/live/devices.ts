/** What devices are, for all live connections of one API: asked once, and written once for all who see alike. */
import type { Caller } from '../../api-keys.ts'
import type { EnginePort } from '../context.ts'
import { presentDevice, presentStatus } from '../devices/views.ts'
import { sightOf } from '../policy.ts'
import type { LiveFrame } from './views.ts'

/** How long an answer is shared, ms: workers publish once a second. */
const sharedMs = 200

/** Devices as their workers published them. */
export interface Published {
  /** Another when they published something new. */
  state: string
  /** A frame of JSON. */
  frame: string
}

export class Devices {
  readonly #engine: EnginePort
  #at = Number.NEGATIVE_INFINITY
  #workers: ReturnType<EnginePort['workers']> | undefined
  /** By what a caller sees. */
  readonly #published = new Map<string, Promise<Published>>()

  constructor(engine: EnginePort) {
    this.#engine = engine
  }

  /** @throws DarkroomError `redis.unavailable` */
  of(caller: Caller): Promise<Published> {
    const now = performance.now()
    if (now - this.#at >= sharedMs) {
      this.#at = now
      this.#workers = this.#engine.workers()
      this.#published.clear()
    }
    const sight = `${sightOf(caller)} ${caller.keyId}`
    const published = this.#published.get(sight) ?? this.#publish(caller)
    this.#published.set(sight, published)
    return published
  }

  async #publish(caller: Caller): Promise<Published> {
    const [workers = [], own] = await Promise.all([this.#workers, this.#engine.devices.default(caller.keyId)])
    const devices = workers
      .toSorted((a, b) => (a.device.id < b.device.id ? -1 : 1))
      .map((worker) => {
        const { vitals, running } = presentStatus(worker, caller)
        return { ...presentDevice(worker, own), vitals, running }
      })
    return {
      state: workers.map((worker) => `${worker.id} ${worker.status} ${worker.report.sampledAt} ${worker.running.length}`).join('\n'),
      frame: JSON.stringify({ type: 'devices', devices } satisfies LiveFrame),
    }
  }
}
