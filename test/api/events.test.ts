import { request } from 'node:http'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { keys } from '../../src/keys.ts'
import { ApiClient, send, type ServerSentEvent } from '../support/http.ts'
import { eventually } from '../support/wait.ts'
import { sketchOf, startHarness, type Harness } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
afterAll(() => h.stop())

const submit = async (): Promise<string> => (await h.client.post('/v1/sessions', sketchOf('events'))).json.id
const entries = (events: ServerSentEvent[]): ServerSentEvent[] => events.filter(({ event }) => event !== 'progress')
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

async function collect(client: ApiClient, path: string, headers: Record<string, string> = {}): Promise<ServerSentEvent[]> {
  const events: ServerSentEvent[] = []
  for await (const event of client.events(path, { headers })) events.push(event)
  return events
}

describe('replay', () => {
  it('the whole history, numbered from 1, then the stream ends', async () => {
    const id = await submit()
    await h.finish(id)
    const events = await collect(h.client, `/v1/sessions/${id}/events`)
    expect(entries(events).map(({ id: number, event }) => [number, event])).toEqual([
      ['1', 'session.created'],
      ['2', 'step.started'],
      ['3', 'step.completed'],
      ['4', 'session.succeeded'],
    ])
    expect(entries(events).at(-1)?.data).toMatchObject({
      type: 'session.succeeded',
      output: { images: [{ url: expect.stringMatching('/v1/artifacts/') }] },
    })
  })

  it('goes on after Last-Event-ID, which counts more than `after`', async () => {
    const id = await submit()
    await h.finish(id)
    const path = `/v1/sessions/${id}/events`
    expect((await collect(h.client, path, { 'Last-Event-ID': '2' })).map((event) => event.id)).toEqual(['3', '4'])
    expect((await collect(h.client, `${path}?after=3`)).map((event) => event.id)).toEqual(['4'])
    expect((await collect(h.client, `${path}?after=0`, { 'Last-Event-ID': '3' })).map((event) => event.id)).toEqual(['4'])
  })

  it('204 after the last event of an ended session, so that an EventSource stops', async () => {
    const id = await submit()
    await h.finish(id)
    for (const last of ['4', '5', '999999999']) {
      const answer = await h.client.get(`/v1/sessions/${id}/events`, { headers: { 'Last-Event-ID': last } })
      expect([answer.status, answer.text]).toEqual([204, ''])
    }
  })

  it('a history longer than a page', async () => {
    const id = await submit()
    const entry = JSON.stringify({ type: 'step.noted', at: 1, note: 'x' })
    await h.redis.rpush(keys.history(id), ...Array.from({ length: 1203 }, () => entry))
    await h.client.post(`/v1/sessions/${id}/cancel`)
    const events = entries(await collect(h.client, `/v1/sessions/${id}/events`))
    expect(events.map((event) => Number(event.id))).toEqual(Array.from({ length: 1205 }, (_, i) => i + 1))
    expect(events.at(-1)?.event).toBe('session.cancelled')
  })
})

describe('following', () => {
  it('events arrive as they happen, the terminal one ends the stream', async () => {
    const id = await submit()
    const arrived: { event: string; at: number }[] = []
    const stream = (async () => {
      for await (const { event } of h.client.events(`/v1/sessions/${id}/events`)) arrived.push({ event, at: performance.now() })
    })()
    await pause(150)
    expect(arrived.map(({ event }) => event)).toEqual(['session.created'])
    const cancelledAt = performance.now()
    await h.client.post(`/v1/sessions/${id}/cancel`)
    await stream
    expect(arrived.at(-1)?.event).toBe('session.cancelled')
    // Woken, not polled.
    expect((arrived.at(-1)?.at ?? 0) - cancelledAt).toBeLessThan(500)
  })

  it('a lost wake is made up for within about a second', async () => {
    const id = await submit()
    const stream = collect(h.client, `/v1/sessions/${id}/events`)
    await pause(100)
    const at = Date.now()
    await h.redis.rpush(
      keys.history(id),
      JSON.stringify({ type: 'step.noted', at, note: 'nobody was told' }),
      JSON.stringify({ type: 'session.cancelled', at }),
    )
    const startedAt = performance.now()
    expect((await stream).map(({ event }) => event)).toEqual(['session.created', 'step.noted', 'session.cancelled'])
    expect(performance.now() - startedAt).toBeLessThan(2500)
  })

  it('a deleted session ends its streams', async () => {
    const id = await submit()
    const stream = collect(h.client, `/v1/sessions/${id}/events?after=2`)
    await pause(100)
    await h.redis.del(keys.session(id), keys.history(id))
    expect(await stream).toEqual([])
  })

  it('fifty followers of one session see the same', async () => {
    const id = await submit()
    const streams = Array.from({ length: 50 }, () => collect(h.client, `/v1/sessions/${id}/events`))
    await pause(300)
    await h.finish(id)
    for (const events of await Promise.all(streams)) expect(entries(events).map((event) => event.id)).toEqual(['1', '2', '3', '4'])
  })
})

