/** What a user of the farm does: submits, waits, controls, reads; over HTTP, through the first API. */
import type { Receipt, Session, Worker } from '../../src/client/index.ts'
import { ended, type ControlVerb, type Status } from '../../src/engine/session.ts'
import type { ApiClient } from './http.ts'
import { Inspector } from './inspector.ts'
import { eventually, patienceMs } from './wait.ts'

export type Attempts = Receipt['steps'][number]['attempts']

export abstract class User extends Inspector {
  abstract get client(): ApiClient
  /** For the message of a wait that was in vain. */
  abstract lastWords(): string

  /** Submits pictures of 64 × 64; returns the session's id. */
  async submit(input: Record<string, unknown> = {}, more: Record<string, unknown> = {}): Promise<string> {
    const answer = await this.client.post('/v1/sessions', pictures(input, more))
    if (answer.status !== 202) throw new Error(`submit → ${answer.status} ${answer.text}`)
    return (answer.json as Session).id
  }

  /**
   * Sends a submission until it has its 2xx, as a client would: again under the same key when the answer is 503 or
   * none.
   */
  async submitSurely(key: string, input: Record<string, unknown> = {}, more: Record<string, unknown> = {}): Promise<string> {
    return eventually(`submission ${key} accepted`, async () => {
      const answer = await this.client.post('/v1/sessions', pictures(input, more), { 'Idempotency-Key': key }).catch(unlessRefused)
      if (answer === undefined || answer.status === 503) return undefined
      if (answer.status !== 202 && answer.status !== 200) throw new Error(`submit → ${answer.status} ${answer.text}`)
      return (answer.json as Session).id
    })
  }

  async get(id: string): Promise<Session> {
    const answer = await this.client.get(`/v1/sessions/${id}`)
    if (answer.status !== 200) throw new Error(`GET ${id} → ${answer.status} ${answer.text}`)
    return answer.json as Session
  }

  /** @returns the status code and the body, a session or a problem */
  async control(id: string, verb: ControlVerb | 'retry'): Promise<{ status: number; json: Session & { code?: string } }> {
    const { status, json } = await this.client.post(`/v1/sessions/${id}/${verb}`)
    return { status, json: json as Session & { code?: string } }
  }

  async receipt(id: string): Promise<Receipt> {
    return (await this.client.get(`/v1/sessions/${id}/receipt`)).json as Receipt
  }

  /** The attempts of one kind of step, over all its steps, in order. */
  async attempts(id: string, step: string): Promise<Attempts> {
    return (await this.receipt(id)).steps.filter((each) => each.step === step).flatMap((each) => each.attempts)
  }

  /** Workers as the API shows them. */
  async records(): Promise<Worker[]> {
    return ((await this.client.get('/v1/workers')).json as { workers: Worker[] }).workers
  }

  /** Waits for a status; another end than the one waited for throws. */
  async until(id: string, status: Status, ms = patienceMs): Promise<Session> {
    let last: Session | undefined
    const look = async (): Promise<Session | undefined> => {
      last = await this.get(id).catch((error: NodeJS.ErrnoException) => {
        // The API may be down just now.
        if (error.code === undefined && !error.message.includes('→ 503')) throw error
        return last
      })
      if (last?.status === status) return last
      if (last && ended.has(last.status)) throw new Error(`${id} ${last.status} instead of ${status}: ${JSON.stringify(last.error)}`)
      return undefined
    }
    return eventually(`${id} ${status}`, look, ms).catch((error: Error) => {
      throw new Error(`${error.message}; last seen: ${JSON.stringify(last)}\n${this.lastWords()}`, { cause: error })
    })
  }

  /** SHA-256 of the pictures, when they are all there. */
  async pictures(id: string, ms = patienceMs): Promise<string[]> {
    return ((await this.until(id, 'succeeded', ms)).output?.images ?? []).map((image) => image.sha256)
  }

  /** What an undisturbed run gives for the same input: another session of the same farm, once nothing disturbs it. */
  async undisturbed(input: Record<string, unknown> = {}): Promise<string[]> {
    return this.pictures(await this.submit(input))
  }
}

const pictures = (input: Record<string, unknown>, more: Record<string, unknown>): Record<string, unknown> => ({
  workflow: 'image-generation',
  input: { prompt: 'a red circle', seed: 7, ...input },
  ...more,
})

/** An API that is down just now is no answer; anything else is a fault. */
function unlessRefused(error: NodeJS.ErrnoException): undefined {
  if (error.code === undefined) throw error
}
