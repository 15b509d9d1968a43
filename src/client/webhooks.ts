/** Webhooks of a client: where the ends of sessions are told. */
import { nothing } from './answers.ts'
import type { Http } from './http.ts'
import type { AddWebhook, Delivery, Webhook, WebhookWithSecret } from './types.ts'

const pathOf = (id: string): string => `/v1/webhooks/${encodeURIComponent(id)}`

export class WebhooksClient {
  readonly #http: Http

  constructor(http: Http) {
    this.#http = http
  }

  /** Makes a webhook, which a submission may name; its secret is shown this once. @throws Problem `webhook.refused` */
  add(webhook: AddWebhook): Promise<WebhookWithSecret> {
    return this.#http.json('POST', '/v1/webhooks', { body: webhook, again: false })
  }

  /** Newest first. */
  async list(): Promise<Webhook[]> {
    return (await this.#http.json<{ webhooks: Webhook[] }>('GET', '/v1/webhooks')).webhooks
  }

  /** @throws Problem `webhook.unknown` */
  get(id: string): Promise<Webhook> {
    return this.#http.json('GET', pathOf(id))
  }

  /** A new secret, which is shown this once; the one before signs for another day. */
  rotate(id: string): Promise<WebhookWithSecret> {
    return this.#http.json('POST', `${pathOf(id)}/rotate`, { again: false })
  }

  async remove(id: string): Promise<void> {
    await this.#http.request('DELETE', pathOf(id), nothing)
  }

  /** The dead ones unless another state is asked for. */
  async deliveries(id: string, { state = 'dead', limit = 50 }: { state?: Delivery['state']; limit?: number } = {}): Promise<Delivery[]> {
    const path = `${pathOf(id)}/deliveries?state=${state}&limit=${limit}`
    return (await this.#http.json<{ deliveries: Delivery[] }>('GET', path)).deliveries
  }

  /** Sends the deliveries of these sessions once more, else the dead ones; returns how many. */
  async send(id: string, sessions?: readonly string[]): Promise<number> {
    return (await this.#http.json<{ sent: number }>('POST', `${pathOf(id)}/send`, { body: sessions ? { sessions } : {} })).sent
  }
}