describe('progress', () => {
  it('at most five frames a second, without ids, the latest last', async () => {
    const id = await submit()
    const frames: { at: number; frame: ServerSentEvent }[] = []
    const stream = (async () => {
      for await (const frame of h.client.events(`/v1/sessions/${id}/events`))
        if (frame.event === 'progress') frames.push({ at: performance.now(), frame })
    })()
    const attempt = await h.take(id)
    for (let call = 1; call <= 100; call++) {
      await h.port.progress(attempt, { stage: 'run', call, calls: 100 })
      await pause(10)
    }
    await pause(300)
    await h.client.post(`/v1/sessions/${id}/cancel`)
    await stream
    const seconds = ((frames.at(-1)?.at ?? 0) - (frames[0]?.at ?? 0)) / 1000
    expect(frames.length).toBeGreaterThan(3)
    expect(frames.length).toBeLessThanOrEqual(Math.ceil(seconds * 5) + 1)
    expect(frames.every(({ frame }) => frame.id === undefined)).toBe(true)
    const calls = frames.map(({ frame }) => frame.data.call as number)
    expect(calls).toEqual(calls.toSorted((a, b) => a - b))
    expect(calls.at(-1)).toBe(100)
  })

  it('the latest comes first of all to one who joins late, and is never replayed to one who comes back to the end', async () => {
    const id = await submit()
    const attempt = await h.take(id)
    await h.port.progress(attempt, { stage: 'run', call: 3, calls: 10, rate: 2, etaS: 3.5 })
    expect((await h.client.get(`/v1/sessions/${id}`)).json.progress).toMatchObject({
      fraction: 0.3,
      call: 3,
      calls: 10,
      rate: 2,
      etaS: 3.5,
    })
    for await (const { event, data } of h.client.events(`/v1/sessions/${id}/events?after=2`)) {
      expect([event, data.call]).toEqual(['progress', 3])
      break
    }
    await h.client.post(`/v1/sessions/${id}/cancel`)
    expect((await collect(h.client, `/v1/sessions/${id}/events`)).at(-1)?.event).toBe('session.cancelled')
  })
})

describe('restarts', () => {
  it('a stream that an API restart cut goes on in the next one, nothing lost or doubled', async () => {
    const id = await submit()
    const first = await h.another()
    const before: ServerSentEvent[] = []
    const cut = (async () => {
      for await (const event of new ApiClient(first.url).events(`/v1/sessions/${id}/events`)) before.push(event)
    })()
    await eventually('it streams', () => Promise.resolve(before.length > 0))
    const attempt = await h.take(id)
    await pause(150)
    const closedAt = performance.now()
    await first.close()
    await cut
    expect(performance.now() - closedAt).toBeLessThan(1500)

    await h.port.deliver(attempt, { output: { text: 'x' }, artifacts: [], stats: {} })
    const second = await h.another()
    const last = entries(before).at(-1)?.id ?? '0'
    const after = await collect(new ApiClient(second.url), `/v1/sessions/${id}/events`, { 'Last-Event-ID': last })
    expect([...entries(before), ...entries(after)].map((event) => event.id)).toEqual(['1', '2', '3', '4'])
  })

  it('closing does not wait for a client that has stopped reading', async () => {
    const id = await submit()
    const entry = JSON.stringify({ type: 'step.noted', at: 1, note: 'x'.repeat(10_000) })
    await h.redis.rpush(keys.history(id), ...Array.from({ length: 3000 }, () => entry))
    const api = await h.another()
    const deaf = request({ port: api.port, host: '127.0.0.1', path: `/v1/sessions/${id}/events` }, (response) =>
      response.pause().on('error', () => {}),
    )
    deaf.on('error', () => {})
    deaf.end()
    await pause(500)
    const startedAt = performance.now()
    await api.close()
    expect(performance.now() - startedAt).toBeLessThan(7000)
    deaf.destroy()
  }, 15_000)

  it('a closed API accepts nothing', async () => {
    const api = await h.another()
    expect((await send(api.url, 'GET', '/v1/health')).status).toBe(200)
    await api.close()
    await expect(send(api.url, 'GET', '/v1/health')).rejects.toThrow(/ECONNREFUSED/)
  })
})

it('a Redis that is away for some seconds does not cut a stream', async () => {
  const id = await submit()
  const stream = collect(h.client, `/v1/sessions/${id}/events`)
  await pause(100)
  await h.redis.client('PAUSE', 4000)
  await expect(h.redis.ping()).rejects.toThrow(/timed out/)
  await pause(1500)
  await h.finish(id)
  expect(entries(await stream).map((event) => event.id)).toEqual(['1', '2', '3', '4'])
}, 15_000)

it('a client that leaves is forgotten', async () => {
  const id = await submit()
  for (let i = 0; i < 20; i++) for await (const _ of h.client.events(`/v1/sessions/${id}/events`)) break
  await expect.poll(async () => (await h.redis.pubsub('NUMSUB', keys.events(id)))[1], { timeout: 5000 }).toBe(0)
})

it('HEAD opens no stream', async () => {
  const id = await submit()
  const answer = await h.client.request('HEAD', `/v1/sessions/${id}/events`)
  expect([answer.status, answer.headers['content-type']]).toEqual([200, 'text/event-stream'])
  expect((await h.redis.pubsub('NUMSUB', keys.events(id)))[1]).toBe(0)
})
