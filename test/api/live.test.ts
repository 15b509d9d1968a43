import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { WebSocket, type ClientOptions } from 'ws'
import type { LiveFrame } from '../../src/client/index.ts'
import { connection } from '../support/raw.ts'
import { eventually } from '../support/wait.ts'
import { sketchOf, startHarness, type Harness } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
afterAll(() => h.stop())

/** A live connection, and all that it was told. */
class Listener {
  readonly frames: LiveFrame[] = []
  readonly socket: WebSocket
  closed: number | undefined

  constructor(url: string, options: ClientOptions = {}) {
    this.socket = new WebSocket(`${url.replace('http', 'ws')}/v1/live`, options)
    this.socket.on('message', (text: Buffer) => this.frames.push(...(JSON.parse(text.toString()) as LiveFrame[])))
    this.socket.on('close', (code) => (this.closed = code))
    this.socket.on('error', () => undefined)
  }

  async ask(request: object | string): Promise<this> {
    if (this.socket.readyState !== WebSocket.OPEN) await new Promise((resolve) => this.socket.once('open', resolve))
    this.socket.send(typeof request === 'string' ? request : JSON.stringify(request))
    return this
  }

  of<Type extends LiveFrame['type']>(type: Type): Extract<LiveFrame, { type: Type }>[] {
    return this.frames.filter((frame): frame is Extract<LiveFrame, { type: Type }> => frame.type === type)
  }

  until<T>(what: string, look: () => T | undefined): Promise<T> {
    return eventually(what, () => Promise.resolve(look()))
  }

  close(): void {
    this.socket.terminate()
  }
}

const submit = async (): Promise<string> => (await h.client.post('/v1/sessions', sketchOf('x'))).json.id as string
/** What a handshake was refused with. */
const refusalOf = (url: string, options: ClientOptions): Promise<{ status: number; code: string }> =>
  new Promise((resolve, reject) => {
    const socket = new WebSocket(`${url.replace('http', 'ws')}/v1/live`, options)
    socket.on('open', () => reject(new Error('it was let in')))
    socket.on('error', reject)
    socket.on('unexpected-response', (_, response) => {
      let text = ''
      response.on('data', (bytes: Buffer) => (text += bytes.toString()))
      response.on('end', () => resolve({ status: response.statusCode ?? 0, code: (JSON.parse(text) as { code: string }).code }))
    })
  })

describe('a list', () => {
  it('is told whole, then what changes of it: new sessions, their states, their end, their removal', async () => {
    const before = await submit()
    const live = await new Listener(h.url).ask({ list: { limit: 50 } })
    const [list] = await live.until('the list', () => (live.of('list').length > 0 ? live.of('list') : undefined))
    expect(list?.sessions.map(({ id }) => id)).toContain(before)
    const id = await submit()
    const statusOf = () => live.of('session').findLast(({ session }) => session.id === id)?.session.status
    await live.until('it is queued', () => statusOf() === 'queued' || undefined)
    await h.finish(id)
    await live.until('it has ended', () => statusOf() === 'succeeded' || undefined)
    await h.client.delete(`/v1/sessions/${id}`)
    await live.until('it is gone', () => live.of('gone').some((frame) => frame.id === id) || undefined)
    live.close()
  })

  it('leaves out what its filter does not ask for, and says when a session is of it no more', async () => {
    const id = await submit()
    const live = await new Listener(h.url).ask({ list: { status: 'queued' } })
    await live.until('the list', () => live.of('list')[0])
    await h.client.post(`/v1/sessions/${id}/cancel`)
    await live.until('it is gone', () => live.of('gone').some((frame) => frame.id === id) || undefined)
    expect(live.of('session').filter(({ session }) => session.id === id)).toEqual([])
    live.close()
  })
})

