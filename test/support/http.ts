/**
 * An HTTP client for tests that holds every response against the API's own OpenAPI document: an undocumented status,
 * content type or body fails the test that saw it. `Host`, `Origin` and the rest are sent as given, which `fetch` would
 * not do.
 */
import { Agent, request as httpRequest, type IncomingMessage } from 'node:http'
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import formats from 'ajv-formats'

export interface SendOptions {
  headers?: Record<string, string>
  /** An object is sent as JSON under `application/json`; text and bytes as they are, under no type of their own. */
  body?: unknown
  signal?: AbortSignal
}

export interface Answer {
  status: number
  headers: Record<string, string | undefined>
  bytes: Buffer
  text: string
  /** Parsed when the type is JSON; undefined otherwise. */
  // oxlint-disable-next-line typescript/no-explicit-any -- tests read what they know is there
  json: any
}

export interface ServerSentEvent {
  id: string | undefined
  event: string
  // oxlint-disable-next-line typescript/no-explicit-any -- as above
  data: any
}

interface Operation {
  responses: Record<string, { content?: Record<string, { schema?: unknown }> }>
}
interface Document {
  paths: Record<string, Record<string, Operation>>
}

/** Checks responses against one OpenAPI document. */
export class ResponseValidator {
  readonly document: Document
  readonly #ajv = new Ajv2020({ strict: false, allErrors: true })
  readonly #validators = new Map<string, ValidateFunction>()
  readonly #templates: { pattern: RegExp; template: string }[]

  constructor(document: Document) {
    this.document = document
    formats.default(this.#ajv)
    this.#ajv.addSchema({ ...document, $id: 'openapi:' })
    this.#templates = Object.keys(document.paths)
      .toSorted((a, b) => Number(a.includes('{')) - Number(b.includes('{')))
      .map((template) => ({ template, pattern: new RegExp(`^${template.replaceAll(/\{\w+\}/g, '[^/]+')}$`) }))
  }

  /** @throws Error that says which part of the document the response breaks. */
  check(method: string, path: string, status: number, contentType: string | undefined, text: string): void {
    const pathname = path.split('?', 1)[0] ?? path
    const where = `${method} ${pathname} → ${status} ${contentType ?? '(no content type)'}`
    const type = contentType?.split(';', 1)[0]?.trim()
    const template = this.#templates.find(({ pattern }) => pattern.test(pathname))?.template
    const operation = template === undefined ? undefined : this.document.paths[template]?.[method.toLowerCase()]
    if (template === undefined || operation === undefined) {
      // Nothing is documented there: pages and the board may answer as they like, refusals may not.
      if (status >= 400) this.#checkProblem(where, type, text)
      return
    }
    const response = operation.responses[String(status)]
    if (!response) throw new Error(`${where}: this status is not in the OpenAPI document of ${template}\n${text.slice(0, 500)}`)
    if (!response.content) {
      if (text !== '') throw new Error(`${where}: the document says no body, but there is one`)
      return
    }
    if (type === undefined || !(type in response.content))
      throw new Error(`${where}: this content type is not in the OpenAPI document of ${template}`)
    if (!type.endsWith('json')) return
    const pointer = ['paths', template, method.toLowerCase(), 'responses', String(status), 'content', type, 'schema'].map(escape).join('/')
    this.#validate(where, pointer, JSON.parse(text))
  }

  /** Checks a value against `components.schemas[name]`. */
  checkSchema(name: string, value: unknown): void {
    this.#validate(name, `components/schemas/${escape(name)}`, value)
  }

  #checkProblem(where: string, type: string | undefined, text: string): void {
    if (type !== 'application/problem+json')
      throw new Error(`${where}: a refusal that is no application/problem+json\n${text.slice(0, 500)}`)
    this.#validate(where, 'components/schemas/Problem', JSON.parse(text))
  }

  #validate(where: string, pointer: string, value: unknown): void {
    const validate = this.#validators.get(pointer) ?? this.#ajv.compile({ $ref: `openapi:#/${pointer}` })
    this.#validators.set(pointer, validate)
    if (!validate(value)) {
      throw new Error(
        `${where}: the body does not follow the OpenAPI document: ${this.#ajv.errorsText(validate.errors)}\n${JSON.stringify(value).slice(0, 1000)}`,
      )
    }
  }
}

const escape = (part: string): string => encodeURIComponent(part.replaceAll('~', '~0').replaceAll('/', '~1'))

const known = new Map<string, Promise<ResponseValidator>>()

/** The validator of the API at `url`, made from its own document once. */
export function validatorOf(url: string): Promise<ResponseValidator> {
  const validator = known.get(url) ?? send(url, 'GET', '/openapi.json').then(({ json }) => new ResponseValidator(json as Document))
  known.set(url, validator)
  return validator
}

