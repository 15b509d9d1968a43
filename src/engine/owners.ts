/** What a device has to know of the sessions that own its memory. */
import { keys } from '../keys.ts'
import { translated, translatedAll, type Redis } from '../redis.ts'
import { ended, type Status } from './session.ts'
import type { Reads } from './reads.ts'

export class SessionOwners {
  readonly #redis: Redis
  readonly #reads: Reads

  constructor(redis: Redis, reads: Reads) {
    this.#redis = redis
    this.#reads = reads
  }

  /** Those of these sessions that have ended or are gone, with the time since, ms: Infinity for those that are gone. */
  async endedOf(sessions: readonly string[]): Promise<Map<string, number>> {
    const now = await this.#reads.now()
    const found = await translatedAll(
      sessions.reduce((pipeline, id) => pipeline.hmget(keys.session(id), 'status', 'endedAt'), this.#redis.pipeline()),
    )
    const isOver = ([status]: (string | null)[]): boolean => status === null || status === undefined || ended.has(status as Status)
    return new Map(
      sessions.flatMap((id, i) => {
        const record = found[i] as (string | null)[]
        return isOver(record) ? [[id, record[1] ? now - Number(record[1]) : Infinity] as const] : []
      }),
    )
  }

  /** Id of the API key that submitted a session; null without keys. */
  keyOf(sessionId: string): Promise<string | null> {
    return translated(this.#redis.hget(keys.session(sessionId), 'keyId'))
  }
}
