/** What an API key may have at a time, what is read of a request without one, and how long an answer may be. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect } from 'node:net'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { scopes } from '../../src/api-keys.ts'
import { root } from '../../src/config.ts'
import { publishWorker } from '../../src/farm/presence.ts'
import type { LimitName } from '../../src/limits.ts'
import { ApiClient, type Answer } from '../support/http.ts'
import { nodeArguments } from '../support/program-file.ts'
import { workerRecord } from '../support/report.ts'
import { sketchOf, startHarness, type Harness } from './harness.ts'

const limits: Record<LimitName, number> = { requests: 1000, sessions: 3, commands: 2, allocations: 3, streams: 2, waits: 2 }
const wait = { Prefer: 'wait=30' }

let h: Harness
beforeAll(async () => {
  h = await startHarness({ limits })
})
afterAll(() => h.stop())

/** What a refusal says of its limit, in its document and its headers. */
function refused({ status, headers, json }: Answer) {
  const [, limit, most] = /^"(\w+)";q=(\d+)/.exec(headers['ratelimit-policy'] ?? '') ?? []
  const left = /^"(\w+)";r=0;t=\d+$/.exec(headers['ratelimit'] ?? '')?.[1]
  return { status, code: json.code as string, limit, left, most: Number(most), mayRepeat: /^[1-9]\d*$/.test(headers['retry-after'] ?? '') }
}
const refusal = (limit: LimitName) => ({ status: 429, code: `limit.${limit}`, limit, left: limit, most: limits[limit], mayRepeat: true })

/** Follows a session until the returned function is called. */
async function follow(client: ApiClient, id: string): Promise<() => Promise<void>> {
  const stop = new AbortController()
  const events = client.events(`/v1/sessions/${id}/events`, { signal: stop.signal })
  await events.next()
  return async () => {
    stop.abort()
    await events.return(undefined)
  }
}

describe('open sessions', () => {
  it('are limited for each key, whenever they come; the end of one makes room, a repeat takes none', async () => {
    const [ann, bob] = [await h.withKey(...scopes), await h.withKey(...scopes)]
    const submit = (i: number): Promise<Answer> => ann.post('/v1/sessions', sketchOf(`${i}`), { 'Idempotency-Key': `${i}` })
    const answers: Answer[] = []
    // Several shards count together, and each by itself at the same moment.
    if (h.config.shards === 1) answers.push(...(await Promise.all(Array.from({ length: 12 }, (_, i) => submit(i)))))
    else for (let i = 0; i < 12; i++) answers.push(await submit(i))
    const accepted = answers.filter(({ status }) => status === 202)
    expect(accepted).toHaveLength(limits.sessions)
    for (const answer of answers.filter(({ status }) => status !== 202)) expect(refused(answer)).toEqual(refusal('sessions'))

    const [first] = accepted
    const repeat = answers.findIndex((answer) => answer === first)
    const again = await ann.post('/v1/sessions', sketchOf(`${repeat}`), { 'Idempotency-Key': `${repeat}` })
    expect([again.status, again.json.id]).toEqual([200, first?.json.id])
    expect((await bob.post('/v1/sessions', sketchOf('his'))).status).toBe(202)

    // One end of each kind: by its result, by a cancel.
    await h.finish(first?.json.id)
    expect((await ann.post('/v1/sessions', sketchOf('after an end'))).status).toBe(202)
    expect((await ann.post('/v1/sessions', sketchOf('one too many'))).status).toBe(429)
    const cancelled = accepted[1]?.json.id as string
    await ann.post(`/v1/sessions/${cancelled}/cancel`)
    // A retry is one more open session.
    expect((await ann.post(`/v1/sessions/${cancelled}/retry`)).status).toBe(202)
    expect(refused(await ann.post(`/v1/sessions/${cancelled}/retry`))).toEqual(refusal('sessions'))
  })
})

describe('open commands', () => {
  it('are limited by a number of their own', async () => {
    await publishWorker(h.redis, workerRecord(), [])
    const ann = await h.withKey(...scopes)
    await expect.poll(async () => (await ann.get('/v1/devices')).json.devices).toHaveLength(1)
    const refresh = (): Promise<Answer> => ann.post(`/v1/devices/${workerRecord().device.id}/refresh`)
    const ids = [(await refresh()).json.id, (await refresh()).json.id] as string[]
    expect(refused(await refresh())).toEqual(refusal('commands'))
    expect((await ann.post('/v1/sessions', sketchOf('a session'))).status).toBe(202)
    await ann.post(`/v1/sessions/${ids[0]}/cancel`)
    expect((await refresh()).status).toBe(202)
  })
})

