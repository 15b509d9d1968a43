import { request } from 'node:http'
import { connect } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ApiClient } from '../support/http.ts'
import { picture, sketchOf, startHarness, type Harness } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
afterAll(() => h.stop())

const everywhere = [
  ['GET', '/v1/sessions'],
  ['POST', '/v1/sessions'],
  ['DELETE', '/v1/sessions/x'],
  ['PUT', '/v1/sessions/x'],
  ['PATCH', '/v1/sessions/x'],
  ['OPTIONS', '/v1/sessions'],
  ['GET', '/v1/sessions/x/events'],
  ['GET', '/v1/health'],
  ['GET', '/openapi.json'],
  ['GET', '/docs'],
  ['GET', '/admin/queues'],
  ['PUT', '/admin/queues/api/queues/pause'],
  ['GET', '/nothing'],
] as const

describe.each(everywhere)('%s %s', (method, path) => {
  it.each([
    'evil.example',
    'evil.example:4780',
    'localhost.evil.example',
    '127.0.0.1.evil.example',
    'localhost.',
    '169.254.169.254',
    '[::2]',
  ])('refuses the foreign Host %s', async (host) => {
    const answer = await h.client.request(method, path, { headers: { Host: host } })
    expect(answer.status).toBe(421)
    expect(answer.json).toMatchObject({ code: 'api.host_refused', field: 'Host', status: 421 })
    expect(answer.json.remedy).toMatch('DARKROOM_ALLOWED_HOSTS')
  })

  it.each(['https://evil.example', 'null', 'http://localhost:1', 'http://127.0.0.1', 'file://', 'http://localhost.evil.example'])(
    'refuses the foreign Origin %s',
    async (origin) => {
      const answer = await h.client.request(method, path, { headers: { Origin: origin } })
      expect(answer.status).toBe(403)
      expect(answer.json).toMatchObject({ code: 'api.origin_refused', field: 'Origin' })
      expect(answer.headers['access-control-allow-origin']).toBeUndefined()
    },
  )

  it('refuses what a page of another site sends without an Origin', async () => {
    const answer = await h.client.request(method, path, { headers: { 'Sec-Fetch-Site': 'cross-site' } })
    expect(answer.status).toBe(403)
    expect(answer.json).toMatchObject({ code: 'api.origin_refused', field: 'Sec-Fetch-Site' })
  })

  it.each(['X-Forwarded-For', 'Forwarded'])('refuses a keyless request that carries %s', async (header) => {
    const answer = await h.client.request(method, path, { headers: { [header]: '203.0.113.7' } })
    expect(answer.status).toBe(403)
    expect(answer.json).toMatchObject({ code: 'api.forwarded_refused', field: header.toLowerCase() })
  })

  it.each([
    'text/plain',
    'application/x-www-form-urlencoded',
    'multipart/form-data; boundary=x',
    'text/plain;application/json',
    'application/jsonx',
  ])('refuses a body of type %s', async (type) => {
    const answer = await h.client.request(method, path, { headers: { 'Content-Type': type }, body: JSON.stringify(picture()) })
    expect(answer.status).toBe(415)
    expect(answer.json).toMatchObject({ code: 'api.unsupported_media_type', field: 'Content-Type' })
  })
})

it.each([
  'X-Real-IP',
  'Via',
  'Forwarded',
  'X-Forwarded',
  'X-Forwarded-Host',
  'X-Forwarded-Proto',
  'X-Forwarded-Server',
  'X_Forwarded_For',
  'Forwarded-For',
  'X-Forward-For',
  'CF-Connecting-IP',
  'CF-Ray',
  'CDN-Loop',
  'True-Client-IP',
  'X-Client-IP',
  'X-Cluster-Client-IP',
  'X-Remote-IP',
  'X-Remote-Addr',
  'X-Originating-IP',
  'X-Original-URL',
  'X-Original-Host',
  'X-Rewrite-URL',
  'X-Host',
  'X-ProxyUser-IP',
  'WL-Proxy-Client-IP',
  'Proxy-Connection',
  'Fly-Client-IP',
  'Fastly-Client-IP',
  'Fastly-FF',
  'X-Envoy-External-Address',
  'X-Envoy-Internal',
  'X-Amzn-Trace-Id',
  'X-Amz-Cf-Id',
  'CloudFront-Viewer-Address',
  'X-Cloud-Trace-Context',
  'X-Appengine-User-IP',
  'X-Azure-ClientIP',
  'X-Azure-FDID',
  'X-ARR-SSL',
  'X-Vercel-Id',
  'X-NF-Client-Connection-IP',
  'Akamai-Origin-Hop',
  'Incap-Client-IP',
  'X-Sucuri-ClientIP',
  'X-Varnish',
  'X-Served-By',
  'Early-Data',
  'Max-Forwards',
  'Front-End-Https',
  'SSL-Client-Verify',
])('a request without a key that carries %s came through a proxy', async (header) => {
  const { key, record } = await h.keys.add('behind a proxy', ['read'])
  for (const path of ['/v1/sessions', '/v1/health', '/docs']) {
    const answer = await h.client.get(path, { headers: { [header]: '203.0.113.7' } })
    expect(answer.json).toMatchObject({ status: 403, code: 'api.forwarded_refused', field: header.toLowerCase() })
  }
  expect((await new ApiClient(h.url, { key }).get('/v1/sessions', { headers: { [header]: '1' } })).status).toBe(200)
  await h.keys.revoke(record.id)
  await h.keys.open()
})

