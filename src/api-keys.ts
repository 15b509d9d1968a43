/**
 * API keys: `dk_<id>_<secret>`, the secret 32 random bytes, shown once. Redis holds the SHA-256 of the whole key only.
 * The first key closes the farm to requests without one; when the last is revoked it stays closed, until an operator
 * opens it.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { z } from 'zod'
import { audited } from './audit.ts'
import { invalidFields, keyError } from './errors.ts'
import { keys as redisKeys } from './keys.ts'
import { translated, translatedAll, type Redis } from './redis.ts'

export const scopes = ['submit', 'read', 'control', 'operate', 'metrics'] as const
export type Scope = (typeof scopes)[number]
/** Those of a key that nobody says otherwise of. */
export const usualScopes = ['submit', 'read', 'control'] as const satisfies Scope[]

/** A key's share of the devices beside that of others. */
const Weight = z.number().min(0.01).max(100)

const Stored = z.object({
  id: z.string(),
  name: z.string(),
  scopes: z.array(z.enum(scopes)),
  weight: Weight.default(1),
  sha256: z.string(),
  createdAt: z.number(),
})

/** A key as it may be shown: without its secret. */
export interface ApiKey {
  id: string
  name: string
  scopes: Scope[]
  /** Its share of the devices beside that of the others which wait. */
  weight: number
  /** Milliseconds since 1970. */
  createdAt: number
}

/** Who sends a request. `keyId` null is the user of this machine without keys, who sees every session. */
export interface Caller {
  keyId: string | null
  scopes: ReadonlySet<Scope>
}

const pattern = /^dk_([0-9a-f]{8})_[\w-]{43}$/
const digest = (key: string): Buffer => createHash('sha256').update(key).digest()

export class KeyStore {
  readonly #redis: Redis

  constructor(redis: Redis) {
    this.#redis = redis
  }

  /**
   * Makes a key. `key` is its only copy: it cannot be shown again. `by`: who does it, for the audit log.
   * @throws DarkroomError `api.invalid`, `redis.unavailable`
   */
  async add(name: string, granted: readonly Scope[], weight = 1, by = byHand): Promise<{ key: string; record: ApiKey }> {
    const problems = [
      ...(/^[^\p{C}]{1,64}$/u.test(name) ? [] : [{ field: 'name', message: 'must be 1 to 64 printable characters' }]),
      ...(granted.length > 0 ? [] : [{ field: 'scopes', message: `must be some of ${scopes.join(', ')}` }]),
      ...(Weight.safeParse(weight).success ? [] : [{ field: 'weight', message: 'must be a number from 0.01 to 100' }]),
    ]
    if (problems.length > 0) throw invalidFields(problems)
    const id = randomBytes(4).toString('hex')
    const key = `dk_${id}_${randomBytes(32).toString('base64url')}`
    const record: ApiKey = { id, name, scopes: scopes.filter((scope) => granted.includes(scope)), weight, createdAt: Date.now() }
    const stored = { ...record, sha256: digest(key).toString('hex') }
    const made = this.#redis.multi().set(redisKeys.closed(), '1').hset(redisKeys.apiKeys(), id, JSON.stringify(stored))
    await translatedAll(audited(made, { ...by, action: `add key ${id} (${record.scopes.join(' ')})` }))
    return { key, record }
  }

  /** Oldest first. */
  async list(): Promise<ApiKey[]> {
    const texts = await translated(this.#redis.hvals(redisKeys.apiKeys()))
    return texts
      .map(parse)
      .map(show)
      .toSorted((a, b) => a.createdAt - b.createdAt)
  }

  /**
   * False when there is no such key. The next request with it is refused, and its streams and waits end. The farm stays
   * closed, also when it was the last.
   */
  async revoke(id: string, by = byHand): Promise<boolean> {
    if ((await translated(this.#redis.hexists(redisKeys.apiKeys(), id))) === 0) return false
    const gone = this.#redis.multi().set(redisKeys.closed(), '1').hdel(redisKeys.apiKeys(), id).hdel(redisKeys.defaultDevices(), id)
    return (await translatedAll(audited(gone, { ...by, action: `revoke key ${id}` })))[1] === 1
  }

  /** By the id of each key. */
  async weights(): Promise<ReadonlyMap<string, number>> {
    return new Map((await this.list()).map(({ id, weight }) => [id, weight]))
  }

  async any(): Promise<boolean> {
    return (await translated(this.#redis.hlen(redisKeys.apiKeys()))) > 0
  }

  /** Whether the user of this machine needs no key: there is none, and since it was opened there was none. */
  async isOpen(): Promise<boolean> {
    return (await translated(this.#redis.exists(redisKeys.apiKeys(), redisKeys.closed()))) === 0
  }

  /**
   * Opens a farm without keys to every user of its machine.
   * @throws DarkroomError `key.left` while there are keys
   */
  async open(): Promise<void> {
    const left = await this.list()
    if (left.length > 0) throw keyError('left', `there are keys: ${left.map(({ id, name }) => `${id} (${name})`).join(', ')}`)
    await translatedAll(audited(this.#redis.multi().del(redisKeys.closed()), { ...byHand, action: 'open the farm' }))
  }

  /** Those of these callers who would be let in no more: their key is revoked, or the farm was closed. */
  async shutOut(callers: readonly (string | null)[]): Promise<Set<string | null>> {
    const [isOpen, ...known] = await Promise.all([
      this.isOpen(),
      ...callers.map((id) => (id === null ? 1 : translated(this.#redis.hexists(redisKeys.apiKeys(), id)))),
    ])
    return new Set(callers.filter((id, i) => (id === null ? !isOpen : known[i] === 0)))
  }

  /** The record of a key that a caller presents; undefined when the key is not valid. */
  async find(key: string): Promise<ApiKey | undefined> {
    const id = pattern.exec(key)?.[1]
    if (id === undefined) return undefined
    const text = await translated(this.#redis.hget(redisKeys.apiKeys(), id))
    if (text === null) return undefined
    const stored = parse(text)
    return timingSafeEqual(digest(key), Buffer.from(stored.sha256, 'hex')) ? show(stored) : undefined
  }
}

/** Who changes keys, for the audit log: the command line of whoever reaches Redis. */
const byHand: { keyId: string | null; requestId: string | null } = { keyId: null, requestId: null }

const parse = (text: string): z.infer<typeof Stored> => Stored.parse(JSON.parse(text))
const show = ({ id, name, scopes: granted, weight, createdAt }: z.infer<typeof Stored>): ApiKey => ({
  id,
  name,
  scopes: granted,
  weight,
  createdAt,
})
