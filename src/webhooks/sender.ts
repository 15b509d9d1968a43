/**
 * Tells webhooks of ended sessions: each API process takes deliveries that are due, a few of each webhook at a time,
 * and sends them beside its requests. No session waits for it, and a receiver that hangs holds up its own deliveries
 * alone. A process that dies in the middle leaves its deliveries due again: every end is told at least once, with the
 * same `webhook-id`.
 */
import type { Config } from '../config.ts'
import { DarkroomError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { abortable } from '../outgoing.ts'
import { Ticker } from '../ticker.ts'
import type { Deliveries, Delivery, Verdict } from './deliveries.ts'
import { bodyOf, headersOf } from './message.ts'
import { post } from './post.ts'
import { addressOf, targetOf, type Resolve } from './targets.ts'
import type { Webhooks } from './webhooks.ts'

/** Pauses between tries, ms: nine tries in a day. */
export const pausesMs = [5000, 60_000, 300_000, 1_800_000, 7_200_000, 18_000_000, 28_800_000, 28_800_000] as const
const tickMs = 250
/** Tries of a process under way, in all and for one webhook. */
const mostTries = 256
const mostTriesEach = 16
/** Longest pause that a receiver may ask for, s. */
const mostRetryAfterS = 86_400

export interface SenderParts {
  webhooks: Webhooks
  deliveries: Deliveries
  config: Pick<Config, 'webhookHosts' | 'webhookNets' | 'shards'>
  log: Logger
  /** How long a try takes at most, resolving its name included. */
  tryMs: number
  /** Called before a try, and after its answer, before that is recorded. */
  at?: ((point: 'webhook.before' | 'webhook.after', session: string) => void) | undefined
  /** In place of the system's resolver. */
  resolve?: Resolve
}

export class WebhookSender {
  readonly #parts: SenderParts
  readonly #ticker: Ticker
  readonly #stopped = new AbortController()
  /** Tries under way, by webhook. */
  readonly #under = new Map<string, number>()
  readonly #tries = new Set<Promise<void>>()

  constructor(parts: SenderParts) {
    this.#parts = parts
    this.#ticker = new Ticker(
      tickMs,
      () => this.turn(),
      (error) => parts.log.debug({ err: error }, 'webhooks wait'),
    )
  }

  start(): void {
    this.#ticker.start()
  }

  /** Breaks tries off that are under way: they are due again when their hold is over. */
  async stop(): Promise<void> {
    this.#stopped.abort()
    await this.#ticker.stop()
    await Promise.all(this.#tries)
  }

  /** Begins tries for what is due; waits for none of them. */
  async turn(): Promise<void> {
    const { deliveries, config, tryMs } = this.#parts
    for (let shard = 0; shard < config.shards && this.#tries.size < mostTries; shard++) {
      const busy = [...this.#under].filter(([, count]) => count >= mostTriesEach).map(([webhook]) => webhook)
      for (const session of await deliveries.claim(shard, mostTriesEach, 2 * tryMs, busy)) {
        const tried = this.#try(session).finally(() => this.#tries.delete(tried))
        this.#tries.add(tried)
      }
    }
  }

  /** Never throws: what fails is due again when its hold is over. */
  async #try(session: string): Promise<void> {
    const { deliveries, log, at } = this.#parts
    let webhook: string | undefined
    try {
      const delivery = await deliveries.get(session)
      if (!delivery) return
      webhook = delivery.webhook
      this.#under.set(webhook, (this.#under.get(webhook) ?? 0) + 1)
      at?.('webhook.before', session)
      const verdict = await this.#send(delivery)
      at?.('webhook.after', session)
      if (this.#stopped.signal.aborted && verdict.is !== 'delivered') return
      await deliveries.settle(delivery, verdict)
      if (verdict.is === 'dead') log.warn({ session, webhook, said: verdict.said }, 'a webhook was not told, and is tried no more')
    } catch (error) {
      log.debug({ session, err: error }, 'a delivery is left to its hold')
    } finally {
      const count = webhook === undefined ? 0 : (this.#under.get(webhook) ?? 1) - 1
      if (webhook !== undefined && count > 0) this.#under.set(webhook, count)
      else if (webhook !== undefined) this.#under.delete(webhook)
    }
  }

  async #send(delivery: Delivery): Promise<Verdict> {
    const { webhooks, config, resolve, tryMs } = this.#parts
    const known = await webhooks.signing(delivery.webhook)
    if (!known?.webhook.events.includes(delivery.status)) return { is: 'gone' }
    const signal = AbortSignal.any([this.#stopped.signal, AbortSignal.timeout(tryMs)])
    try {
      const url = targetOf(known.webhook.url, config)
      const address = await abortable(addressOf(url, config, resolve), signal)
      const body = bodyOf(delivery)
      const { status, retryAfterS } = await post(
        { url, address, body, headers: headersOf(delivery.session, body, known.secrets, Date.now()) },
        signal,
      )
      const said = `the receiver answered ${status}`
      if (status >= 200 && status < 300) return { is: 'delivered', said }
      if (status === 410) return { is: 'dead', said }
      if (status >= 300 && status < 400) return later(delivery, `${said}, and redirects are not followed`)
      return later(delivery, said, status === 429 || status === 503 ? retryAfterS : undefined)
    } catch (error) {
      return later(delivery, wordsOf(error, signal, tryMs))
    }
  }
}

function wordsOf(error: unknown, signal: AbortSignal, tryMs: number): string {
  if (error instanceof DarkroomError) return error.message
  if (signal.aborted) return `no answer within ${tryMs / 1000} s`
  return error instanceof Error ? error.message || ((error as NodeJS.ErrnoException).code ?? error.name) : String(error)
}

/** Another try after the pause that is due now, ± 10 %; none after the last. */
function later({ tries }: Delivery, said: string, retryAfterS = 0): Verdict {
  const pauseMs = pausesMs[tries]
  if (pauseMs === undefined) return { is: 'dead', said }
  const spreadMs = pauseMs * (0.9 + 0.2 * Math.random())
  return { is: 'again', said, afterMs: Math.max(spreadMs, Math.min(retryAfterS, mostRetryAfterS) * 1000) }
}
