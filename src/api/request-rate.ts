/**
 * How many requests an API key sends in a minute, in all APIs of the farm together. The user of a machine without keys
 * is not counted: a rate is for those who come from elsewhere.
 */
import { RateLimiterRedis, RateLimiterRes } from 'rate-limiter-flexible'
import { limitReached, type Limits } from '../limits.ts'
import { keys } from '../keys.ts'
import { asRedisError, type Redis } from '../redis.ts'

export class RequestRate {
  readonly #most: number
  readonly #limiter: RateLimiterRedis | undefined

  constructor(redis: Redis, limits: Limits) {
    this.#most = limits.requests
    const most = this.#most
    // One that is over its rate is refused without a question to Redis until its minute ends.
    const options = { storeClient: redis, keyPrefix: keys.requests(), points: most, duration: 60, inMemoryBlockOnConsumed: most + 1 }
    this.#limiter = most === Infinity ? undefined : new RateLimiterRedis(options)
  }

  /** Counts one request. @throws DarkroomError `limit.requests`, `redis.unavailable` */
  async count(keyId: string): Promise<void> {
    try {
      await this.#limiter?.consume(keyId)
    } catch (reason) {
      if (reason instanceof RateLimiterRes) throw limitReached('requests', keyId, this.#most, Math.ceil(reason.msBeforeNext / 1000))
      throw asRedisError(reason)
    }
  }
}
