import { rename } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { publishWorker, withdrawWorker } from '../../src/farm/presence.ts'
import { scopes } from '../../src/api-keys.ts'
import { workerRecord } from '../support/report.ts'
import { isCluster } from '../support/redis.ts'
import { sketchOf, startHarness, type Harness } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
afterAll(() => h.stop())

const worker = workerRecord()

describe('readiness', () => {
  const ready = async () => {
    const { status, json, headers } = await h.client.get('/v1/ready')
    return { status, reasons: json.reasons as string[] | undefined, mayRepeat: headers['retry-after'] !== undefined }
  }
  const isReady = { status: 200, reasons: undefined, mayRepeat: false }
  const because = (...reasons: unknown[]) => ({ status: 503, reasons, mayRepeat: true })

  it('is there while at least one worker takes steps', async () => {
    expect(await ready()).toEqual(because('no worker is running'))
    await publishWorker(h.redis, worker, [])
    await expect.poll(ready).toEqual(isReady)
    await publishWorker(h.redis, { ...worker, status: 'stalled' }, [])
    await expect.poll(ready).toEqual(because('stalled, taking nothing although jobs wait: w-1'))
    await publishWorker(h.redis, { ...worker, id: 'w-2' }, [])
    await expect.poll(ready).toEqual(isReady)
  })

  it('is not while the store takes no files, or Redis no writes', async () => {
    await publishWorker(h.redis, worker, [])
    await expect.poll(ready).toEqual(isReady)
    const store = join(h.config.data, 'artifacts')
    await rename(store, `${store}-away`)
    await expect.poll(ready).toEqual(because(expect.stringMatching(/^the artifact store takes no files: /)))
    await rename(`${store}-away`, store)
    await expect.poll(ready).toEqual(isReady)
    await h.redis.config('SET', 'maxmemory', '1')
    await expect.poll(ready).toEqual(because(expect.stringMatching(/^Redis takes no writes: /)))
    await h.redis.config('SET', 'maxmemory', '0')
    await publishWorker(h.redis, worker, [])
    await expect.poll(ready).toEqual(isReady)
  })

  it('tells why to callers with a key and on this machine, and to nobody through a proxy', async () => {
    const { key, record } = await h.keys.add('watcher', ['read'])
    await withdrawWorker(h.redis, worker.id)
    await withdrawWorker(h.redis, 'w-2')
    await expect.poll(async () => (await ready()).status).toBe(503)
    const proxied = { 'X-Forwarded-For': '203.0.113.7' }
    const told = await h.client.get('/v1/ready', { headers: { ...proxied, Authorization: `Bearer ${key}` } })
    expect(told.json).toMatchObject({ status: 503, reasons: ['no worker is running'] })
    const untold = await h.client.get('/v1/ready', { headers: { ...proxied, Authorization: `Bearer ${key}x` } })
    expect(untold.json).toMatchObject({ status: 503, code: 'api.not_ready', detail: 'this farm is not ready' })
    expect(untold.json.reasons).toBeUndefined()
    await h.keys.revoke(record.id)
    await h.keys.open()
  })
})

it('workers as they describe themselves, with the age of what they said', async () => {
  await publishWorker(h.redis, worker, [])
  await expect.poll(async () => (await h.client.get('/v1/workers')).json.workers).toHaveLength(1)
  const [seen] = (await h.client.get('/v1/workers')).json.workers
  expect(seen).toMatchObject({
    id: 'w-1',
    status: 'ready',
    device: { kind: 'cpu' },
    running: [{ session: '0-x', step: 'inference.denoise' }],
  })
  expect(seen.ageS).toBeLessThan(60)

  const reader = await h.withKey('read')
  expect((await reader.get('/v1/workers')).json.workers[0].running).toEqual([
    { key: null, session: null, step: 'inference.denoise', since: expect.any(String) },
  ])
  const operator = await h.withKey(...scopes)
  expect((await operator.get('/v1/workers')).json.workers[0].running).toMatchObject([{ session: '0-x' }])
  for (const { id } of await h.keys.list()) await h.keys.revoke(id)
  await h.keys.open()
  await withdrawWorker(h.redis, worker.id)
})

