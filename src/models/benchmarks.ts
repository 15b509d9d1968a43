/** What models did on which class of devices, as it was measured last: in Redis, by body hash and exactness key. */
import { keys } from '../keys.ts'
import { runScript, translated, type Redis } from '../redis.ts'

/** Figures of so many pairs of model and class are kept. */
const most = 2000

export interface Measured {
  exactnessKey: string
  measuredAt: number
  figures: unknown
}

export class Benchmarks {
  readonly #redis: Redis

  constructor(redis: Redis) {
    this.#redis = redis
  }

  async record(bodyHash: string, exactnessKey: string, figures: unknown): Promise<void> {
    const measuredAt = Date.now()
    const text = JSON.stringify({ exactnessKey, measuredAt, figures } satisfies Measured)
    await runScript(this.#redis, 'recordBenchmark', keys.benchmarks(), [`${bodyHash}:${exactnessKey}`, text, measuredAt, most])
  }

  /** Of a model, on these classes. */
  async of(bodyHash: string, exactnessKeys: readonly string[]): Promise<Measured[]> {
    if (exactnessKeys.length === 0) return []
    const texts = await translated(this.#redis.hmget(keys.benchmarks(), ...exactnessKeys.map((key) => `${bodyHash}:${key}`)))
    return texts.flatMap((text) => (text === null ? [] : [JSON.parse(text) as Measured]))
  }
}
