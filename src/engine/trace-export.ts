/**
 * Tells a collector of OpenTelemetry the traces of sessions that have ended, as OTLP/JSON over HTTP. One process of the
 * farm does it at a time. How far it has come is kept in Redis for each shard, and moves on once the collector has
 * taken the spans: a process that dies leaves them to the next, and what is told twice has the same ids.
 */
import { takeTurn } from '../clock.ts'
import type { Config } from '../config.ts'
import { keys } from '../keys.ts'
import type { Logger } from '../log.ts'
import { translated, type Redis } from '../redis.ts'
import { Ticker } from '../ticker.ts'
import { post } from '../webhooks/post.ts'
import { addressOf, targetOf } from '../webhooks/targets.ts'
import type { Session, SessionEvent } from './session.ts'
import { spansOf, type Span } from './spans.ts'

const tickMs = 1000
/** A turn of another process that has gone is over after so long, ms. */
const turnMs = 5000
/** Sessions in one message, and entries of one's history. */
const atOnce = 50
const mostEntries = 10_000
const tryMs = 15_000
const longestPauseMs = 60_000

/** Where a shard's traces were told to: up to this time of an end, and at that very time these sessions. */
interface Cursor {
  at: number
  ids: string[]
}

export interface TraceParts {
  redis: Redis
  config: Pick<Config, 'shards' | 'traces'>
  log: Logger
  get(id: string): Promise<Session | undefined>
  history(id: string, after: number, limit: number): Promise<{ event: SessionEvent }[]>
}

export class TraceExport {
  readonly #parts: TraceParts
  readonly #ticker: Ticker
  readonly #stopped = new AbortController()
  #failures = 0
  #restUntil = 0

  constructor(parts: TraceParts) {
    this.#parts = parts
    this.#ticker = new Ticker(
      tickMs,
      () => this.turn(),
      (error) => parts.log.debug({ err: error }, 'traces wait'),
    )
  }

  /** Nothing, where no collector is configured. */
  start(): void {
    if (this.#parts.config.traces) this.#ticker.start()
  }

  async stop(): Promise<void> {
    this.#stopped.abort()
    await this.#ticker.stop()
  }

  async turn(): Promise<void> {
    const { redis, config } = this.#parts
    if (performance.now() < this.#restUntil || !(await takeTurn(redis, keys.traceTurn(), turnMs))) return
    try {
      for (let shard = 0; shard < config.shards; shard++) while (await this.#some(shard));
    } finally {
      await translated(redis.del(keys.traceTurn()))
    }
  }

  /** Tells of the next few of a shard; false when there is no more, or the collector has not taken them. */
  async #some(shard: number): Promise<boolean> {
    if (this.#stopped.signal.aborted) return false
    const { redis } = this.#parts
    const cursor = await this.#cursor(shard)
    const limit = atOnce + cursor.ids.length
    const found = await translated(redis.zrangebyscore(keys.index(shard, 'ended'), cursor.at, '+inf', 'WITHSCORES', 'LIMIT', 0, limit))
    const ended = found.flatMap((id, i) => (i % 2 === 0 ? [{ id, at: Number(found[i + 1]) }] : []))
    const fresh = ended.filter(({ id, at }) => at !== cursor.at || !cursor.ids.includes(id))
    if (fresh.length === 0) return false
    const spans = (await Promise.all(fresh.map(({ id }) => this.#spansOf(id)))).flat()
    if (spans.length > 0 && !(await this.#send(spans))) return false
    const at = fresh.at(-1)?.at ?? cursor.at
    const ids = [...(at === cursor.at ? cursor.ids : []), ...fresh.filter((each) => each.at === at).map(({ id }) => id)]
    await translated(redis.set(keys.traced(shard), JSON.stringify({ at, ids } satisfies Cursor)))
    return ended.length === limit
  }

  /** A shard of which nothing was told begins with what ends from now on. */
  async #cursor(shard: number): Promise<Cursor> {
    const { redis } = this.#parts
    const known = await translated(redis.get(keys.traced(shard)))
    if (known !== null) return JSON.parse(known) as Cursor
    const [, newest] = await translated(redis.zrange(keys.index(shard, 'ended'), '-1', '-1', 'WITHSCORES'))
    const at = Number(newest ?? 0)
    const ids = await translated(redis.zrangebyscore(keys.index(shard, 'ended'), at, at))
    const cursor = { at, ids }
    await translated(redis.set(keys.traced(shard), JSON.stringify(cursor)))
    return cursor
  }

  async #spansOf(id: string): Promise<Span[]> {
    const [session, entries] = await Promise.all([this.#parts.get(id), this.#parts.history(id, 0, mostEntries)])
    return session?.endedAt
      ? spansOf(
          session,
          entries.map(({ event }) => event),
        )
      : []
  }

  /** Whether the collector has them: taken, or refused for good. */
  async #send(spans: readonly Span[]): Promise<boolean> {
    const { config, log } = this.#parts
    const { traces } = config
    if (!traces) return false
    const allowed = { webhookHosts: ['*'], webhookNets: traces.nets }
    const attributes = [{ key: 'service.name', value: { stringValue: 'darkroom' } }]
    const body = JSON.stringify({ resourceSpans: [{ resource: { attributes }, scopeSpans: [{ scope: { name: 'darkroom' }, spans }] }] })
    try {
      const url = targetOf(`${traces.endpoint.replace(/\/$/, '')}/v1/traces`, allowed)
      const address = await addressOf(url, allowed)
      const signal = AbortSignal.any([this.#stopped.signal, AbortSignal.timeout(tryMs)])
      const headers = { 'content-type': 'application/json', 'user-agent': 'Darkroom', ...traces.headers }
      const { status } = await post({ url, address, body, headers }, signal)
      if (status === 429 || status === 408 || status >= 500 || (status >= 300 && status < 400))
        throw new Error(`the collector answered ${status}`)
      if (status >= 400) log.warn({ status, spans: spans.length }, 'the collector of traces refused spans, which are left out')
      this.#failures = 0
      return true
    } catch (error) {
      this.#restUntil = performance.now() + Math.min(longestPauseMs, tickMs * 2 ** this.#failures++)
      log.warn({ err: error }, 'the collector of traces was not reached; it is told later')
      return false
    }
  }
}
