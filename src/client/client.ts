/** A typed client of the HTTP interface. It survives a restarted API: submits carry an idempotency key, streams go on where they were cut. */
import { randomUUID } from 'node:crypto'
import type { ControlVerb, Signal, Status } from '../workflows/session.ts'
import { Problem } from './problem.ts'
import { readEvents } from './stream.ts'
import type { Frame, ImageRequest, Progress, Receipt, Session, SessionPage, Submission, Worker } from './types.ts'

export interface ClientOptions {
  /** Default: http://127.0.0.1:4780 */
  url?: string
  /** API key; sent as a bearer token, never in an address. */
  key?: string | undefined
  /** How long an API that does not answer is waited for, ms; 0 gives up at once. */
  patienceMs?: number
}

export interface SubmitOptions {
  idempotencyKey?: string
  /** Seconds to wait for the end, 60 at most. */
  waitS?: number
  signal?: AbortSignal
}

export interface ListFilter {
  status?: Status
  workflow?: string
  tag?: string
  parent?: string
  cursor?: string
  limit?: number
}

const terminal = new Set(['session.succeeded', 'session.failed', 'session.cancelled'])

export class DarkroomClient {
  readonly url: string
  readonly #key: string | undefined
  readonly #patienceMs: number

  constructor({ url = 'http://127.0.0.1:4780', key, patienceMs = 30_000 }: ClientOptions = {}) {
    this.url = url.replace(/\/+$/, '')
    this.#key = key
    this.#patienceMs = patienceMs
  }

  /** Submits a session; sent again under the same key when the answer got lost. @throws Problem */
  submit(submission: Submission, { idempotencyKey = randomUUID(), waitS, signal }: SubmitOptions = {}): Promise<Session> {
    const headers = { 'Idempotency-Key': idempotencyKey, ...(waitS !== undefined && { Prefer: `wait=${waitS}` }) }
    return this.#json('POST', '/v1/sessions', { headers, body: submission, ...(signal && { signal }) })
  }

  /** Submits an image generation. @throws Problem */
  generate(input: ImageRequest, options: SubmitOptions & Pick<Submission, 'priority' | 'tags' | 'deadlineS'> = {}): Promise<Session> {
    const { priority, tags, deadlineS, ...rest } = options
    const more = { ...(priority !== undefined && { priority }), ...(tags && { tags }), ...(deadlineS !== undefined && { deadlineS }) }
    return this.submit({ workflow: 'image-generation', input, ...more }, rest)
  }

  session(id: string): Promise<Session> {
    return this.#json('GET', pathOf(id))
  }

  sessions(filter: ListFilter = {}): Promise<SessionPage> {
    const query = new URLSearchParams(
      Object.entries(filter).flatMap(([name, value]) => (value === undefined ? [] : [[name, String(value)] as [string, string]])),
    )
    return this.#json('GET', `/v1/sessions${query.size > 0 ? `?${query.toString()}` : ''}`)
  }

  receipt(id: string): Promise<Receipt> {
    return this.#json('GET', `${pathOf(id)}/receipt`)
  }

  control(id: string, verb: ControlVerb): Promise<Session> {
    return this.#json('POST', `${pathOf(id)}/${verb}`)
  }

  /** Tells the workflow of a session something; sent again under the same event id when the answer got lost. @throws Problem */
  signal(id: string, { type, data, eventId = randomUUID() }: Signal): Promise<Session> {
    return this.#json('POST', `${pathOf(id)}/signal`, { body: { type, eventId, ...(data !== undefined && { data }) } })
  }

  /** A new session from a failed or cancelled one. */
  retry(id: string): Promise<Session> {
    return this.#json('POST', `${pathOf(id)}/retry`)
  }

  async remove(id: string): Promise<void> {
    await this.#request('DELETE', pathOf(id))
  }

