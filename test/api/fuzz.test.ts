/**
 * Hostile requests drawn from a grammar, byte for byte, on a real API: each is answered, none is a defect, and nothing
 * is left but what was accepted. `FUZZ=5000` draws more, `FUZZ_SEED=7` others.
 */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { message, raw, type RawAnswer } from '../support/raw.ts'
import { picture, sketchOf, startHarness, type Harness } from './harness.ts'

const requests = Number(process.env['FUZZ'] ?? 1200)
const seed = Number(process.env['FUZZ_SEED'] ?? 20_261_128)

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
afterAll(() => h.stop())

/** mulberry32: the same requests for the same seed. */
function lots(state: number): () => number {
  return () => {
    state = (state + 0x6d_2b_79_f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

class Grammar {
  readonly #lot: () => number
  readonly #paths: readonly string[]
  readonly #ids: readonly string[]

  constructor(draw: number, paths: readonly string[], ids: readonly string[]) {
    this.#lot = lots(draw)
    this.#paths = paths
    this.#ids = ids
  }

  below = (n: number): number => Math.floor(this.#lot() * n)
  chance = (share: number): boolean => this.#lot() < share
  pick = <T>(from: readonly T[]): T => from[this.below(from.length)] as T
  some = (n: number): string => Array.from({ length: this.below(n) }, () => String.fromCodePoint(this.below(256))).join('')

  method = (): string =>
    this.chance(0.8)
      ? this.pick(['GET', 'POST', 'PUT', 'DELETE'])
      : this.pick(['HEAD', 'OPTIONS', 'PATCH', 'TRACE', 'get', 'QUERY', 'LINK', 'PURGE'])

  segment = (): string =>
    this.pick([
      ...this.#ids,
      '%00',
      '%zz',
      '%',
      '%ff',
      '%c0%ae%c0%ae',
      '..',
      '%2e%2e',
      '.',
      'a%2fb',
      '{id}',
      '__proto__',
      'constructor',
      'x'.repeat(300),
      '%F0%9F%8E%A8',
      '%u0041',
      '0'.repeat(64),
      'cpu:0',
      "'--",
      ';id=1',
      'a b',
      '\u00ff',
      '*',
      '',
    ])

  target(): string {
    const path = this.pick(this.#paths).replaceAll(/\{\w+\}/g, () => this.segment())
    const form = this.chance(0.85)
      ? path
      : this.pick([
          `/${path}`,
          `${path}/`,
          `http://localhost${path}`,
          `http://evil${path}`,
          `http://[${path}`,
          `http://localhost:x${path}`,
          path.slice(1),
          path.toUpperCase(),
          path.replaceAll('/', '//'),
          `${path}#x`,
          `/.${path}`,
          path.replaceAll('/', '\\'),
          '*',
          '/',
          '//',
          '?',
          `https://localhost${path}`,
        ])
    return this.chance(0.7) ? form : `${form}?${this.query()}`
  }

  query = (): string =>
    Array.from({ length: 1 + this.below(3) }, () => {
      const name = this.pick([
        'limit',
        'status',
        'tag',
        'workflow',
        'cursor',
        'parent',
        'after',
        'device',
        'x',
        '',
        '__proto__',
        'limit%00',
        '%ff',
        'a[b]',
        'toString',
      ])
      const value = this.pick([
        '1',
        '0',
        '-1',
        '1e3',
        '99999999999999999999',
        '',
        '%00',
        '%ff',
        '%zz',
        'queued',
        'done',
        'a+b',
        '%F0%9F%8E%A8',
        'x'.repeat(600),
        'NaN',
        '0x10',
        '1.0',
        '\u00e9',
        this.pick(this.#ids),
      ])
      return this.chance(0.1) ? name : `${name}=${value}`
    }).join(this.pick(['&', '&', '&&', ';']))

  header = (): string =>
    this.pick([
      () =>
        `Prefer: ${this.pick(['wait=0', 'wait=1', 'wait="0"', 'wait', 'wait=-1', 'wait=1e9x', 'respond-async, wait=0', '"', 'a="\\', ',,,,', 'wait=0;;', ' ; wait=1'])}`,
      () => `Idempotency-Key: ${this.pick(['k', '"k"', '"', '""', 'a b', 'x'.repeat(256), '\u00fc', '"\\x"', `k${this.below(5)}`])}`,
      () => `Last-Event-ID: ${this.pick(['0', '1', '99', '-1', 'x', '', '1e5', '999999999999999', '9999999999999999'])}`,
      () => `Range: ${this.pick(['bytes=0-0', 'bytes=-1', 'bytes=9-1', 'bytes=0-0,2-2', 'x', 'bytes=', `bytes=${'9'.repeat(99)}-`])}`,
      () => `If-None-Match: ${this.pick(['*', 'W/"x"', '"x', '"a","b"', ',', this.some(20).replaceAll(/[\r\n\0]/g, '')])}`,
      () => `Accept: ${this.pick(['text/event-stream', '*/*;q=0', 'application/xml', ';;', 'a/b;q=2', 'text/event-stream;q=0'])}`,
      () =>
        `Content-Type: ${this.pick(['application/json', 'application/json; charset=utf-8', 'application/json;charset=latin1', 'text/plain', 'application/json;;', 'json', 'application/x-www-form-urlencoded', 'application/vnd.x+json', 'APPLICATION/JSON', ''])}`,
      () => `Content-Encoding: ${this.pick(['gzip', 'identity', 'br', ''])}`,
      () => `Authorization: ${this.pick(['Bearer x', 'Bearer', 'Basic eDp5', 'bAsIc !!', '', `dk_${'0'.repeat(8)}_${'x'.repeat(43)}`])}`,
      () =>
        `Host: ${this.pick(['localhost', 'LOCALHOST:1', '127.0.0.1', '[::1]', '[::1', 'evil', '', 'a b', 'localhost:99999', 'localhost/x', 'u@localhost', '0x7f.1', '\u00ff', 'localhost.'])}`,
      () => `Origin: ${this.pick(['null', 'http://localhost', 'http://evil', 'x', ''])}`,
      () => `Expect: ${this.pick(['100-continue', 'x', ''])}`,
      () => `Connection: ${this.pick(['close', 'keep-alive', 'upgrade', 'x, close'])}`,
      () => `Upgrade: ${this.pick(['websocket', 'h2c'])}`,
      () => `X-Request-Id: ${this.pick(['a', 'x'.repeat(65), 'a b', '\u00ff', '<script>'])}`,
      () => `traceparent: ${this.pick(['00-0-0-0', 'x', ''])}`,
      () => `X-${this.below(9)}: ${this.some(30).replaceAll(/[\r\n\0]/g, '')}`,
      () => `Cookie: ${this.pick(['a=b', '__proto__=1; ;;=', '\u00ff'])}`,
      () => this.pick(['X-Fold: a\r\n b', 'No colon', 'Bad Name: x', ': x', 'X-Nul: a\0b', `X-Long: ${'x'.repeat(17_000)}`]),
    ])()

  value = (): string =>
    this.pick([
      '1',
      '0',
      '-0',
      '-1',
      '1.5',
      '1e400',
      '-1e400',
      '1e-400',
      '9007199254740993',
      '12345678901234567890',
      '1.0',
      '5.00000000000000000001',
      'null',
      'true',
      '""',
      '"x"',
      '"\\ud800"',
      '"\\u0000"',
      `"${'x'.repeat(9000)}"`,
      '[]',
      '{}',
      '[[[[]]]]',
      '{"__proto__":{"x":1}}',
      '{"constructor":{"prototype":{}}}',
      '{"a":1,"a":2}',
      `${'['.repeat(200)}${']'.repeat(200)}`,
      '"\u001b[31m"',
      '"../../etc/passwd"',
      '"cpu:0"',
      '"%00"',
      '"\u00ff"',
      '1,',
      'NaN',
      "'x'",
      '// x',
      '+1',
      '01',
      '.5',
      '"\\x"',
      '"\t"',
    ])

  body(): string {
    const text = JSON.stringify(
      this.pick([
        picture(),
        sketchOf('x'),
        { bytes: 4096 },
        { device: 'cpu:0', bytes: 1 },
        { type: 'x', eventId: 'e', data: {} },
        { device: null },
        { from: 'a', to: 'b' },
        { timeToLiveS: 5 },
        { workflow: 'memory-allocate', input: { bytes: 1 } },
        {},
      ]),
    )
    switch (this.below(8)) {
      case 0:
        return text
      case 1:
        return text.slice(0, this.below(text.length))
      case 2:
        return text.replaceAll(/"[^"]*"(?=[,}])|\b\d+\b/g, (found) => (this.chance(0.4) ? this.value() : found))
      case 3:
        return text.replace(
          '{',
          `{"${this.pick(['__proto__', 'workflow', 'input', 'x', '\\u005f_proto__', 'constructor', ''])}":${this.value()},`,
        )
      case 4:
        return this.value()
      case 5:
        return text.slice(0, this.below(text.length)) + this.some(4) + text.slice(this.below(text.length))
      case 6:
        return `${this.pick(['\ufeff', ' ', '\n'])}${text}${this.pick(['', '}', '\0', ' x'])}`
      default:
        return this.some(60)
    }
  }

  /** The bytes, and whether the request is whole: only then an answer is owed. A third is nearly a good submission. */
  request(): { bytes: Buffer; method: string; isWhole: boolean } {
    if (this.chance(0.3)) {
      const headers = [this.header()].filter((each) => this.chance(0.5) && !/^(host|content-type|expect|upgrade):/i.test(each))
      const body = this.chance(0.4) ? JSON.stringify(sketchOf('x')) : this.body()
      return { bytes: message('POST', '/v1/sessions', headers, Buffer.from(body)), method: 'POST', isWhole: true }
    }
    const method = this.method()
    const headers = Array.from({ length: this.below(4) }, () => this.header())
    const has = (name: string): boolean => headers.some((each) => each.toLowerCase().startsWith(`${name}:`))
    const body =
      method === 'POST' || method === 'PUT' || this.chance(0.1)
        ? Buffer.from(this.body(), this.chance(0.8) ? 'utf8' : 'latin1')
        : Buffer.alloc(0)
    let framed = body
    const kind = body.length === 0 ? 0 : this.below(12)
    if (kind <= 7 && body.length > 0) headers.push(`Content-Length: ${body.length}`)
    else if (kind === 8 || kind === 9) {
      headers.push('Transfer-Encoding: chunked')
      framed = Buffer.concat([
        Buffer.from(`${body.length.toString(16)}\r\n`),
        body,
        Buffer.from(this.pick(['\r\n0\r\n\r\n', '\r\n0;x=y\r\nTrailer: x\r\n\r\n'])),
      ])
    } else if (kind === 10)
      headers.push(
        this.pick([`Content-Length: ${body.length + 5}`, 'Content-Length: -1', 'Content-Length: 1, 2', 'Transfer-Encoding: gzip']),
      )
    else if (kind === 11) headers.push(`Content-Length: ${body.length}`, 'Transfer-Encoding: chunked')
    if (body.length > 0 && !has('content-type') && this.chance(0.9)) headers.push('Content-Type: application/json')
    if (!has('host') && this.chance(0.98)) headers.unshift('Host: localhost')
    const version = this.chance(0.96) ? 'HTTP/1.1' : this.pick(['HTTP/1.0', 'HTTP/2.0', 'HTTP/0.9', 'HTTPS/1.1', 'http/1.1', ''])
    const head = Buffer.from([`${method} ${this.target()} ${version}`, ...headers, '', ''].join('\r\n'), 'latin1')
    return { bytes: Buffer.concat([head, framed]), method, isWhole: kind <= 7 }
  }
}

/** What an answer must be, whatever was asked; undefined when it is. */
function faultOf(answer: RawAnswer | undefined, isWhole: boolean): string | undefined {
  if (!answer) return isWhole ? 'no answer' : undefined
  const { status, headers, text, json } = answer
  if (status >= 500) return `a defect: ${status} ${text}`
  if (status < 400) return undefined
  if (!headers['x-request-id']) return `${status} without a request id`
  if (text === '') return undefined
  if (headers['content-type'] !== 'application/problem+json')
    return `${status} that is no problem: ${headers['content-type']} ${text.slice(0, 200)}`
  const whole =
    json.status === status &&
    json.requestId === headers['x-request-id'] &&
    [json.code, json.detail, json.remedy, json.title].every((each) => typeof each === 'string' && each !== '')
  if (!whole) return `an incomplete problem: ${text.slice(0, 300)}`
  return text.length > 30_000 ? `${text.length} bytes of refusal` : undefined
}

it(`${requests} requests of seed ${seed} are each answered as they deserve`, async () => {
  const running = (await h.client.post('/v1/sessions', sketchOf('running'))).json.id as string
  const ended = (await h.client.post('/v1/sessions', sketchOf('ended'))).json.id as string
  const sha256 = await h.finish(ended)
  const { json: document } = await h.client.get('/openapi.json')
  const paths = [
    // No worker runs here, so /v1/ready is 503.
    ...Object.keys(document.paths as object).filter((path) => path !== '/v1/ready'),
    '/',
    '/docs',
    '/docs/{file}',
    '/openapi.json',
    '/admin/queues',
    '/admin/{x}',
    '/v1/{x}',
    '/{x}/{x}',
  ]
  // Each by its own lot, so that a request is the same whatever came before it.
  const made = Array.from({ length: requests }, (_, i) => new Grammar(seed + i, paths, [running, ended, sha256]).request())
  const faults: string[] = []
  const statuses = new Map<number, number>()
  let next = 0
  const worker = async (): Promise<void> => {
    for (let i = next++; i < made.length; i = next++) {
      const { bytes, method, isWhole } = made[i] as (typeof made)[number]
      const answer = await raw(h.api.port, bytes, { ms: isWhole ? 10_000 : 500, isHead: method === 'HEAD' }).catch((error: Error) =>
        isWhole ? error : undefined,
      )
      const fault = answer instanceof Error ? answer.message : faultOf(answer, isWhole)
      if (fault) faults.push(`#${i} ${JSON.stringify(bytes.toString('latin1').slice(0, 400))}: ${fault}`)
      if (answer && !(answer instanceof Error)) statuses.set(answer.status, (statuses.get(answer.status) ?? 0) + 1)
    }
  }
  await Promise.all(Array.from({ length: 12 }, worker))
  expect(faults).toEqual([])
  // The grammar reaches both sides of the door.
  for (const status of [200, 202, 400, 404, 405, 415, 421, 422]) expect(statuses.get(status) ?? 0, String(status)).toBeGreaterThan(0)
  // Nothing was polluted, and what is listed can be read.
  expect(({} as Record<string, unknown>)['x']).toBeUndefined()
  expect((await h.client.get('/v1/health')).status).toBe(200)
  const { sessions } = (await h.client.get('/v1/sessions?limit=200')).json as { sessions: { id: string }[] }
  for (const { id } of sessions.slice(0, 20)) expect((await h.client.get(`/v1/sessions/${id}`)).status).toBe(200)
}, 300_000)
