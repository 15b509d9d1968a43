/**
 * Webhooks: where a session's end is told, by id. Each belongs to the API key that made it; its secret is shown once.
 * Redis holds the secret itself, because a signature cannot be made of a hash.
 */
import { randomBytes } from 'node:crypto'
import { z } from 'zod'
import { keys as redisKeys } from '../keys.ts'
import { runScript, translated, type Redis } from '../redis.ts'
import { unknownWebhook, webhookError } from './errors.ts'
import { newSecret } from './signature.ts'
import { endings, type Ending } from './states.ts'
import { targetOf, type Allowed } from './targets.ts'

/** How long a replaced secret still signs, ms. */
const overlapMs = 24 * 3_600_000
/** Webhooks that one API key may have. */
const most = 100

const Stored = z.object({
  id: z.string(),
  url: z.string(),
  events: z.array(z.enum(endings)),
  keyId: z.string().nullable(),
  createdAt: z.number(),
  secret: z.string(),
  /** The secret before, and until when it signs, ms since 1970. */
  before: z.object({ secret: z.string(), until: z.number() }).nullable(),
})
type Stored = z.infer<typeof Stored>

/** A webhook as it may be shown: without its secret. */
export type Webhook = Pick<Stored, 'id' | 'url' | 'events' | 'keyId' | 'createdAt'>

/** Whose webhooks are meant; null sees all. */
type Sight = string | null

export class Webhooks {
  readonly #redis: Redis
  readonly #allowed: Allowed

  constructor(redis: Redis, allowed: Allowed) {
    this.#redis = redis
    this.#allowed = allowed
  }

  /**
   * Makes a webhook. `secret` is shown this once.
   * @throws DarkroomError `webhook.refused`, `webhook.too_many`, `redis.unavailable`
   */
  async add(url: string, events: readonly Ending[], keyId: string | null): Promise<{ webhook: Webhook; secret: string }> {
    targetOf(url, this.#allowed)
    const stored: Stored = {
      id: `wh_${randomBytes(8).toString('hex')}`,
      url,
      events: endings.filter((ending) => events.includes(ending)),
      keyId,
      createdAt: Date.now(),
      secret: newSecret(),
      before: null,
    }
    if ((await this.#put(stored.id, undefined, stored)) === 'full')
      throw webhookError('too_many', `there are ${most} webhooks of this API key, which is the limit`)
    return { webhook: shown(stored), secret: stored.secret }
  }

  /** Newest first. */
  async list(sight: Sight): Promise<Webhook[]> {
    const all = (await translated(this.#redis.hvals(redisKeys.webhooks()))).map(parse)
    return all
      .filter(({ keyId }) => sight === null || keyId === sight)
      .map(shown)
      .toSorted((a, b) => b.createdAt - a.createdAt || (a.id < b.id ? -1 : 1))
  }

  /** @throws DarkroomError `webhook.unknown`, also for one that is out of sight */
  async get(id: string, sight: Sight): Promise<Webhook> {
    return shown(await this.#stored(id, sight))
  }

  /**
   * The webhook that a submission of this API key names.
   * @throws DarkroomError `webhook.unknown`, whose `field` is `webhook`
   */
  async named(id: string, keyId: string | null): Promise<void> {
    const stored = await this.#find(id)
    if (stored?.keyId !== keyId) throw webhookError('unknown', unknownWebhook(id).message, { field: 'webhook' })
  }

  /** A webhook with the secrets that sign now, the newest first; undefined when it was removed. */
  async signing(id: string): Promise<{ webhook: Webhook; secrets: string[] } | undefined> {
    const stored = await this.#find(id)
    if (!stored) return undefined
    const { secret, before } = stored
    return { webhook: shown(stored), secrets: before && before.until > Date.now() ? [secret, before.secret] : [secret] }
  }

  /**
   * Gives it a new secret, which is shown this once; the one before signs for another day.
   * @throws DarkroomError `webhook.unknown`
   */
  async rotate(id: string, sight: Sight): Promise<{ webhook: Webhook; secret: string }> {
    for (;;) {
      const stored = await this.#stored(id, sight)
      const next: Stored = { ...stored, secret: newSecret(), before: { secret: stored.secret, until: Date.now() + overlapMs } }
      if ((await this.#put(id, stored, next)) === 'ok') return { webhook: shown(next), secret: next.secret }
    }
  }

  /** @throws DarkroomError `webhook.unknown` */
  async remove(id: string, sight: Sight): Promise<void> {
    while ((await this.#put(id, await this.#stored(id, sight), undefined)) !== 'ok');
  }

  async #find(id: string): Promise<Stored | undefined> {
    const text = await translated(this.#redis.hget(redisKeys.webhooks(), id))
    return text === null ? undefined : parse(text)
  }

  async #put(id: string, known: Stored | undefined, record: Stored | undefined): Promise<string> {
    const text = (stored: Stored | undefined): string => (stored ? JSON.stringify(stored) : '')
    return (await runScript(this.#redis, 'putRecord', redisKeys.webhooks(), [id, text(known), text(record), most, '', '']))[0]
  }

  /** @throws DarkroomError `webhook.unknown` */
  async #stored(id: string, sight: Sight): Promise<Stored> {
    const stored = await this.#find(id)
    if (!stored || (sight !== null && stored.keyId !== sight)) throw unknownWebhook(id)
    return stored
  }
}

const parse = (text: string): Stored => Stored.parse(JSON.parse(text))
const shown = ({ id, url, events, keyId, createdAt }: Stored): Webhook => ({ id, url, events, keyId, createdAt })
