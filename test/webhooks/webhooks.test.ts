/** Ends of sessions, told to receivers that are well, down, slow, wrong or hostile. */
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { Webhook as Verifier } from 'standardwebhooks'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { scopes } from '../../src/api-keys.ts'
import { keys } from '../../src/keys.ts'
import { createLog } from '../../src/log.ts'
import { pausesMs, WebhookSender } from '../../src/webhooks/sender.ts'
import { sketchOf, startHarness, type Harness } from '../api/harness.ts'
import { startReceiver, status, type Letter, type Receiver } from '../support/receiver.ts'
import { eventually } from '../support/wait.ts'

const tryMs = 400
let h: Harness
let receiver: Receiver
let sender: WebhookSender
beforeAll(async () => {
  h = await startHarness({ webhookHosts: ['127.0.0.1', 'hook.example'], webhookNets: ['127.0.0.0/8'] })
  receiver = await startReceiver()
  const { webhooks, deliveries } = h.engine
  // A name of this machine, but for who looks whether it may be called.
  const resolve = (): Promise<{ address: string; family: number }[]> => Promise.resolve([{ address: '10.9.8.7', family: 4 }])
  sender = new WebhookSender({ webhooks, deliveries, config: h.config, log: createLog('silent', 'test'), tryMs, resolve })
})
afterAll(async () => {
  await sender.stop()
  await receiver[Symbol.asyncDispose]()
  await h.stop()
})

interface Made {
  id: string
  secret: string
}
const made = async (url: string, more: Record<string, unknown> = {}): Promise<Made> => {
  const { status: code, json, text } = await h.client.post('/v1/webhooks', { url, ...more })
  if (code !== 201) throw new Error(`webhook → ${code} ${text}`)
  return json as Made
}

/** A session that has ended by a cancel, and its webhook is to be told. */
async function ended(webhook: string): Promise<string> {
  const { json } = await h.client.post('/v1/sessions', sketchOf('x', { webhook, tags: ['told'] }))
  expect((await h.client.post(`/v1/sessions/${json.id}/cancel`)).json.status).toBe('cancelled')
  return json.id
}

interface Shown {
  session: string
  state: string
  tries: number
  said: string
}
const deliveries = async (webhook: string, state: string): Promise<Shown[]> =>
  (await h.client.get(`/v1/webhooks/${webhook}/deliveries?state=${state}`)).json.deliveries as Shown[]

const until = (webhook: string, session: string, state: string, tries: number): Promise<Shown> =>
  eventually(`${session} ${state} after ${tries} tries`, async () => {
    await sender.turn()
    return (await deliveries(webhook, state)).find((each) => each.session === session && each.tries === tries)
  })

const untilForgotten = (session: string): Promise<unknown> =>
  eventually(`${session} forgotten`, async () => {
    await sender.turn()
    return (await h.redis.exists(keys.delivery(session))) === 0
  })

/** Lets the pause before the next try be over. */
async function passPause(webhook: string, session: string): Promise<void> {
  const shard = Number.parseInt(session, 10)
  await h.redis.zadd(keys.deliveries(shard, 'pending', webhook), 0, session)
  await h.redis.zadd(keys.dueWebhooks(shard), 0, webhook)
}

const headersOf = ({ headers }: Letter): Record<string, string> => ({
  'webhook-id': String(headers['webhook-id']),
  'webhook-timestamp': String(headers['webhook-timestamp']),
  'webhook-signature': String(headers['webhook-signature']),
})

