/**
 * Models whose bytes a worker found to be broken although their headers are whole: by body hash, in all of the farm. No
 * request takes one until a validation has read it whole, or until it is fetched again, which makes it another body.
 */
import type { DarkroomError } from '../errors.ts'
import { keys } from '../keys.ts'
import { translated, translatedAll, type Redis } from '../redis.ts'
import { modelError } from './errors.ts'

/** Beyond so many the next one is not noted; its sessions fail by themselves. */
const most = 1000

export class Quarantine {
  readonly #redis: Redis

  constructor(redis: Redis) {
    this.#redis = redis
  }

  async note(bodyHash: string, why: string): Promise<void> {
    const key = keys.quarantined()
    if ((await translated(this.#redis.hlen(key))) < most)
      await translatedAll(this.#redis.pipeline().hset(key, bodyHash, why.slice(0, 1000)))
  }

  /** It was read whole. */
  async lift(bodyHash: string): Promise<void> {
    await translated(this.#redis.hdel(keys.quarantined(), bodyHash))
  }

  /** @throws DarkroomError `model.unusable` */
  async check({ id, bodyHash }: { id: string; bodyHash: string | null }, field: string): Promise<void> {
    const why = bodyHash === null ? null : await translated(this.#redis.hget(keys.quarantined(), bodyHash))
    if (why !== null) throw quarantined(id, why, field)
  }
}

const quarantined = (id: string, why: string, field: string): DarkroomError =>
  modelError('unusable', `model ${JSON.stringify(id)} is quarantined, because a worker found it broken: ${why}`, {
    field,
    remedy: `Fetch it again. If its files are sound, \`darkroom models validate ${id}\` lets it out.`,
  })
