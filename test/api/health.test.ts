import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { publishWorker, withdrawWorker } from '../../src/farm/presence.ts'
import { scopes } from '../../src/api-keys.ts'
import type { WorkerRecord } from '../../src/farm/record.ts'
import { report } from '../support/report.ts'
import { sketchOf, startHarness, type Harness } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
afterAll(() => h.stop())

const worker: WorkerRecord = {
  id: 'w-1',
  host: 'here',
  pid: 1,
  epoch: 'e1',
  device: { id: '0123abcd-cpu-0', kind: 'cpu', name: 'a CPU', index: 0, totalBytes: null },
  exactnessKey: '01234567',
  hardware: { kind: 'cpu' },
  build: { torch: '2' },
  settings: { dtype: 'float32' },
  status: 'ready',
  shelf: '0123abcd0000',
  resident: [],
  running: [{ key: '0-x.1.0', step: 'inference.denoise', session: '0-x', since: Date.now() }],
  lanes: { gpu: 1, host: 4 },
  childPid: null,
  logLinesDropped: 0,
  sparePid: null,
  report: report(),
  startedAt: Date.now(),
  seenAt: Date.now(),
}

describe('readiness', () => {
  it('nothing waits: ready, without any worker', async () => {
    expect((await h.client.get('/v1/ready')).json).toEqual({ status: 'ready' })
  })

  it('not while jobs wait and nobody takes them; again when they are gone', async () => {
    const { id } = (await h.client.post('/v1/sessions', sketchOf('waits'))).json
    await expect.poll(async () => (await h.client.get('/v1/ready')).status, { timeout: 10_000 }).toBe(503)
    const { json, headers } = await h.client.get('/v1/ready')
    expect(json).toMatchObject({ code: 'api.not_ready', class: 'transient', reasons: ['no worker is running'] })
    expect(headers['retry-after']).toMatch(/^\d+$/)
    expect((await h.client.get('/v1/health')).status).toBe(200)
    await h.client.post(`/v1/sessions/${id}/cancel`)
    await expect.poll(async () => (await h.client.get('/v1/ready')).status, { timeout: 10_000 }).toBe(200)
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

it('a Redis that takes no writes, as after a fail-over: reads are answered, the rest is retryable, and nothing is ready', async () => {
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
    await expect.poll(notReady, { timeout: 10_000 }).toMatchObject({ status: 503, reasons: [expect.stringMatching(/READONLY/)] })
    await own.redis.replicaof('NO', 'ONE')
    await expect.poll(async () => (await own.client.post('/v1/sessions', sketchOf('z'))).status, { timeout: 10_000 }).toBe(202)
  } finally {
    await own.stop()
  }
})

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
