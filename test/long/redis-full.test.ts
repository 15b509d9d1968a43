/** Redis has a limit: what is new is refused before it is reached, and what was accepted ends. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { keys, shardOf } from '../../src/keys.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { graceMs } from '../support/times.ts'
import { eventually, sleep } from '../support/wait.ts'

const MB = 1024 * 1024

let farm: Farm

const used = async (): Promise<number> => Number(/^used_memory:(\d+)/m.exec(await farm.eye.info('memory'))?.[1])
const limit = async (bytes: number): Promise<void> => void (await farm.eye.config('SET', 'maxmemory', String(Math.round(bytes))))

async function submit(
  key: string,
  input: Record<string, unknown> = {},
): Promise<{ status: number; id: string; code?: string; retryAfter: number }> {
  const body = { workflow: 'image-generation', input: { prompt: 'a red circle', seed: 7, steps: 2, ...input } }
  const { status, json, headers } = await farm.client.post('/v1/sessions', body, { 'Idempotency-Key': key })
  return {
    status,
    id: json.id as string,
    ...(status === 503 && { code: json.code as string }),
    retryAfter: Number(headers['retry-after'] ?? 0),
  }
}

const untilAccepted = (key: string, input: Record<string, unknown> = {}): Promise<string> =>
  eventually(`${key} accepted`, async () => {
    const { status, id } = await submit(key, input)
    return status === 202 && id
  })

describe('maxmemory', { timeout: 120_000 }, () => {
  beforeAll(async () => {
    farm = await startFarm({ workers: 0, fake: ['--call-ms', '5'] })
  })
  afterAll(() => farm[Symbol.asyncDispose]())

  const ids: string[] = []

  it('a backlog fills Redis: the rest is refused with 503 and Retry-After, and every accepted session ends, though each grows', async () => {
    await limit((await used()) + 2 * MB)
    const refusals: Awaited<ReturnType<typeof submit>>[] = []
    const client = async (name: string): Promise<void> => {
      for (let i = 0; ; i++) {
        const answer = await submit(`${name}-${i}`, { count: 1 + (i % 3) })
        if (answer.status !== 202) return void refusals.push(answer)
        ids.push(answer.id)
      }
    }
    await Promise.all(['a', 'b', 'c', 'd'].map(client))
    for (const { status, code, retryAfter } of refusals) expect([status, code, retryAfter > 0]).toEqual([503, 'redis.full', true])
    expect(ids.length).toBeGreaterThan(20)
    // Nobody hangs in the air: the key of one that was accepted still tells so, and reads are answered.
    expect(await submit('a-0', { count: 1 })).toMatchObject({ status: 200, id: ids[0] })
    expect((await farm.client.get('/v1/sessions?limit=200')).json.sessions).toHaveLength(ids.length)

    await Promise.all([farm.addWorker(), farm.addWorker()])
    for (const id of ids) await farm.until(id, 'succeeded', 60_000)
  })

  it('a retry is refused like a submission; memory is freed by deleting ended sessions, and submits work again', async () => {
    const open = await farm.gate(99, 1)
    // What the sessions before have left may be near the old limit.
    await limit(2 * (await used()))
    const cancelled = await untilAccepted('cancelled', { seed: 99 })
    await farm.control(cancelled, 'cancel')
    await open()
    ids.push(cancelled)
    await limit((await used()) / 0.85)
    const late: string[] = []
    await eventually('refused', async () => {
      const { code, id } = await submit(`late-${late.length}`)
      if (code === undefined) late.push(id)
      return code === 'redis.full'
    })
    const retried = await farm.client.post(`/v1/sessions/${cancelled}/retry`)
    expect([retried.status, retried.json.code]).toEqual([503, 'redis.full'])
    for (const id of ids) expect((await farm.client.delete(`/v1/sessions/${id}`)).status).toBe(204)
    late.push(await untilAccepted('again'))
    await limit(0)
    for (const id of late) await farm.until(id, 'succeeded')
  })

  it('really full, for longer than a lease: cancel works, no lease is lost, and what runs ends when there is room', async () => {
    await using full = await startFarm({ workers: 2 })
    // Past the first grace of every process, or it would hide what is looked for.
    await sleep(graceMs(full.times))
    const gates = await Promise.all([0, 1].map((seed) => full.gate(seed, 3)))
    const running = await Promise.all([0, 1].map((seed) => full.submit({ seed })))
    for (const id of running) await full.untilCall(id, 3)
    const waiting = await full.submit({ seed: 2 })
    await full.eye.config('SET', 'maxmemory', String(MB / 2))
    const refused = await full.client.post('/v1/sessions', { workflow: 'image-generation', input: { prompt: 'x' } })
    expect([refused.status, refused.json.code]).toEqual([503, 'redis.full'])
    expect((await full.control(waiting, 'cancel')).json).toMatchObject({ status: 'cancelled' })
    await sleep(2 * full.times.leaseMs)
    const [seconds] = await full.eye.time()
    for (const held of await full.members(keys.leases)) {
      const until = await full.eye.zscore(keys.leases(shardOf(held)), held)
      expect(Number(until) / 1000).toBeGreaterThan(Number(seconds))
    }
    await full.eye.config('SET', 'maxmemory', '0')
    for (const open of gates) await open()
    for (const id of running) {
      await full.until(id, 'succeeded')
      expect((await full.history(id)).filter((event) => event.type === 'step.recovered')).toEqual([])
    }
    for (const worker of full.workers) expect(await full.eye.exists(keys.losses(worker.ready))).toBe(0)
    expect(await full.pictures(await full.submit({ seed: 3 }))).toHaveLength(1)
  })
})