describe('an end is told', () => {
  it('once, signed as Standard Webhooks say, with what has ended; a retry of the session is told of as well', async () => {
    const { id, secret } = await made(receiver.url)
    const before = receiver.letters.length
    const { json } = await h.client.post('/v1/sessions', sketchOf('x', { webhook: id, tags: ['mine'] }))
    expect(json.webhook).toBe(id)
    const sha256 = await h.finish(json.id)
    await until(id, json.id, 'delivered', 1)
    const letter = await receiver.letter(before + 1)
    expect(letter.headers).toMatchObject({ 'webhook-id': `ended-${json.id}`, 'content-type': 'application/json' })
    const told = new Verifier(secret).verify(letter.body, headersOf(letter))
    expect(told).toMatchObject({
      type: 'session.succeeded',
      data: { id: json.id, workflow: 'sketch@1', status: 'succeeded', tags: ['mine'], error: null, output: { images: [{ sha256 }] } },
    })
    expect(() => new Verifier(secret).verify(`${letter.body} `, headersOf(letter))).toThrow('No matching signature')

    const cancelled = await ended(id)
    const again = (await h.client.post(`/v1/sessions/${cancelled}/retry`)).json
    expect(again.webhook).toBe(id)
    await h.finish(again.id)
    await until(id, again.id, 'delivered', 1)
    expect(JSON.parse(receiver.letters.at(-1)?.body ?? '')).toMatchObject({ data: { id: again.id, retryOf: cancelled } })
  })

  it('of those kinds alone that it asks for', async () => {
    const { id } = await made(receiver.url, { events: ['failed'] })
    const before = receiver.letters.length
    const session = await ended(id)
    await untilForgotten(session)
    expect(receiver.letters).toHaveLength(before)
  })

  it('by the old secret too for a day after it was replaced', async () => {
    const { id, secret } = await made(receiver.url)
    const next = (await h.client.post(`/v1/webhooks/${id}/rotate`)).json.secret as string
    expect(next).not.toBe(secret)
    await until(id, await ended(id), 'delivered', 1)
    const letter = receiver.letters.at(-1) as Letter
    for (const each of [secret, next]) expect(new Verifier(each).verify(letter.body, headersOf(letter))).toBeDefined()
  })

  it('though its session was deleted meanwhile', async () => {
    receiver.answers(status(500))
    const { id } = await made(receiver.url)
    const session = await ended(id)
    await until(id, session, 'pending', 1)
    expect((await h.client.request('DELETE', `/v1/sessions/${session}`)).status).toBe(204)
    receiver.answers(status(200))
    await passPause(id, session)
    await until(id, session, 'delivered', 2)
    expect(JSON.parse(receiver.letters.at(-1)?.body ?? '')).toMatchObject({ type: 'session.cancelled', data: { id: session } })
  })
})