it.each([86_400_000, -86_400_000])('ages of a worker whose clock is off by %d ms are those of its record', async (offMs) => {
  const now = Date.now() + offMs
  const off = { ...worker, seenAt: now, report: { ...worker.report, sampledAt: now - 3000 } }
  await publishWorker(h.redis, off, [])
  const ages = async (path: string): Promise<number[]> => {
    const { json } = await h.client.get(path)
    const all = (json.workers ?? json.devices ?? json.pools ?? [json]) as { ageS: number }[]
    return all.map(({ ageS }) => ageS)
  }
  await expect.poll(async () => (await h.client.get('/v1/workers')).json.workers[0]?.seenAt).toBe(new Date(now).toISOString())
  expect(await ages('/v1/workers')).toEqual([expect.closeTo(0, -0.8)])
  const { id } = worker.device
  for (const path of ['/v1/devices', `/v1/devices/${id}`, `/v1/devices/${id}/status`, `/v1/devices/${id}/memory`, '/v1/memory'])
    for (const age of await ages(path)) {
      expect(age).toBeGreaterThanOrEqual(3)
      expect(age).toBeLessThan(8)
    }
  await withdrawWorker(h.redis, worker.id)
})

it('without Redis: alive, not ready, and every other answer is 503 with Retry-After', async () => {
  const own = await startHarness()
  try {
    const { id } = (await own.client.post('/v1/sessions', sketchOf('x'))).json
    await own.stopRedis()
    expect((await own.client.get('/v1/health')).status).toBe(200)
    expect((await own.client.get('/v1/ready')).json).toMatchObject({ status: 503, reasons: [expect.any(String)] })
    const requests = [
      ['GET', '/v1/sessions'],
      ['GET', `/v1/sessions/${id}`],
      ['GET', `/v1/sessions/${id}/events`],
      ['POST', `/v1/sessions/${id}/cancel`],
      ['DELETE', `/v1/sessions/${id}`],
      ['GET', '/v1/workers'],
      ['GET', `/v1/artifacts/${'0'.repeat(64)}`],
      ['GET', '/admin/queues'],
    ] as const
    for (const [method, path] of requests) {
      const startedAt = performance.now()
      const answer = await own.client.request(method, path)
      expect(answer.json, path).toMatchObject({ status: 503, code: 'redis.unavailable', class: 'transient' })
      expect(answer.headers['retry-after']).toMatch(/^\d+$/)
      expect(performance.now() - startedAt).toBeLessThan(5000)
    }
    const submitted = await own.client.post('/v1/sessions', sketchOf('y'))
    expect(submitted.json).toMatchObject({ status: 503, code: 'redis.unavailable', remedy: expect.stringMatching('Idempotency-Key') })
  } finally {
    await own.stop()
  }
})

// A node of a cluster takes no REPLICAOF.
it.skipIf(isCluster)(
  'a Redis that takes no writes, as after a fail-over: reads are answered, the rest is retryable, and nothing is ready',
  async () => {
    const own = await startHarness()
    try {
      const { id } = (await own.client.post('/v1/sessions', sketchOf('x'))).json
      await own.redis.replicaof('127.0.0.1', 1)
      for (const [method, path, body] of [
        ['POST', '/v1/sessions', sketchOf('y')],
        ['POST', `/v1/sessions/${id}/cancel`, undefined],
        ['POST', `/v1/sessions/${id}/pause`, undefined],
      ] as const) {
        const ask = async (): Promise<string> => {
          const answer = await own.client.request(method, path, { ...(body && { body }) })
          expect(answer.json, path).toMatchObject({ status: 503, code: 'redis.unavailable', class: 'transient' })
          return answer.json.remedy as string
        }
        // The connection is made anew now and then: the address may lead to a master again.
        await expect.poll(ask, { timeout: 10_000 }).toMatch(/fail-over.*Idempotency-Key/)
      }
      const isRead = async (): Promise<number> => (await own.client.get(`/v1/sessions/${id}`)).status
      await expect.poll(isRead, { timeout: 10_000 }).toBe(200)
      const notReady = async (): Promise<unknown> => (await own.client.get('/v1/ready')).json
      await expect
        .poll(notReady, { timeout: 10_000 })
        .toMatchObject({ status: 503, reasons: expect.arrayContaining([expect.stringMatching(/READONLY/)]) })
      await own.redis.replicaof('NO', 'ONE')
      await expect.poll(async () => (await own.client.post('/v1/sessions', sketchOf('z'))).status, { timeout: 10_000 }).toBe(202)
    } finally {
      await own.stop()
    }
  },
)

it('above 80 % of maxmemory submits are refused, reads are not', async () => {
  const own = await startHarness()
  try {
    const used = Number(/used_memory:(\d+)/.exec(await own.redis.info('memory'))?.[1])
    await own.redis.config('SET', 'maxmemory', String(Math.round(used * 1.1)))
    const answer = await own.client.post('/v1/sessions', sketchOf('full'))
    expect(answer.json).toMatchObject({ status: 503, code: 'redis.full', class: 'resource' })
    expect(Number(answer.headers['retry-after'])).toBeGreaterThan(1)
    expect((await own.client.get('/v1/sessions')).status).toBe(200)
  } finally {
    await own.stop()
  }
})
