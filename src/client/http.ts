/** Requests to the API: what is sent with each, and which are sent again while the API is away. */
import { readJson } from './answers.ts'
import { Problem } from './problem.ts'

export interface ClientOptions {
  /** Default: http://127.0.0.1:4780 */
  url?: string
  /** API key; sent as a bearer token, never in an address. */
  key?: string | undefined
  /** How long an API that does not answer is waited for, ms; 0 gives up at once. */
  patienceMs?: number
}

type HttpOptions = Required<Omit<ClientOptions, 'key'>> & Pick<ClientOptions, 'key'>

export interface RequestOptions {
  headers?: Record<string, string>
  /** JSON, or the bytes of a file. */
  body?: object
  signal?: AbortSignal
  /** false: the first answer counts. */
  again?: boolean
}

const isTimeout = ({ reason }: AbortSignal): boolean => (reason as Error | undefined)?.name === 'TimeoutError'

export class Http {
  readonly #options: Readonly<HttpOptions>

  constructor(options: HttpOptions) {
    this.#options = options
  }

  /** The JSON of an answer. @throws Problem */
  json<T>(method: string, path: string, options: RequestOptions = {}): Promise<T> {
    return this.request(method, path, readJson<T>, options)
  }

  /**
   * Repeats a request while the API is away, if it may be sent twice: a read, an idempotent verb, a submit with its
   * key. An answer that was cut is none.
   * @throws Problem
   */
  async request<T>(method: string, path: string, read: (response: Response) => Promise<T>, options: RequestOptions = {}): Promise<T> {
    const mayRepeat = options.again ?? !path.endsWith('/retry')
    const until = performance.now() + this.#options.patienceMs
    for (let waitMs = 200; ; waitMs = Math.min(2 * waitMs, 2000)) {
      try {
        const response = await this.fetch(method, path, options)
        if (response.ok) return await read(response)
        throw await Problem.of(response)
      } catch (error) {
        if (options.signal?.aborted && !isTimeout(options.signal)) throw error
        const problem = error instanceof Problem ? error : Problem.unreachable(this.#options.url, error)
        if (!mayRepeat || !isPassing(problem) || performance.now() + waitMs > until) throw problem
      }
      await pause(waitMs, options.signal)
    }
  }

  /** One request, once. @throws what `fetch` throws */
  fetch(method: string, path: string, { headers, body, signal }: RequestOptions): Promise<Response> {
    const isFile = body instanceof Uint8Array
    return globalThis.fetch(`${this.#options.url}${path}`, {
      method,
      headers: {
        ...(this.#options.key !== undefined && { Authorization: `Bearer ${this.#options.key}` }),
        ...(body !== undefined && { 'Content-Type': isFile ? 'application/octet-stream' : 'application/json' }),
        ...headers,
      },
      // Refused with a problem: a key and a body are for this address alone.
      redirect: 'manual',
      ...(body !== undefined && { body: isFile ? new Uint8Array(body) : JSON.stringify(body) }),
      ...(signal && { signal }),
    })
  }
}

/**
 * Worth another try: no answer, a limit that is reached, or a transient refusal. A full Redis stays full for a while.
 */
export const isPassing = ({ document: { code, class: errorClass, status } }: Problem): boolean =>
  (status === 0 || status === 429 || status >= 500) && errorClass === 'transient' && code !== 'redis.full'

export const pause = (ms: number, signal?: AbortSignal): Promise<void> =>
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

/** The fields that are given, as a query of an address; nothing for none. */
export function queryOf(fields: Record<string, string | number | undefined>): string {
  const given = Object.entries(fields).flatMap(([name, value]) => (value === undefined ? [] : [[name, String(value)] as [string, string]]))
  return given.length === 0 ? '' : `?${new URLSearchParams(given).toString()}`
}