describe('a receiver that', () => {
  it('is down is tried again, and told once it is up; the session has ended all the while', async () => {
    const down = await startReceiver()
    const { port } = down
    await down[Symbol.asyncDispose]()
    const { id } = await made(`http://127.0.0.1:${port}/hook`)
    const session = await ended(id)
    const { said } = await until(id, session, 'pending', 1)
    expect(said).toContain('ECONNREFUSED')
    expect((await h.client.get(`/v1/sessions/${session}`)).json.status).toBe('cancelled')
    await using up = await startReceiver(port)
    await passPause(id, session)
    await until(id, session, 'delivered', 2)
    expect((await up.letter(1)).path).toBe('/hook')
  })

  it('answers 500 for a day is given up: the delivery is dead, and can be sent once more', async () => {
    receiver.answers(status(500))
    const { id } = await made(receiver.url)
    const session = await ended(id)
    for (let tries = 1; tries <= pausesMs.length; tries++) {
      await until(id, session, 'pending', tries)
      await passPause(id, session)
    }
    const dead = await until(id, session, 'dead', pausesMs.length + 1)
    expect(dead).toMatchObject({ said: 'the receiver answered 500', event: 'session.cancelled' })
    receiver.answers(status(204))
    expect((await h.client.post(`/v1/webhooks/${id}/send`, {})).json).toEqual({ sent: 1 })
    await until(id, session, 'delivered', 1)
    const ids = receiver.letters.map(({ headers }) => headers['webhook-id']).filter((each) => each === `ended-${session}`)
    expect(ids).toHaveLength(pausesMs.length + 2)
  })

  it('hangs is given up after the time of a try, and holds up no other webhook and no session', async () => {
    const open: (() => void)[] = []
    receiver.answers((response) => void open.push(() => response.end()))
    const [slow, well] = [await made(`${receiver.url}/slow`), await startReceiver()]
    const sessions = await Promise.all(Array.from({ length: 20 }, () => ended(slow.id)))
    const quick = await made(well.url)
    await until(quick.id, await ended(quick.id), 'delivered', 1)
    const { said } = await until(slow.id, sessions[0] ?? '', 'pending', 1)
    expect(said).toBe(`no answer within ${tryMs / 1000} s`)
    for (const answer of open) answer()
    receiver.answers(status(204))
    await well[Symbol.asyncDispose]()
  })

  it('breaks the connection off is tried again', async () => {
    const server = createServer((socket) => void socket.destroy())
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { id } = await made(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
    const { said } = await until(id, await ended(id), 'pending', 1)
    expect(said).toMatch(/ECONNRESET|socket hang up/)
    await new Promise((resolve) => server.close(resolve))
  })

  it('redirects is not followed', async () => {
    await using elsewhere = await startReceiver()
    receiver.answers(status(307, { location: elsewhere.url }))
    const { id } = await made(receiver.url)
    const { said } = await until(id, await ended(id), 'pending', 1)
    expect(said).toBe('the receiver answered 307, and redirects are not followed')
    expect(elsewhere.letters).toEqual([])
    receiver.answers(status(204))
  })

  it('says it is gone is given up at once', async () => {
    receiver.answers(status(410))
    const { id } = await made(receiver.url)
    const session = await ended(id)
    expect(await until(id, session, 'dead', 1)).toMatchObject({ said: 'the receiver answered 410' })
    receiver.answers(status(204))
  })

  it('asks for a pause gets it', async () => {
    receiver.answers(status(503, { 'retry-after': '3600' }))
    const { id } = await made(receiver.url)
    const session = await ended(id)
    await until(id, session, 'pending', 1)
    const shard = Number.parseInt(session, 10)
    const dueAt = Number(await h.redis.zscore(keys.deliveries(shard, 'pending', id), session))
    expect(dueAt - (await h.engine.reads.now(shard))).toBeGreaterThan(3_500_000)
    receiver.answers(status(204))
  })

  it('resolves to a private address by then is not called', async () => {
    const { id } = await made(`https://hook.example:${receiver.port}/`)
    const before = receiver.letters.length
    const { said } = await until(id, await ended(id), 'pending', 1)
    expect(said).toBe(`hook.example:${receiver.port} is 10.9.8.7, which is not public, nor in DARKROOM_WEBHOOK_NETS`)
    expect(receiver.letters).toHaveLength(before)
  })
})

describe('over HTTP', () => {
  it('a secret is shown when it is made, and never again', async () => {
    const { id, secret } = await made(receiver.url)
    expect(secret).toMatch(/^whsec_[\w+/]{43}=$/)
    for (const path of ['/v1/webhooks', `/v1/webhooks/${id}`, `/v1/webhooks/${id}/deliveries`])
      expect((await h.client.get(path)).text).not.toContain('whsec_')
  })

  it('refuses targets that are not allowed, fields that there are not, and a submission that names none of the key’s own', async () => {
    const refused = await h.client.post('/v1/webhooks', { url: 'https://example.org/' })
    expect(refused.json).toMatchObject({ status: 422, code: 'webhook.refused', field: 'url' })
    expect((await h.client.post('/v1/webhooks', { url: receiver.url, events: ['started'] })).json).toMatchObject({ status: 422 })
    expect((await h.client.post('/v1/webhooks', { url: receiver.url, secret: 'x' })).json).toMatchObject({ field: 'secret' })
    expect((await h.client.post('/v1/sessions', sketchOf('x', { webhook: 'wh_none' }))).json).toMatchObject({
      status: 422,
      code: 'webhook.unknown',
      field: 'webhook',
    })
    for (const [method, path] of [
      ['GET', ''],
      ['DELETE', ''],
      ['POST', '/rotate'],
      ['GET', '/deliveries'],
    ])
      expect((await h.client.request(method ?? '', `/v1/webhooks/wh_none${path}`)).json).toMatchObject({
        status: 404,
        code: 'webhook.unknown',
      })
  })

  it('a removed webhook is told nothing more, and what it was told is forgotten', async () => {
    receiver.answers(status(500))
    const { id } = await made(receiver.url)
    const session = await ended(id)
    await until(id, session, 'pending', 1)
    expect((await h.client.request('DELETE', `/v1/webhooks/${id}`)).status).toBe(204)
    receiver.answers(status(204))
    await passPause(id, session)
    await untilForgotten(session)
    expect(await h.redis.keys(`*${id}*`)).toEqual([])
  })

  it('each key sees, names and changes its own', async () => {
    const [ann, bob] = [await h.withKey('submit', 'read', 'control'), await h.withKey('submit', 'read', 'control')]
    const own = (await ann.post('/v1/webhooks', { url: receiver.url })).json.id as string
    expect((await bob.get('/v1/webhooks')).json.webhooks).toEqual([])
    expect((await bob.request('DELETE', `/v1/webhooks/${own}`)).json.code).toBe('webhook.unknown')
    expect((await bob.post('/v1/sessions', sketchOf('x', { webhook: own }))).json.code).toBe('webhook.unknown')
    expect((await ann.post('/v1/sessions', sketchOf('x', { webhook: own }))).status).toBe(202)
    const reader = await h.withKey('read')
    expect((await reader.post('/v1/webhooks', { url: receiver.url })).json.code).toBe('api.forbidden')
    const operator = await h.withKey(...scopes)
    expect((await operator.get(`/v1/webhooks/${own}`)).json.keyId).toBe(ann.keyId)
    for (const { id } of await h.keys.list()) await h.keys.revoke(id)
    await h.keys.open()
  })
})