describe('open streams', () => {
  it('are limited for each key, in all APIs together; a closed one makes room', async () => {
    const [ann, bob] = [await h.withKey(...scopes), await h.withKey(...scopes)]
    const { url } = await h.another()
    const { id } = (await ann.post('/v1/sessions', sketchOf('followed'))).json
    const path = `/v1/sessions/${id}/events`
    const close = await follow(ann, id)
    const other = await follow(new ApiClient(url, { key: ann.key }), id)
    expect(refused(await ann.get(path))).toEqual(refusal('streams'))
    expect(refused(await ann.get('/v1/devices/events', { headers: { Accept: 'text/event-stream' } }))).toEqual(refusal('streams'))
    const { id: his } = (await bob.post('/v1/sessions', sketchOf('his'))).json
    await (
      await follow(bob, his)
    )()
    await close()
    await expect
      .poll(
        async () =>
          follow(ann, id).then(
            (stop) => stop().then(() => true),
            () => false,
          ),
        { timeout: 3000 },
      )
      .toBe(true)
    await other()
  })

  it('of a killed API are free again after a lease', async () => {
    const ann = await h.withKey(...scopes)
    const { id } = (await ann.post('/v1/sessions', sketchOf('followed'))).json
    const api = spawn(process.execPath, nodeArguments('test/api/api_process.ts'), {
      cwd: root,
      env: {
        PATH: process.env['PATH'],
        HOME: process.env['HOME'],
        DARKROOM_DATA: h.config.data,
        DARKROOM_MODELS: h.config.models.join(':'),
        DARKROOM_SHARDS: String(h.config.shards),
        DARKROOM_PORT: '0',
        DARKROOM_LOG: 'error',
        DARKROOM_LIMIT_STREAMS: String(limits.streams),
        REDIS_URL: h.config.redisUrl,
      },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    try {
      const [url] = (await once(createInterface(api.stdout), 'line')) as [string]
      const elsewhere = new ApiClient(url, { key: ann.key })
      for (let i = 0; i < limits.streams; i++) await follow(elsewhere, id)
      expect(refused(await ann.get(`/v1/sessions/${id}/events`))).toEqual(refusal('streams'))
      // A living one keeps its place beyond any lease.
      await new Promise((resolve) => setTimeout(resolve, 6000))
      expect(refused(await ann.get(`/v1/sessions/${id}/events`))).toEqual(refusal('streams'))
    } finally {
      api.kill('SIGKILL')
    }
    await expect
      .poll(
        async () =>
          follow(ann, id).then(
            (stop) => stop().then(() => true),
            () => false,
          ),
        { timeout: 8000, interval: 250 },
      )
      .toBe(true)
  })
})

describe('requests that wait', () => {
  it('are limited, and one too many has not submitted anything', async () => {
    const ann = await h.withKey(...scopes)
    const waiting = ['one', 'two'].map((text) => ann.post('/v1/sessions', sketchOf(text), wait))
    const open = async (): Promise<string[]> =>
      (await ann.get('/v1/sessions?status=queued')).json.sessions.flatMap(({ id, keyId }: { id: string; keyId: string }) =>
        keyId === ann.keyId ? [id] : [],
      )
    await expect.poll(async () => (await open()).length).toBe(2)
    expect(refused(await ann.post('/v1/sessions', sketchOf('three'), wait))).toEqual(refusal('waits'))
    const ids = await open()
    expect(ids).toHaveLength(2)
    expect((await ann.post('/v1/sessions', sketchOf('without a wait'))).status).toBe(202)
    for (const id of ids) await h.finish(id)
    for (const answer of await Promise.all(waiting)) expect([answer.status, answer.json.status]).toEqual([200, 'succeeded'])
    expect((await ann.post('/v1/sessions', sketchOf('three'), { Prefer: 'wait=0' })).status).toBe(202)
  })
})

describe('requests', () => {
  it('of a minute are limited for each key', async () => {
    const { url } = await h.another({ limits: { ...limits, requests: 5 } })
    const [ann, bob] = [await h.withKey('read'), await h.withKey('read')]
    const hers = new ApiClient(url, { key: ann.key })
    const answers = await Promise.all(Array.from({ length: 8 }, () => hers.get('/v1/workflows')))
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(5)
    const over = answers.find(({ status }) => status === 429)
    expect(over && refused(over)).toEqual({ ...refusal('requests'), most: 5 })
    expect(over?.headers['ratelimit-policy']).toBe('"requests";q=5;w=60')
    expect(Number(over?.headers['retry-after'])).toBeLessThanOrEqual(60)
    expect((await new ApiClient(url, { key: bob.key }).get('/v1/workflows')).status).toBe(200)
    expect((await hers.get('/v1/health')).status).toBe(200)
  })
})

describe('a body without a key', () => {
  /** Sends a request whose body goes on for ever; returns what came back, and how much was taken. */
  async function pour(head: string): Promise<{ answer: string; taken: number }> {
    const socket = connect(Number(new URL(h.url).port), '127.0.0.1')
    let answer = ''
    socket.on('data', (chunk) => (answer += chunk.toString()))
    socket.on('error', () => undefined)
    const closed = new Promise((resolve) => socket.on('close', resolve))
    socket.write(head)
    const chunk = Buffer.from(`10000\r\n${' '.repeat(0x10000)}\r\n`)
    while (!socket.destroyed && socket.bytesWritten < 100e6 && !answer) {
      if (!socket.write(chunk)) await Promise.race([new Promise((resolve) => socket.once('drain', resolve)), closed])
    }
    await closed
    return { answer, taken: socket.bytesWritten - socket.writableLength }
  }
  const head = (path: string, more = ''): string =>
    `POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n${more}\r\n`

  it.each(['/v1/sessions', '/v1/nothing', '/admin/queues', '/v1/health', '/nothing'])(
    'to %s is not read: the answer comes, and the connection ends',
    async (path) => {
      await h.withKey('read')
      const { answer, taken } = await pour(head(path))
      expect(answer).toMatch(/^HTTP\/1\.1 4\d\d /)
      expect(answer.toLowerCase()).toContain('connection: close')
      // What the kernel holds between two ends of a connection, not what the API asked for.
      expect(taken).toBeLessThan(8e6)
    },
  )

  it('is not even asked for; with a key it is', async () => {
    const { key } = await h.withKey('submit')
    const body = JSON.stringify(sketchOf('asked for'))
    const ask = async (authorization: string): Promise<string> => {
      const socket = connect(Number(new URL(h.url).port), '127.0.0.1')
      const length = `Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n`
      socket.write(
        `POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n${authorization}${length}Expect: 100-continue\r\n\r\n`,
      )
      let answer = ''
      socket.on('data', (chunk) => {
        answer += chunk.toString()
        if (answer === 'HTTP/1.1 100 Continue\r\n\r\n') socket.write(body)
      })
      await once(socket, 'close')
      return answer
    }
    expect(await ask('')).toMatch(/^HTTP\/1\.1 401 /)
    expect(await ask(`Authorization: Bearer ${key}\r\n`)).toMatch(/^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 202 /)
  })
})

describe('a refusal is short', () => {
  const ann = () => h.withKey(...scopes)

  it.each([
    ['unknown fields of the body', { ...sketchOf('x'), ...many(50_000) }],
    ['unknown fields of the input', { workflow: 'image-generation', input: { prompt: 'a', ...many(50_000) } }],
  ])('of a body with many %s: twenty are listed, the rest is counted', async (_, body) => {
    const { status, json, text } = await (await ann()).post('/v1/sessions', body)
    expect(status).toBe(422)
    expect(json.problems).toHaveLength(20)
    expect(json.detail).toMatch(/; and \d+ more$/)
    expect(text.length).toBeLessThan(20_000)
  })

  it('of a field with a long name', async () => {
    const { status, text } = await (await ann()).post('/v1/sessions', { ...sketchOf('x'), ['n'.repeat(800_000)]: 1 })
    expect(status).toBe(422)
    expect(text.length).toBeLessThan(2000)
  })

  it('of a verb that takes no fields', async () => {
    const client = await ann()
    const { id } = (await client.post('/v1/sessions', sketchOf('x'))).json
    const { status, json, text } = await client.post(`/v1/sessions/${id}/cancel`, many(50_000))
    expect([status, json.problems.length]).toEqual([422, 20])
    expect(text.length).toBeLessThan(20_000)
  })
})

function many(n: number): Record<string, number> {
  return Object.fromEntries(Array.from({ length: n }, (_, i) => [`field${i}`, i]))
}