it('what local programs and browsers send is no trace of a proxy', async () => {
  const names = [
    'Accept',
    'Accept-Language',
    'Cache-Control',
    'Cookie',
    'DNT',
    'Priority',
    'Range',
    'Referer',
    'Traceparent',
    'User-Agent',
    'Idempotency-Key',
  ]
  const more = [
    'X-Requested-With',
    'X-Stainless-OS',
    'X-Stainless-Retry-Count',
    'Sec-CH-UA',
    'Sec-Fetch-Mode',
    'Upgrade-Insecure-Requests',
    'X-Request-Id',
  ]
  for (const name of [...names, ...more]) expect((await h.client.get('/v1/health', { headers: { [name]: 'x' } })).status, name).toBe(200)
})

it('HTTP/1.0 without a key, as proxies speak it to what is behind them, is refused; with a key it is answered', async () => {
  const refused = await raw('GET /v1/sessions HTTP/1.0\r\nHost: localhost\r\n\r\n')
  expect(JSON.parse(refused.text)).toMatchObject({
    status: 403,
    code: 'api.forwarded_refused',
    detail: expect.stringContaining('HTTP/1.0'),
  })
  const { key, record } = await h.keys.add('behind a proxy', ['read'])
  expect(await raw(`GET /v1/sessions HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer ${key}\r\n\r\n`)).toMatchObject({ status: 200 })
  await h.keys.revoke(record.id)
  await h.keys.open()
})

it('a refused submission leaves nothing behind', async () => {
  const before = (await h.client.get('/v1/sessions')).json.sessions.length
  await h.client.request('POST', '/v1/sessions', { headers: { 'Content-Type': 'text/plain' }, body: JSON.stringify(picture()) })
  await h.client.post('/v1/sessions', picture(), { Origin: 'https://evil.example' })
  await h.client.post('/v1/sessions', picture(), { Host: 'evil.example' })
  expect((await h.client.get('/v1/sessions')).json.sessions).toHaveLength(before)
})

it('a body without a type, a compressed body, an empty form are refused', async () => {
  const bare = await h.client.request('POST', '/v1/sessions', { body: JSON.stringify(picture()) })
  expect(bare.json).toMatchObject({ status: 415, field: 'Content-Type' })
  const packed = await h.client.post('/v1/sessions', picture(), { 'Content-Encoding': 'gzip' })
  expect(packed.json).toMatchObject({ status: 415, field: 'Content-Encoding' })
  const form = await h.client.request('POST', '/v1/sessions/x/cancel', { headers: { 'Content-Type': 'text/plain', 'Content-Length': '0' } })
  expect(form.json).toMatchObject({ status: 415 })
})

it.each(['localhost', 'LOCALHOST:4780', '127.0.0.1', '127.0.0.1:9', '[::1]:80'])('answers to its own name %s', async (host) => {
  expect((await h.client.get('/v1/health', { headers: { Host: host } })).status).toBe(200)
})

it('answers its own pages, and users who type the address', async () => {
  const { host } = new URL(h.url)
  expect((await h.client.get('/v1/sessions', { headers: { Origin: h.url, 'Sec-Fetch-Site': 'same-origin' } })).status).toBe(200)
  expect((await h.client.get('/v1/sessions', { headers: { Origin: `https://${host}` } })).status).toBe(200)
  expect((await h.client.get('/docs', { headers: { 'Sec-Fetch-Site': 'none' } })).status).toBe(200)
  expect((await h.client.post('/v1/sessions', sketchOf('own page'), { Origin: h.url })).status).toBe(202)
})

it.each(['/', '/docs', '/openapi.json', '/metrics', '/v1/sessions', '/admin/queues', '/nothing'])('no page may frame %s', async (path) => {
  const { headers } = await h.client.get(path)
  expect(headers['x-frame-options']).toBe('DENY')
  expect(headers['x-content-type-options']).toBe('nosniff')
  if (headers['content-type']?.includes('html')) expect(headers['content-security-policy']).toContain("frame-ancestors 'none'")
})

it.each([
  '//evil.example',
  '//evil.example/%2e%2e',
  '/%2f%2fevil.example',
  '/\\evil.example',
  '/docs//evil.example',
  '/admin/queues//evil.example',
  '/?next=//evil.example',
  '/v1/login?return=https://evil.example',
  '/https://evil.example',
])('no address leads to another host: %s', async (path) => {
  const { status, headers } = await h.client.get(path)
  const { location } = headers
  expect(location === undefined || new URL(location, h.url).origin === h.url, `${status} ${location}`).toBe(true)
})

