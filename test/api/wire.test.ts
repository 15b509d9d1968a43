/** The wire by hand: what HTTP, UTF-8, JSON and the headers' own grammars say, byte for byte. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { limits } from '../../src/api/http-server.ts'
import { listen } from '../../src/api/server.ts'
import { createLog } from '../../src/log.ts'
import { connection, message, raw, type RawAnswer } from '../support/raw.ts'
import { png, picture, sketchOf, startHarness, type Harness } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
afterAll(() => h.stop())

const ask = (...of: Parameters<typeof message>): Promise<RawAnswer | undefined> => raw(h.api.port, message(...of))
const sessions = async (): Promise<number> => (await h.client.get('/v1/sessions?limit=200')).json.sessions.length
const malformed = (field?: string) => ({
  status: 400,
  headers: { 'content-type': 'application/problem+json', 'x-request-id': expect.any(String) as string },
  json: {
    status: 400,
    code: 'api.malformed',
    remedy: expect.any(String) as string,
    requestId: expect.any(String) as string,
    ...(field && { field }),
  },
})

describe('the target', () => {
  it.each([
    'http://[::1',
    'http://',
    'http://localhost:99999/v1/health',
    'http://user@localhost/v1/health',
    'https://[zz]/v1/health',
    'HTTP://%/v1/health',
    'v1/health',
    'localhost:4780',
    '*',
    'ftp://localhost/v1/health',
    '/v1/%zz',
    '/v1/%',
    '/v1/%f',
    '/v1/sessions/%ff',
    '/v1/sessions/%c0%af',
    '/v1/sessions/%ed%a0%80',
    '/v1/sessions/%00',
    '/v1/sessions/a%0ab',
    '/v1/sessions/a%c2%85b',
    '/v1\\sessions',
    '/v1/health#part',
    '/v1/sessions?tag=%ff',
    '/v1/sessions?%ff=1',
    '/v1/sessions?tag=a&limit=%zz',
  ])('%s is a 400', async (target) => {
    expect(await ask('GET', target)).toMatchObject(malformed())
  })

  it.each(['/v1/sessions?tag=gr\u00fc\u00df', '/v1/sessions/\u00fc'])('bytes beyond ASCII are a 400: %s', async (target) => {
    expect(await ask('GET', target)).toMatchObject(malformed())
  })

  it('names the query parameter that does not decode', async () => {
    expect(await ask('GET', '/v1/sessions?tag=%ff')).toMatchObject(malformed('tag'))
  })

  it.each(['//', '//v1/health', '///', '//evil.example/v1/health', '/v1//health', '/v1/health/', '/%76%31/nothing'])(
    '%s is a path that there is not',
    async (target) => {
      expect(await ask('GET', target)).toMatchObject({ status: 404, json: { code: 'api.not_found' } })
    },
  )

  it('an address as target is served where it is the Host', async () => {
    expect(await ask('GET', 'http://localhost/v1/health')).toMatchObject({ status: 200 })
    expect(await ask('GET', 'http://LOCALHOST:80/v1/health', ['Host: localhost'])).toMatchObject({ status: 200 })
    expect(await ask('GET', 'http://evil.example/v1/health')).toMatchObject({ status: 421, json: { field: 'Host' } })
    for (const host of ['ev il', 'user@localhost', 'localhost:99999', 'localhost/x', '[::1', '::1'])
      expect(await ask('GET', '/v1/health', [`Host: ${host}`])).toMatchObject(malformed())
  })

  it.each(['HTTP/2.0', 'HTTP/0.9', 'HTTP/1.2', 'HTTPS/1.1', ''])('the version %j is a 400', async (version) => {
    expect(await raw(h.api.port, `GET /v1/health ${version}\r\nHost: localhost\r\n\r\n`)).toMatchObject(malformed())
  })

  it('CONNECT is answered, and opens nothing', async () => {
    expect(await ask('CONNECT', 'localhost:22')).toMatchObject({ status: 405, headers: { allow: expect.any(String) as string } })
  })
})

describe('the headers', () => {
  it('a missing, an empty and a second Host are a 400', async () => {
    expect(await raw(h.api.port, 'GET /v1/health HTTP/1.1\r\n\r\n')).toMatchObject(malformed('Host'))
    expect(await ask('GET', '/v1/health', ['Host:'])).toMatchObject(malformed('Host'))
    expect(await ask('GET', '/v1/health', ['Host: localhost', 'Host: localhost'])).toMatchObject(malformed('Host'))
    expect(await ask('GET', '/v1/health', ['Host: evil.example'])).toMatchObject({ status: 421 })
  })

  it('an expectation that cannot be met is a 417; 100-continue is met', async () => {
    expect(await ask('POST', '/v1/sessions', ['Expect: 200-ok'], '{}')).toMatchObject({
      status: 417,
      json: { code: 'api.expectation_failed', field: 'Expect' },
    })
    expect(await ask('POST', '/v1/sessions', ['Expect: 100-continue'], '{}')).toMatchObject({ status: 422 })
  })

  it('bytes that are no UTF-8 are a 400 that names the header', async () => {
    expect(await ask('GET', '/v1/health', ['X-Client: \u00ff\u00fe'])).toMatchObject(malformed('X-Client'))
    expect(await ask('POST', '/v1/sessions', ['Idempotency-Key: \u00fcmlaut'], '{}')).toMatchObject(malformed('Idempotency-Key'))
    expect(await ask('GET', '/v1/health', [`X-Client: ${Buffer.from('grün').toString('latin1')}`])).toMatchObject({ status: 200 })
  })

  it('too many bytes of them are a 431, many of them are read to the last', async () => {
    expect(await ask('GET', '/v1/health', [`X-Long: ${'x'.repeat(20_000)}`])).toMatchObject({
      status: 431,
      json: { code: 'api.headers_too_large' },
    })
    const many = Array.from({ length: 2100 }, () => 'a:')
    expect(await ask('GET', '/v1/health', [...many, 'Origin: https://evil.example'])).toMatchObject({ status: 403 })
  })

  it.each([
    ['Content-Length: 5', 'Transfer-Encoding: chunked'],
    ['Content-Length: 5', 'Content-Length: 6'],
    ['Content-Length: -1'],
    ['Content-Length: 1e3'],
    ['Transfer-Encoding: gzip'],
    ['Transfer-Encoding: chunked, identity'],
    ['Bad Name: x'],
    ['X-Fold: a\r\n b'],
  ])('%s %s is a 400', async (...headers) => {
    expect(await ask('POST', '/v1/sessions', ['Content-Type: application/json', ...headers], '0\r\n\r\n')).toMatchObject(malformed())
  })

  it.each([
    'application/json; charset=utf-8',
    'application/json;charset="UTF-8"',
    'Application/JSON ; Charset=utf8 ; profile="a;b=\\"c"',
    'application/json;',
  ])('a body of %s is read', async (type) => {
    expect(await ask('POST', '/v1/sessions', [`Content-Type: ${type}`], '{}')).toMatchObject({ status: 422, json: { code: 'api.invalid' } })
    // Where the body may be left out, it is not dropped either.
    expect(await ask('POST', '/v1/devices/x/optimize', [`Content-Type: ${type}`], '{"no":1}')).toMatchObject({
      status: 422,
      json: { field: 'no' },
    })
  })

  it.each([
    'application/json; charset=latin1',
    'application/json; charset="utf-16"',
    'application/json; charset=',
    'application/json charset=utf-8',
    'text/plain',
    'application/json; charset=utf-8; charset=utf-16',
  ])('a body of %s is a 415', async (type) => {
    const answer = await ask('POST', '/v1/sessions', [`Content-Type: ${type}`], JSON.stringify(picture()))
    expect(answer).toMatchObject({ status: 415, json: { code: 'api.unsupported_media_type', field: 'Content-Type' } })
  })
})

describe('the body', () => {
  const body = (text: string): Promise<RawAnswer | undefined> => ask('POST', '/v1/sessions', [], Buffer.from(text))

  it.each([
    [Buffer.from('{"workflow":"sketch","input":{"text":"\xff"}}', 'latin1')],
    [Buffer.from('{"workflow":"sketch","input":{"text":"\xc0\xaf"}}', 'latin1')],
    [Buffer.from('{"workflow":"sketch","input":{"text":"\xed\xa0\x80"}}', 'latin1')],
    [Buffer.from('{"workflow":"sketch","input":{"text":"\xf0\x9f\x8e"}}', 'latin1')],
    [Buffer.from('\ufeff{"workflow":"sketch","input":{"text":"x"}}', 'utf16le')],
  ])('bytes that are no UTF-8 are a 400, %#', async (bytes) => {
    expect(await ask('POST', '/v1/sessions', [], bytes)).toMatchObject(malformed('body'))
  })

  it.each([
    ['{"workflow":"sketch","input":{"text":"x","__proto__":{"a":1}}}', 'input.__proto__', /no such field/],
    ['{"workflow":"sketch","input":{"text":"x","\\u005f_proto__":1}}', 'input.__proto__', /no such field/],
    ['{"workflow":"sketch","input":{"text":"x"},"__proto__":1}', '__proto__', /no such field/],
    ['{"workflow":"sketch","input":{"text":"x","constructor":1}}', 'input.constructor', /no such field/],
    ['{"workflow":"sketch","input":{"text":"x","toString":1,"hasOwnProperty":1}}', 'input.toString', /no such field/],
    ['{"workflow":"sketch","input":{"text":"x","text":"y"}}', 'input.text', /stands twice/],
    ['{"workflow":"sketch","workflow":"image-generation","input":{"text":"x"}}', 'workflow', /stands twice/],
    ['{"workflow":"sketch","input":{"text":"x","te\\u0078t":"y"}}', 'input.text', /stands twice/],
    ['{"workflow":"sketch","input":{"text":"\\ud800"}}', 'input.text', /surrogate/],
    ['{"workflow":"sketch","input":{"text":"\\udc00\\ud800"}}', 'input.text', /surrogate/],
    ['{"workflow":"sketch","input":{"text":"x"},"tags":["a","\\ud83d"]}', 'tags.1', /surrogate/],
    ['{"workflow":"sketch","input":{"text":"x","\\ud800":1}}', 'input.\ud800', /surrogate/],
    ['{"workflow":"sketch","input":{"text":"x"},"priority":1e400}', 'priority', /beyond/],
    ['{"workflow":"sketch","input":{"text":"x"},"deadlineS":1e-400}', 'deadlineS', /too small/],
    ['{"workflow":"sketch","input":{"text":"x"},"priority":9007199254740993}', 'priority', /lose digits: it would become 9007199254740992/],
    ['{"workflow":"sketch","input":{"text":"x"},"priority":5.0000000000000000001}', 'priority', /more digits/],
    [`{"workflow":"sketch","input":${'{"a":'.repeat(5000)}1${'}'.repeat(5000)}}`, /^input(\.a)+/, /64 levels/],
    [`{"workflow":"sketch","input":{"text":${'['.repeat(5000)}${']'.repeat(5000)}}}`, /^input\.text(\.0)+/, /64 levels/],
  ])('case %#', async (text, field, words) => {
    const before = await sessions()
    const answer = await body(text)
    expect(answer).toMatchObject({ status: 422, json: { code: 'api.invalid', detail: expect.stringMatching(words) as string } })
    expect(answer?.json.field).toEqual(typeof field === 'string' ? field : expect.stringMatching(field))
    expect(await sessions()).toBe(before)
  })

  it('what is free to be anything keeps every name and every number', async () => {
    const id = (await h.client.post('/v1/sessions', sketchOf('signal'))).json.id as string
    const signal = (data: string): Promise<RawAnswer | undefined> =>
      ask('POST', `/v1/sessions/${id}/signal`, [], `{"type":"x","eventId":"e","data":${data}}`)
    expect(await signal('{"__proto__":{"a":1}}')).toMatchObject({ status: 422, json: { field: 'data.__proto__' } })
    expect(await signal('{"a":[1,{"n":12345678901234567890}]}')).toMatchObject({ status: 422, json: { field: 'data.a.1.n' } })
    // `sketch` has no signals: the data was taken, the type was not.
    expect(await signal('{"constructor":1,"n":-0,"x":1.0,"e":1e20}')).toMatchObject({
      status: 422,
      json: { code: 'session.signal_unknown' },
    })
  })

  it('whole numbers may be written as JSON can', async () => {
    const answer = await body('{"workflow":"sketch","input":{"text":"numbers"},"priority":5.0e0,"tags":[]}')
    expect(answer).toMatchObject({ status: 202, json: { priority: 5 } })
  })

  it('a byte order mark is no fault, an empty body is', async () => {
    expect(await body('\ufeff{"workflow":"sketch","input":{"text":"bom"}}')).toMatchObject({ status: 202 })
    expect(await ask('POST', '/v1/sessions', ['Content-Type: application/json', 'Content-Length: 0'])).toMatchObject(malformed())
  })
})

describe('the query', () => {
  it.each([
    ['/v1/sessions?limit=1&limit=1', 'limit'],
    ['/v1/sessions?limit=1&l%69mit=1', 'limit'],
    ['/v1/sessions?__proto__=1', '__proto__'],
    ['/v1/sessions?constructor=1', 'constructor'],
    ['/v1/sessions?=1', 'query'],
    ['/v1/sessions?tag=', 'tag'],
    ['/v1/sessions?tag', 'tag'],
    ['/v1/health?verbose=1', 'verbose'],
    ['/v1/workers?x=1', 'x'],
    ['/v1/memory?x=1', 'x'],
    ['/v1/devices?x=1', 'x'],
    ['/v1/workflows?x=1', 'x'],
  ])('GET %s names %s', async (target, field) => {
    expect(await ask('GET', target)).toMatchObject({ status: 422, json: { code: 'api.invalid', field } })
  })
})

describe('Prefer and Idempotency-Key', () => {
  it('a key in quotes is the string between them', async () => {
    const post = (key: string) => ask('POST', '/v1/sessions', [`Idempotency-Key: ${key}`], JSON.stringify(sketchOf('quoted')))
    const [bare, quoted, again] = [await post('a-key'), await post('"a-key"'), await post('"a key with \\"quotes\\""')]
    expect([bare?.status, quoted?.status, quoted?.json.id, again?.status]).toEqual([202, 200, bare?.json.id, 202])
    // Commands read it the same way.
    const command = (key: string) => ask('POST', '/v1/memory/allocations', [`Idempotency-Key: ${key}`], '{"bytes":1}')
    for (const key of ['"open', '"a", "b"', 'two words', '""'])
      expect((await command(key))?.json).toMatchObject({ status: 422, field: 'idempotency-key' })
  })

  it.each([
    ['wait=0', 'wait=0'],
    ['respond-async, wait=0', 'wait=0'],
    ['foo="a, wait=9", wait=0', 'wait=0'],
    ['WAIT="0"; x="y,z", wait=5', 'wait=0'],
    [',, wait = 0 ,', 'wait=0'],
    ['wait=soon, wait=5', undefined],
    ['wait', undefined],
    ['wait=-1', undefined],
    ['wait=1.5', undefined],
    ['"wait=1"', undefined],
  ])('Prefer: %s is %s', async (prefer, applied) => {
    const answer = await ask('POST', '/v1/sessions', [`Prefer: ${prefer}`], JSON.stringify(sketchOf('prefer')))
    expect([answer?.status, answer?.headers['preference-applied']]).toEqual([202, applied])
  })

  it('several lines of one header are one list', async () => {
    const answer = await ask('POST', '/v1/sessions', ['Prefer: respond-async', 'Prefer: wait=0'], JSON.stringify(sketchOf('prefer')))
    expect(answer?.headers['preference-applied']).toBe('wait=0')
  })
})

describe('pictures', () => {
  let path: string
  let etag: string
  beforeAll(async () => {
    const { id } = (await h.client.post('/v1/sessions', sketchOf('picture'))).json as { id: string }
    const sha256 = await h.finish(id)
    path = `/v1/artifacts/${sha256}`
    etag = `"${sha256}"`
  })
  const size = png.byteLength
  const part = (range: string, ...more: string[]) =>
    h.client.get(path, {
      headers: Object.fromEntries([['Range', range], ...more.map((each) => each.split(': '))]) as Record<string, string>,
    })

  it.each([
    ['bytes=0-0', 0, 0],
    ['bytes=3-', 3, size - 1],
    ['bytes=-4', size - 4, size - 1],
    [`bytes=-${size * 9}`, 0, size - 1],
    [`bytes=10-${'9'.repeat(30)}`, 10, size - 1],
    ['BYTES=1-2', 1, 2],
  ])('%s', async (range, first, last) => {
    const answer = await part(range)
    expect([answer.status, answer.headers['content-range'], answer.headers['content-length']]).toEqual([
      206,
      `bytes ${first}-${last}/${size}`,
      String(last - first + 1),
    ])
    expect(answer.bytes).toEqual(png.subarray(first, last + 1))
  })

  it.each([`bytes=${size}-`, 'bytes=-0', 'bytes=99999-99999', `bytes=${'9'.repeat(400)}-`])('%# is a 416', async (range) => {
    const answer = await part(range)
    expect([answer.status, answer.headers['content-range'], answer.json.code]).toEqual([416, `bytes */${size}`, 'artifact.range'])
  })

  it.each(['bytes=5-2', 'bytes=a-b', 'bytes=', 'bytes=0-1,3-4', 'lines=0-1', 'bytes 0-1', 'bytes=0x1-2', 'bytes=-'])(
    '%s is answered with the whole',
    async (range) => {
      const answer = await part(range)
      expect([answer.status, answer.bytes.length]).toEqual([200, size])
    },
  )

  it('If-Range: the tag gives the part, anything else the whole', async () => {
    expect((await part('bytes=0-1', `If-Range: ${etag}`)).status).toBe(206)
    for (const other of [`W/${etag}`, '"x"', 'Wed, 21 Oct 2026 07:28:00 GMT'])
      expect((await part('bytes=0-1', `If-Range: ${other}`)).status).toBe(200)
    const head = await h.client.request('HEAD', path, { headers: { Range: 'bytes=0-1' } })
    expect([head.status, head.headers['content-length']]).toEqual([200, String(size)])
  })

  it('If-None-Match', async () => {
    const status = async (value: string): Promise<number> => (await h.client.get(path, { headers: { 'If-None-Match': value } })).status
    for (const known of ['*', etag, `W/${etag}`, `"a", "b,c" , ${etag}`, `,${etag},,`])
      expect([known, await status(known)]).toEqual([known, 304])
    for (const other of [etag.slice(1, -1), '"x"', `"a, ${etag.slice(1)}`, `"x${etag.slice(1)}`, `*, ${etag}`, `w/${etag}`])
      expect([other, await status(other)]).toEqual([other, 200])
  })
})

describe('connections', () => {
  it('stay open, and say for how long; the server keeps them longer than it says', async () => {
    const { socket, send, next } = connection(h.api.port)
    send(message('GET', '/v1/health'))
    expect((await next())?.headers).toMatchObject({ connection: 'keep-alive', 'keep-alive': `timeout=${limits.idleS}` })
    expect(limits.idleS).toBeGreaterThanOrEqual(75)
    send(message('GET', '/v1/health', ['Connection: close']))
    expect((await next())?.headers['connection']).toBe('close')
    socket.destroy()
    const api = await listen(h.parts, 0, { ...limits, idleS: 1, graceS: 2 })
    const idle = connection(api.port)
    idle.send(message('GET', '/v1/health'))
    expect((await idle.next())?.headers['keep-alive']).toBe('timeout=1')
    await new Promise((resolve) => setTimeout(resolve, 1500))
    idle.send(message('GET', '/v1/health'))
    expect((await idle.next())?.status).toBe(200)
    expect(await idle.next(6000)).toBeUndefined()
    await api.close()
  }, 15_000)

  it('a head or a body that does not end is a 408', async () => {
    const api = await listen(h.parts, 0, { ...limits, headersTimeout: 300, requestTimeout: 700, connectionsCheckingInterval: 100 })
    const slow = [
      'GET /v1/health HTTP/1.1\r\nHost: localhost\r\nX-A',
      'POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"wor\r\n',
      'POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{',
    ]
    for (const answer of await Promise.all(slow.map((bytes) => raw(api.port, bytes))))
      expect(answer).toMatchObject({ status: 408, headers: { connection: 'close' }, json: { code: 'api.timed_out', class: 'transient' } })
    await api.close()
  })

  it('a client that leaves in the middle of its body is no defect', async () => {
    const logged: unknown[] = []
    const log = createLog('silent', 'api')
    log.error = (...said: unknown[]) => void logged.push(said)
    const api = await listen({ ...h.parts, log }, 0)
    for (const framing of ['Transfer-Encoding: chunked\r\n\r\n5\r\n{"wor', 'Content-Length: 50\r\n\r\n{"wor']) {
      const { socket, send } = connection(api.port)
      send(`POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n${framing}`)
      await new Promise((resolve) => setTimeout(resolve, 100))
      socket.destroy()
    }
    await new Promise((resolve) => setTimeout(resolve, 200))
    await api.close()
    expect(logged).toEqual([])
  })

  it('what follows an unanswered request never becomes its answer', async () => {
    const id = (await h.client.post('/v1/sessions', sketchOf('pipelined'))).json.id as string
    const { socket, send, next } = connection(h.api.port)
    send(
      Buffer.concat([
        message('POST', '/v1/sessions', ['Prefer: wait=1'], JSON.stringify(sketchOf('first'))),
        Buffer.from('NONSENSE\r\n\r\n'),
      ]),
    )
    const answer = await next()
    expect([undefined, 202]).toContain(answer?.status)
    socket.destroy()
    const stream = connection(h.api.port)
    stream.send(message('GET', `/v1/sessions/${id}/events`))
    await new Promise((resolve) => setTimeout(resolve, 200))
    stream.send('NONSENSE\r\n\r\n')
    await new Promise((resolve) => stream.socket.once('close', resolve))
    stream.socket.destroy()
  })

  it('an API that closes answers whoever waits', async () => {
    const api = await listen(h.parts, 0)
    const { send, next } = connection(api.port)
    send(message('POST', '/v1/sessions', ['Prefer: wait=30'], JSON.stringify(sketchOf('closing'))))
    await new Promise((resolve) => setTimeout(resolve, 200))
    const closed = api.close()
    expect((await next())?.status).toBe(202)
    await closed
  })
})

describe('a position beyond the history', () => {
  it('counts as its end: the listener gets the end, with the number that holds', async () => {
    const id = (await h.client.post('/v1/sessions', sketchOf('beyond'))).json.id as string
    const { socket, send } = connection(h.api.port)
    let text = ''
    socket.on('data', (bytes) => (text += bytes.toString()))
    send(message('GET', `/v1/sessions/${id}/events`, ['Last-Event-ID: 4711']))
    await expect.poll(() => text).toContain('200 OK')
    await h.client.post(`/v1/sessions/${id}/cancel`)
    await expect.poll(() => text).toMatch(/event: session\.cancelled\r?\ndata: .*\r?\nid: 2\r?\n/)
    expect(text).not.toContain('session.created')
    socket.destroy()
    // Of one that has ended there is nothing more: an EventSource must not come back.
    expect(await ask('GET', `/v1/sessions/${id}/events`, ['Last-Event-ID: 4711'])).toMatchObject({ status: 204 })
  })

  it('of device events too, in pages and in streams', async () => {
    expect(await ask('GET', '/v1/devices/events?after=4711')).toMatchObject({ status: 200, json: { events: [], newest: 0 } })
    expect((await ask('GET', '/v1/devices/events', ['Accept: text/event-stream;q=0, */*']))?.headers['content-type']).toBe(
      'application/json',
    )
  })
})

it('seeds go to 2^53 - 1, and image i has seed + i', async () => {
  const edge = 2 ** 53 - 1
  for (const seed of [2 ** 32 - 1, 2 ** 32, edge - 1]) {
    const { json } = await h.client.post('/v1/sessions', picture({ seed, count: 2 }))
    expect(json.input).toMatchObject({ seed, count: 2 })
    await h.client.post(`/v1/sessions/${json.id}/cancel`)
  }
  const text = JSON.stringify(picture({ seed: edge }))
  expect(text).toContain('9007199254740991')
  expect(await ask('POST', '/v1/sessions', [], text)).toMatchObject({ status: 202, json: { input: { seed: edge } } })
  expect(await ask('POST', '/v1/sessions', [], text.replace('740991', '740991.4'))).toMatchObject({
    status: 422,
    json: { field: 'input.seed' },
  })
  expect((await h.client.post('/v1/sessions', picture({ seed: edge, count: 2 }))).json).toMatchObject({ status: 422, field: 'input.seed' })
})