describe('a session that is followed', () => {
  it('has its whole history told in order, from where the caller left off, by another process too', async () => {
    const id = await submit()
    const first = await new Listener(h.url).ask({ sessions: { [id]: 0 } })
    const [created] = await first.until('its first entry', () => (first.of('event').length > 0 ? first.of('event') : undefined))
    expect(created).toMatchObject({ session: id, id: 1, event: { type: 'session.created' } })
    first.close()
    await h.finish(id)
    const second = await h.another()
    const live = await new Listener(second.url).ask({ sessions: { [id]: 1 } })
    const last = () => live.of('event').at(-1)?.event.type === 'session.succeeded'
    await live.until('its end', () => last() || undefined)
    const numbers = live.of('event').map((entry) => entry.id)
    expect(numbers).toEqual(Array.from({ length: numbers.length }, (_, i) => i + 2))
    live.close()
  })

  it('that there is not is gone; a request that cannot be meant is refused, and the one before holds', async () => {
    const id = await submit()
    const live = await new Listener(h.url).ask({ sessions: { '0-00000000000000000000000000': 0, [id]: 0 } })
    await live.until('gone', () => live.of('gone')[0])
    await live.ask('{"list":')
    expect((await live.until('a refusal', () => live.of('problem')[0])).problem.code).toBe('api.malformed')
    await live.ask({ sessions: { [id]: -1 }, lists: true })
    expect((await live.until('another', () => live.of('problem')[1])).problem.code).toBe('api.invalid')
    await h.client.post(`/v1/sessions/${id}/cancel`)
    await live.until('the end', () => live.of('event').find(({ event }) => event.type === 'session.cancelled'))
    live.close()
  })
})