it('a login from a page of another site is refused, and leaves no cookie', async () => {
  const { key } = await h.withKey('read')
  const sent: Record<string, string>[] = [
    { Origin: 'https://evil.example' },
    { 'Sec-Fetch-Site': 'cross-site' },
    { Origin: 'null' },
    { 'Content-Type': 'text/plain' },
  ]
  for (const headers of sent) {
    const answer = await h.client.request('POST', '/v1/login', { body: { key }, headers })
    expect([403, 415]).toContain(answer.status)
    expect(answer.headers['set-cookie']).toBeUndefined()
  }
  for (const { id } of await h.keys.list()) await h.keys.revoke(id)
  await h.keys.open()
})

it('further hosts and origins are a setting; only then is there CORS', async () => {
  const { url } = await h.another({ allowedHosts: ['darkroom.lan', 'box:8080'], allowedOrigins: ['https://table.example'] })
  const client = new ApiClient(url)
  expect((await client.get('/v1/health', { headers: { Host: 'darkroom.lan:1234' } })).status).toBe(200)
  expect((await client.get('/v1/health', { headers: { Host: 'box:8080' } })).status).toBe(200)
  expect((await client.get('/v1/health', { headers: { Host: 'box:8081' } })).status).toBe(421)

  const page = { Origin: 'https://table.example', 'Sec-Fetch-Site': 'cross-site' }
  const read = await client.get('/v1/sessions', { headers: page })
  expect(read.status).toBe(200)
  expect(read.headers['access-control-allow-origin']).toBe('https://table.example')
  expect(read.headers['access-control-allow-credentials']).toBeUndefined()
  const preflight = await client.request('OPTIONS', '/v1/sessions', {
    headers: { ...page, 'Access-Control-Request-Method': 'POST', 'Access-Control-Request-Headers': 'authorization,content-type' },
  })
  expect(preflight.status).toBe(204)
  expect(preflight.headers['access-control-allow-headers']).toMatch('authorization')
  // A refusal can be read by the page, too.
  expect((await client.get('/v1/sessions/none', { headers: page })).headers['access-control-allow-origin']).toBe('https://table.example')
  expect((await client.get('/v1/sessions', { headers: { Origin: 'https://other.example' } })).status).toBe(403)
})

it('without allowed origins no CORS header is ever sent', async () => {
  const answer = await h.client.request('OPTIONS', '/v1/sessions', { headers: { 'Access-Control-Request-Method': 'POST' } })
  expect(answer.status).toBe(405)
  expect(Object.keys(answer.headers).filter((name) => name.startsWith('access-control'))).toEqual([])
})

it.each(['ev il', 'user@localhost', 'localhost:99999', 'localhost/x'])('a Host that is no name (%s) is a problem too', async (host) => {
  const { status, type, text } = await raw(`GET /v1/health HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`)
  expect([400, 421]).toContain(status)
  expect(type).toBe('application/problem+json')
  expect(JSON.parse(text)).toMatchObject({ status, requestId: expect.any(String) })
})

it('bytes that are no HTTP, and headers too large, are a problem too', async () => {
  const broken = await raw('NONSENSE\r\n\r\n')
  expect(broken).toMatchObject({ status: 400, type: 'application/problem+json' })
  const large = await raw(`GET /v1/health HTTP/1.1\r\nHost: localhost\r\nX-Long: ${'x'.repeat(20_000)}\r\n\r\n`)
  expect(large).toMatchObject({ status: 431, type: 'application/problem+json' })
  expect(JSON.parse(large.text)).toMatchObject({ status: 431 })
})

it('two Host headers do not pass as one', async () => {
  const { status } = await raw('GET /v1/health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n')
  expect([400, 421]).toContain(status)
})

it('an absolute request target does not replace the Host', async () => {
  const answer = await new Promise<number | undefined>((resolve, reject) => {
    const { port } = new URL(h.url)
    request({ port, host: '127.0.0.1', path: 'http://localhost/v1/health', headers: { Host: 'evil.example' } }, (response) => {
      response.resume()
      resolve(response.statusCode)
    })
      .on('error', reject)
      .end()
  })
  expect(answer).toBe(421)
})

/** Sends bytes as they are. */
function raw(bytes: string): Promise<{ status: number; type: string | undefined; text: string }> {
  return new Promise((resolve, reject) => {
    const socket = connect(Number(new URL(h.url).port), '127.0.0.1', () => socket.write(bytes))
    let text = ''
    socket.on('data', (chunk) => (text += chunk.toString()))
    socket.on('error', reject)
    socket.on('close', () => {
      const [head = '', body = ''] = text.split('\r\n\r\n', 2)
      resolve({ status: Number(/^HTTP\/1\.1 (\d+)/.exec(head)?.[1]), type: /content-type: ([^\r\n;]+)/i.exec(head)?.[1], text: body })
    })
  })
}
