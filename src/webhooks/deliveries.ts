/**
 * Deliveries: the end of one session, to be told to one webhook. The commit that ends the session writes it.
 *
 * | state | entered | left |
 * | --- | --- | --- |
 * | `pending` | the session has ended; sent by hand once more | an answer 2xx → `delivered`; the last try failed → `dead` |
 * | `delivered`, `dead` | | sent by hand → `pending`; too many others after it: gone |
 */
import { keys } from '../keys.ts'
import { runScript, translated, translatedAll, type Redis } from '../redis.ts'
import type { WireError } from '../errors.ts'
import type { DeliveryState, Ending } from './states.ts'

/** How many of a webhook are kept in each shard. */
const keptDelivered = 100
const keptDead = 1000

export interface Delivery {
  session: string
  webhook: string
  state: DeliveryState
  /** Tries so far, of the present series. */
  tries: number
  /** What the last try came to, in words; null before the first. */
  said: string | null
  triedAt: number | null
  /** What is told. */
  status: Ending
  workflow: string
  tags: string[]
  output: Record<string, unknown> | null
  error: WireError | null
  retryOf: string | null
  createdAt: number
  startedAt: number | null
  endedAt: number
}

/** What a try came to. */
export type Verdict = { is: 'delivered' | 'dead'; said: string } | { is: 'again'; said: string; afterMs: number } | { is: 'gone' }

export class Deliveries {
  readonly #redis: Redis
  readonly #shards: number

  constructor(redis: Redis, shards: number) {
    this.#redis = redis
    this.#shards = shards
  }

  async get(session: string): Promise<Delivery | undefined> {
    return toDelivery(session, await translated(this.#redis.hgetall(keys.delivery(session))))
  }

  /**
   * Sessions of a shard whose webhooks are to be told now, handed to this caller alone for `holdMs`.
   * @param each how many of one webhook at most
   * @param busy webhooks to leave alone
   */
  async claim(shard: number, each: number, holdMs: number, busy: readonly string[]): Promise<string[]> {
    const args = [webhooksAtOnce, each, holdMs, ...busy]
    return (await runScript(this.#redis, 'claimDeliveries', keys.dueWebhooks(shard), args)) as unknown as string[]
  }

  /** Records what a try came to; false when another process did so before. */
  async settle({ session, tries }: Delivery, verdict: Verdict): Promise<boolean> {
    const said = 'said' in verdict ? verdict.said : ''
    return this.#settle(session, String(tries), verdict.is, said, verdict.is === 'again' ? verdict.afterMs : 0)
  }

  /** Sends those of these sessions once more that this webhook was to be told of; returns how many there were. */
  async send(webhook: string, sessions: readonly string[]): Promise<number> {
    const known = await Promise.all(sessions.map((session) => this.get(session)))
    const own = known.filter((delivery) => delivery?.webhook === webhook).map((delivery) => delivery as Delivery)
    const sent = await Promise.all(own.map(({ session }) => this.#settle(session, '', 'send', '', 0)))
    return sent.filter(Boolean).length
  }

  /** Forgets what a webhook that was removed has been told or not; what is pending goes when it falls due. */
  async forget(webhook: string): Promise<void> {
    for (const state of ['delivered', 'dead'] as const)
      for (const { session } of await this.list(webhook, state, keptDead)) await this.#settle(session, '', 'gone', '', 0)
  }

  /** Deliveries of a webhook in a state, the latest first; pending ones by when they are due. */
  async list(webhook: string, state: DeliveryState, limit: number): Promise<Delivery[]> {
    const perShard = await Promise.all(
      Array.from({ length: this.#shards }, (_, shard) => this.#inShard(keys.deliveries(shard, state, webhook), state, limit)),
    )
    const order = state === 'pending' ? 1 : -1
    return perShard
      .flat()
      .toSorted((a, b) => order * (a.at - b.at))
      .slice(0, limit)
      .map(({ delivery }) => delivery)
  }

  async #inShard(list: string, state: DeliveryState, limit: number): Promise<{ delivery: Delivery; at: number }[]> {
    const [from, to] = state === 'pending' ? [0, limit - 1] : [-limit, -1]
    const found = await translated(this.#redis.zrange(list, String(from), String(to), 'WITHSCORES'))
    const ids = found.filter((_, i) => i % 2 === 0)
    if (ids.length === 0) return []
    const records = await translatedAll(ids.reduce((pipeline, id) => pipeline.hgetall(keys.delivery(id)), this.#redis.pipeline()))
    return ids.flatMap((id, i) => {
      const delivery = toDelivery(id, records[i] as Record<string, string>)
      return delivery ? [{ delivery, at: Number(found[2 * i + 1]) }] : []
    })
  }

  async #settle(session: string, tries: string, verdict: string, said: string, afterMs: number): Promise<boolean> {
    const args = [tries, verdict, Math.round(afterMs), said, keptDelivered, keptDead]
    return (await runScript(this.#redis, 'settleDelivery', keys.session(session), args))[0] === 'ok'
  }
}

/** Webhooks looked at in one turn of a shard. */
const webhooksAtOnce = 200

function toDelivery(session: string, record: Record<string, string>): Delivery | undefined {
  if (record['webhook'] === undefined) return undefined
  const json = <T>(field: string): T | null => (record[field] === undefined ? null : (JSON.parse(record[field]) as T))
  const number = (field: string): number | null => (record[field] === undefined ? null : Number(record[field]))
  return {
    session,
    webhook: record['webhook'],
    state: record['state'] as DeliveryState,
    tries: number('tries') ?? 0,
    said: record['said'] ?? null,
    triedAt: number('triedAt'),
    status: record['status'] as Ending,
    workflow: record['workflow'] ?? '',
    tags: json<string[]>('tags') ?? [],
    output: json<Record<string, unknown>>('output'),
    error: json<WireError>('error'),
    retryOf: record['retryOf'] ?? null,
    createdAt: number('createdAt') ?? 0,
    startedAt: number('startedAt'),
    endedAt: number('endedAt') ?? 0,
  }
}