describe('a caller', () => {
  it('that reads nothing is told nothing more, and then what is the case, once', async () => {
    const live = await new Listener(h.url).ask({ list: { limit: 200 } })
    await live.until('the list', () => live.of('list')[0])
    const id = await submit()
    live.socket.pause()
    for (let i = 0; i < 300; i++) await h.redis.publish(`darkroom:{s${id[0]}}:events:${id}`, '')
    await h.client.post(`/v1/sessions/${id}/cancel`)
    live.socket.resume()
    await live.until('the end of it', () => live.of('session').find(({ session }) => session.id === id && session.status === 'cancelled'))
    expect(live.of('session').filter(({ session }) => session.id === id).length).toBeLessThan(20)
    live.close()
  })

  it('that sends binary messages, large ones or too many is put out', async () => {
    const bad: ((socket: WebSocket) => void)[] = [
      (socket) => socket.send(Buffer.from('{}')),
      (socket) => socket.send(JSON.stringify({ list: { tag: 'x'.repeat(70_000) } })),
      (socket) => Array.from({ length: 30 }).forEach(() => socket.send('{}')),
    ]
    for (const act of bad) {
      const live = await new Listener(h.url).ask({})
      act(live.socket)
      expect(await live.until('the end', () => live.closed)).toBeGreaterThan(1000)
    }
  })

  it('of a foreign page, with an unknown Host or with no WebSocket is refused with a problem', async () => {
    expect(await refusalOf(h.url, { origin: 'https://evil.example' })).toEqual({ status: 403, code: 'api.origin_refused' })
    expect(await refusalOf(h.url, { headers: { Host: 'evil.example' } })).toEqual({ status: 421, code: 'api.host_refused' })
    expect(await refusalOf(h.url, { headers: { 'X-Forwarded-For': '1.2.3.4' } })).toEqual({ status: 403, code: 'api.forwarded_refused' })
    expect(await h.client.get('/v1/live')).toMatchObject({ status: 426, json: { code: 'api.upgrade_required' } })
  })

  it('that offers another protocol is answered as if it had not, bodies and all', async () => {
    const { port } = new URL(h.url)
    const raw = connection(Number(port))
    const body = JSON.stringify(sketchOf('x'))
    const offer = 'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n'
    raw.send(`GET /v1/health HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n${offer}\r\n`)
    expect(await raw.next()).toMatchObject({ status: 200 })
    const second = connection(Number(port))
    second.send(
      `POST /v1/sessions HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n${offer}Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    )
    expect(await second.next()).toMatchObject({ status: 202 })
    raw.socket.destroy()
    second.socket.destroy()
  })
})

/** Keys close the farm, so these come last. */
describe('with API keys', () => {
  const cookieOf = (answer: { headers: object & { 'set-cookie'?: unknown } }): string =>
    String(answer.headers['set-cookie']).split(';')[0] ?? ''

  it('a caller sees its own sessions alone, and is cut off when its key is revoked', async () => {
    const [one, other] = [await h.withKey('read', 'submit'), await h.withKey('read', 'submit')]
    const live = await new Listener(h.url, { headers: { Authorization: `Bearer ${one.key}` } }).ask({ list: {} })
    await live.until('the list', () => live.of('list')[0])
    const hidden = (await other.post('/v1/sessions', sketchOf('x'))).json.id as string
    const own = (await one.post('/v1/sessions', sketchOf('x'))).json.id as string
    await live.until('its own', () => live.of('session').find(({ session }) => session.id === own))
    expect(JSON.stringify(live.frames)).not.toContain(hidden)
    await h.keys.revoke(one.keyId)
    expect(await live.until('the end', () => live.closed)).toBe(4401)
  })

  it('a page swaps its key for a cookie that no script reads, and that nobody else’s page can use', async () => {
    const { key, keyId } = await h.withKey('read', 'submit')
    const origin = { Origin: h.url }
    expect(await h.client.post('/v1/login', { key: 'dk_00000000_x' }, origin)).toMatchObject({ status: 401, json: { field: 'key' } })
    const entered = await h.client.post('/v1/login', { key }, origin)
    expect(entered).toMatchObject({ status: 200, json: { keyId, scopes: ['submit', 'read'] } })
    expect(String(entered.headers['set-cookie'])).toMatch(/; Path=\/; HttpOnly; SameSite=Strict$/)
    const Cookie = cookieOf(entered)
    const sent = (headers: Record<string, string>) => h.client.post('/v1/sessions', sketchOf('x'), { Cookie, ...headers })
    expect(await sent(origin)).toMatchObject({ status: 202 })
    expect(await sent({ 'Sec-Fetch-Site': 'same-origin' })).toMatchObject({ status: 202 })
    // No Origin, another port of the same host, another host: none of these is a page of this server.
    expect(await sent({})).toMatchObject({ status: 401 })
    expect(await sent({ 'Sec-Fetch-Site': 'same-site' })).toMatchObject({ status: 401 })
    expect(await sent({ Origin: 'http://127.0.0.1:1' })).toMatchObject({ status: 403 })
    expect(await sent({ Origin: 'https://evil.example' })).toMatchObject({ status: 403 })
    expect(await h.client.get('/v1/sessions', { headers: { Cookie } })).toMatchObject({ status: 200 })
    expect(await h.client.get('/v1/sessions', { headers: { Cookie, 'Sec-Fetch-Site': 'same-site' } })).toMatchObject({ status: 401 })
    expect(await refusalOf(h.url, { headers: { Cookie } })).toMatchObject({ status: 401 })
    const live = await new Listener(h.url, { headers: { Cookie }, origin: h.url }).ask({ list: {} })
    await live.until('the list', () => live.of('list')[0])
    expect((await h.client.get('/v1/login', { headers: { Cookie } })).json).toMatchObject({ keyId })
    expect(String((await h.client.request('DELETE', '/v1/login', { headers: { Cookie, ...origin } })).headers['set-cookie'])).toMatch(
      /Max-Age=0/,
    )
    await h.keys.revoke(keyId)
    expect(await live.until('the end', () => live.closed)).toBe(4401)
    expect(await h.client.get('/v1/sessions', { headers: { Cookie } })).toMatchObject({ status: 401 })
  })

  it('counts its live connections among its streams', async () => {
    const { key } = await h.withKey('read')
    const api = await h.another({ limits: { ...h.config.limits, streams: 1 } })
    const headers = { Authorization: `Bearer ${key}` }
    const live = await new Listener(api.url, { headers }).ask({})
    expect(await refusalOf(api.url, { headers })).toEqual({ status: 429, code: 'limit.streams' })
    live.close()
    await eventually('its place is free', async () => {
      const next = new Listener(api.url, { headers })
      const isIn = await new Promise<boolean>((resolve) => {
        next.socket.once('open', () => resolve(true))
        next.socket.once('error', () => resolve(false))
      })
      next.close()
      return isIn || undefined
    })
  })
})
