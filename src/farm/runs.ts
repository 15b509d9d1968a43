/** How long pictures took, by model, hardware class and shape: what estimates of later ones are made of. */
import { z } from 'zod'
import { ImageRequest } from '../domains/values.ts'
import { keys } from '../keys.ts'
import { translated, translatedAll, type Redis } from '../redis.ts'

/** How long a run is remembered after the model's last one, ms; and of how many shapes and classes. */
const keptMs = 90 * 86_400_000
const maxShapes = 200

/** What a call of the network costs by. `rows`: 2 where a negative prompt counts, else 1. */
export interface Shape {
  width: number
  height: number
  rows: 1 | 2
}

/** The last run of a shape. */
export interface Run extends Shape {
  exactnessKey: string
  /** Of one call of the network. */
  callS: number
}

export const rowsOf = (guidance: number): 1 | 2 => (guidance > 1 ? 2 : 1)

const Denoised = z.object({
  input: z.object(ImageRequest.pick({ model: true, width: true, height: true, guidance: true }).shape),
  output: z.object({ exactness: z.object({ key: z.string() }) }),
  stats: z.object({ seconds: z.number().positive(), loadS: z.number().default(0), calls: z.int().min(1) }),
})

const field = ({ exactnessKey, width, height, rows }: Omit<Run, 'callS'>): string => `${exactnessKey} ${width} ${height} ${rows}`

export class Runs {
  readonly #redis: Redis

  constructor(redis: Redis) {
    this.#redis = redis
  }

  /** Remembers how long a denoise step took. One that says no time of itself, or did no call, is passed over. */
  async note(step: { input: unknown; output: unknown; stats: unknown }): Promise<void> {
    const { data } = Denoised.safeParse(step)
    if (!data) return
    const { model, width, height, guidance } = data.input
    const { seconds, loadS, calls } = data.stats
    const key = keys.runs(model.bodyHash)
    const name = field({ exactnessKey: data.output.exactness.key, width, height, rows: rowsOf(guidance) })
    const [shapes, isKnown] = await Promise.all([translated(this.#redis.hlen(key)), translated(this.#redis.hexists(key, name))])
    if (shapes >= maxShapes && isKnown === 0) return
    const callS = Math.max(0, seconds - loadS) / calls
    await translatedAll(this.#redis.pipeline().hset(key, name, callS.toPrecision(6)).pexpire(key, keptMs))
  }

  /** Those of a model that are remembered. */
  async of(bodyHash: string): Promise<Run[]> {
    const all = await translated(this.#redis.hgetall(keys.runs(bodyHash)))
    return Object.entries(all).map(([name, callS]) => {
      const [exactnessKey = '', width, height, rows] = name.split(' ')
      return { exactnessKey, width: Number(width), height: Number(height), rows: rows === '2' ? 2 : 1, callS: Number(callS) }
    })
  }
}