  async workers(): Promise<Worker[]> {
    return (await this.#json<{ workers: Worker[] }>('GET', '/v1/workers')).workers
  }

  /** Why the farm is not ready; empty when it is. */
  async notReady(): Promise<string[]> {
    try {
      await this.#request('GET', '/v1/ready', { again: false })
      return []
    } catch (error) {
      if (error instanceof Problem && error.code === 'api.not_ready') return error.document.reasons ?? [error.message]
      throw error
    }
  }

  /** Whether the process answers. */
  async health(): Promise<{ status: 'ok'; uptimeS: number }> {
    return this.#json('GET', '/v1/health', { again: false })
  }

  /** Bytes of an artifact by its SHA-256. */
  async artifact(sha256: string): Promise<Buffer> {
    return Buffer.from(await (await this.#request('GET', `/v1/artifacts/${encodeURIComponent(sha256)}`)).arrayBuffer())
  }

  /**
   * History and progress of a session, from entry `after` on, until its end. A cut connection is made again, and goes on after the last
   * entry seen. @throws Problem when the API refuses, or does not come back within the client's patience
   */
  async *follow(id: string, { after = 0, signal }: { after?: number; signal?: AbortSignal } = {}): AsyncGenerator<Frame> {
    let last = after
    let waitMs = 200
    let lostAt: number | undefined
    for (;;) {
      try {
        const response = await this.#fetch('GET', `${pathOf(id)}/events`, {
          headers: { Accept: 'text/event-stream', ...(last > 0 && { 'Last-Event-ID': String(last) }) },
          ...(signal && { signal }),
        })
        if (response.status === 204) return
        if (!response.ok) throw await Problem.of(response)
        for await (const { id: number, event, data } of readEvents(response.body ?? new ReadableStream())) {
          waitMs = 200
          lostAt = undefined
          if (number === undefined) {
            if (event === 'progress') yield { kind: 'progress', progress: JSON.parse(data) as Progress }
            continue
          }
          last = Number(number)
          yield { kind: 'event', id: last, type: event, data: JSON.parse(data) } as Frame
          if (terminal.has(event)) return
        }
      } catch (error) {
        if (signal?.aborted || (error instanceof Problem && !isPassing(error))) throw error
        lostAt ??= performance.now()
        if (performance.now() - lostAt >= this.#patienceMs) throw error instanceof Problem ? error : Problem.unreachable(this.url, error)
      }
      await pause(waitMs, signal)
      waitMs = Math.min(2 * waitMs, 2000)
    }
  }

  /** Follows a session to its end; `onProgress` sees every frame on the way. */
  async untilEnd(id: string, onFrame: (frame: Frame) => void = () => undefined, signal?: AbortSignal): Promise<Session> {
    for await (const frame of this.follow(id, signal ? { signal } : {})) onFrame(frame)
    return this.session(id)
  }

  async #json<T>(method: string, path: string, options: RequestOptions = {}): Promise<T> {
    return (await (await this.#request(method, path, options)).json()) as T
  }

  /** Repeats what may be repeated while the API is away: reads, verbs that mean the same twice, and submits, whose key makes them so. */
  async #request(method: string, path: string, options: RequestOptions = {}): Promise<Response> {
    const mayRepeat = options.again ?? !path.endsWith('/retry')
    const until = performance.now() + this.#patienceMs
    for (let waitMs = 200; ; waitMs = Math.min(2 * waitMs, 2000)) {
      try {
        const response = await this.#fetch(method, path, options)
        if (response.ok) return response
        throw await Problem.of(response)
      } catch (error) {
        const problem = error instanceof Problem ? error : Problem.unreachable(this.url, error)
        if (options.signal?.aborted) throw error
        if (!mayRepeat || !isPassing(problem) || performance.now() + waitMs > until) throw problem
      }
      await pause(waitMs, options.signal)
    }
  }

  #fetch(method: string, path: string, { headers, body, signal }: RequestOptions): Promise<Response> {
    return fetch(`${this.url}${path}`, {
      method,
      headers: {
        ...(this.#key !== undefined && { Authorization: `Bearer ${this.#key}` }),
        ...(body !== undefined && { 'Content-Type': 'application/json' }),
        ...headers,
      },
      redirect: 'error',
      ...(body !== undefined && { body: JSON.stringify(body) }),
      ...(signal && { signal }),
    })
  }
}

interface RequestOptions {
  headers?: Record<string, string>
  body?: object
  signal?: AbortSignal
  /** false: the first answer counts. */
  again?: boolean
}

const pathOf = (id: string): string => `/v1/sessions/${encodeURIComponent(id)}`

/** Worth asking again: nobody answered, or it says that it cannot just now. A full Redis stays full for a while. */
const isPassing = ({ document: { code, class: errorClass, status } }: Problem): boolean =>
  (status === 0 || status >= 500) && errorClass === 'transient' && code !== 'redis.full'

const pause = (ms: number, signal?: AbortSignal): Promise<void> =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(done, ms)
    signal?.addEventListener('abort', done)
    function done(): void {
      clearTimeout(timer)
      signal?.removeEventListener('abort', done)
      if (signal?.aborted) reject(signal.reason as Error)
      else resolve()
    }
  })
