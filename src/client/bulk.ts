/** Actions of a client over many sessions. */
import type { Http } from './http.ts'
import type { AddBulk, Bulk } from './types.ts'

const pathOf = (id: string): string => `/v1/bulk/${encodeURIComponent(id)}`

export class BulkClient {
  readonly #http: Http

  constructor(http: Http) {
    this.#http = http
  }

  /** How many sessions a filter finds now. */
  async count(filter: AddBulk['filter']): Promise<number> {
    return (await this.#http.json<{ count: number }>('POST', '/v1/bulk/count', { body: { filter } })).count
  }

  /** Begins an action, which goes on by itself. */
  add(action: AddBulk): Promise<Bulk> {
    return this.#http.json('POST', '/v1/bulk', { body: action, again: false })
  }

  /** Newest first. */
  async list(): Promise<Bulk[]> {
    return (await this.#http.json<{ actions: Bulk[] }>('GET', '/v1/bulk')).actions
  }

  /** @throws Problem `bulk.unknown` */
  get(id: string): Promise<Bulk> {
    return this.#http.json('GET', pathOf(id))
  }

  /** What is done stays so. */
  stop(id: string): Promise<Bulk> {
    return this.#http.json('POST', `${pathOf(id)}/stop`)
  }
}