/** One request, its response unchecked. */
export async function send(url: string, method: string, path: string, options: SendOptions = {}): Promise<Answer> {
  const response = await open(url, method, path, options)
  const chunks: Buffer[] = []
  for await (const chunk of response) chunks.push(chunk as Buffer)
  const bytes = Buffer.concat(chunks)
  const text = bytes.toString('utf8')
  const headers = response.headers as Record<string, string | undefined>
  const isJson = /^application\/([\w.]+\+)?json/.test(headers['content-type'] ?? '') && text !== ''
  return { status: response.statusCode ?? 0, headers, bytes, text, json: isJson ? JSON.parse(text) : undefined }
}

/** A socket of its own for each request: a pooled one may be closed by the server just as it is used again. */
const agent = new Agent({ keepAlive: false })

function open(url: string, method: string, path: string, { headers = {}, body, signal }: SendOptions): Promise<IncomingMessage> {
  const isRaw = typeof body === 'string' || body instanceof Uint8Array
  const payload = body === undefined || isRaw ? (body as string | Uint8Array | undefined) : JSON.stringify(body)
  const type = body === undefined || isRaw ? {} : { 'Content-Type': 'application/json' }
  const length = payload === undefined || 'Transfer-Encoding' in headers ? {} : { 'Content-Length': String(Buffer.byteLength(payload)) }
  return new Promise((resolve, reject) => {
    const { hostname, port } = new URL(url)
    const request = httpRequest(
      {
        agent,
        hostname: hostname.replaceAll(/[[\]]/g, ''),
        port,
        method,
        path,
        headers: { ...type, ...length, ...headers },
        ...(signal && { signal }),
      },
      resolve,
    )
    request.on('error', reject)
    request.end(payload)
  })
}

/** A client of one API; every response is checked before the test sees it. */
export class ApiClient {
  readonly url: string
  readonly #headers: Record<string, string>

  constructor(url: string, options: { key?: string } = {}) {
    this.url = url
    this.#headers = options.key === undefined ? {} : { Authorization: `Bearer ${options.key}` }
  }

  async request(method: string, path: string, options: SendOptions = {}): Promise<Answer> {
    const answer = await send(this.url, method, path, { ...options, headers: { ...this.#headers, ...options.headers } })
    const validator = await validatorOf(this.url)
    if (method !== 'HEAD') validator.check(method, path, answer.status, answer.headers['content-type'], answer.text)
    if (!answer.headers['x-request-id']) throw new Error(`${method} ${path}: no X-Request-Id`)
    return answer
  }

  get(path: string, options: SendOptions = {}): Promise<Answer> {
    return this.request('GET', path, options)
  }

  post(path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Answer> {
    return this.request('POST', path, { headers, ...(body !== undefined && { body }) })
  }

  delete(path: string): Promise<Answer> {
    return this.request('DELETE', path)
  }

  /** Server-sent events until the stream ends or the caller stops; each is checked. Ends at once on 204. */
  async *events(path: string, options: SendOptions = {}): AsyncGenerator<ServerSentEvent> {
    const stop = new AbortController()
    const signal = options.signal ? AbortSignal.any([options.signal, stop.signal]) : stop.signal
    const validator = await validatorOf(this.url)
    const response = await open(this.url, 'GET', path, { headers: { ...this.#headers, ...options.headers }, signal })
    try {
      if (response.statusCode === 204) return
      const type = response.headers['content-type']
      if (response.statusCode !== 200 || type !== 'text/event-stream') throw new Error(`GET ${path} → ${response.statusCode} ${type}`)
      let buffer = ''
      response.setEncoding('utf8')
      for await (const chunk of response) {
        buffer += chunk as string
        for (let end = buffer.indexOf('\n\n'); end >= 0; end = buffer.indexOf('\n\n')) {
          const event = parseEvent(buffer.slice(0, end))
          buffer = buffer.slice(end + 2)
          if (!event) continue
          validator.checkSchema(
            event.event === 'progress' ? 'Progress' : path.startsWith('/v1/devices/') ? 'DeviceEvent' : 'SessionEvent',
            event.data,
          )
          yield event
        }
      }
    } finally {
      stop.abort()
      response.destroy()
    }
  }
}

function parseEvent(block: string): ServerSentEvent | undefined {
  const fields = new Map(
    block
      .split('\n')
      .filter((line) => !line.startsWith(':'))
      .map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1).trimStart()] as const),
  )
  const data = fields.get('data')
  return data === undefined
    ? undefined
    : { id: fields.get('id'), event: fields.get('event') ?? 'message', data: JSON.parse(data) as unknown }
}
