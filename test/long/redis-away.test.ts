/**
 * Redis dies, freezes, is not there: what somebody waits for is refused in time, and everything goes on by itself when
 * it is back.
 */
import { join } from 'node:path'
import { describe, it } from 'vitest'
import { keys } from '../../src/keys.ts'
import { run, start } from '../support/command.ts'
import type { Session } from '../../src/client/index.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { graceMs } from '../support/times.ts'
import { eventually, sleep } from '../support/wait.ts'

/**
 * How long BullMQ's workers wait for a job before they look again, ms; an outage longer than that once made them wait
 * for ever.
 */
const drainDelayMs = 5000
/** Within this, every worker takes work after an outage, ms. */
const backMs = 10_000

/** These wait for outages of many seconds, on a machine that may be busy. */
const timeout = 120_000

const body = { workflow: 'image-generation', input: { prompt: 'a red circle', steps: 4, seed: 7 } }

/** What each worker has begun since then, by lane: `<worker> gpu`, `<worker> host`. */
async function begun(farm: Farm, since: number): Promise<Set<string>> {
  const found = new Set<string>()
  for (const id of await farm.members((shard) => keys.index(shard, 'all')))
    for (const { type, at, worker, step } of await farm.history(id))
      if (type === 'step.started' && at > since) found.add(`${worker} ${step?.startsWith('inference.') ? 'gpu' : 'host'}`)
  return found
}

async function redisNow(farm: Farm): Promise<number> {
  const [seconds] = await farm.eye.time()
  return Number(seconds) * 1000
}

describe.concurrent('Redis', { timeout }, () => {
  it('killed under load for three times the drain delay: idle or busy, each worker takes work on both lanes within 10 s after it is back', async ({
    expect,
  }) => {
    await using farm = await startFarm({ workers: 2, fake: ['--call-ms', '100'] })
    // Past the first grace of every process, or it would hide what is looked for.
    await sleep(graceMs(farm.times))
    const long = await farm.submit({ steps: 60 })
    const { worker: busy } = await farm.untilCall(long, 2)
    const idle = farm.other(busy)
    await farm.redis.kill()
    await sleep(3 * drainDelayMs + 1000)
    await farm.redis.restart()
    const since = await redisNow(farm)
    const startedAt = performance.now()
    // More than one worker's host lane can hold, so that each has to take some.
    const ids = await Promise.all(Array.from({ length: 16 }, (_, i) => farm.submitSurely(`after-${i}`, { steps: 2, seed: i })))
    const expected = [busy, idle].flatMap(({ ready }) => [`${ready} gpu`, `${ready} host`])
    await eventually(
      `all of ${expected.join(', ')}`,
      async () => {
        const seen = await begun(farm, since)
        return expected.every((lane) => seen.has(lane))
      },
      backMs - (performance.now() - startedAt),
    )
    await farm.until(long, 'succeeded')
    for (const id of ids) await farm.until(id, 'succeeded')
    // The step that ran all the while was nobody else's.
    expect((await farm.attempts(long, 'inference.denoise')).map(({ end, worker }) => [end, worker])).toEqual([['completed', busy.ready]])
  })

  it('frozen: submits and reads are refused within seconds, health is 200, ready is 503; thawed, all goes on and no worker is blamed', async ({
    expect,
  }) => {
    await using farm = await startFarm({ workers: 2, fake: ['--call-ms', '100'] })
    await sleep(graceMs(farm.times))
    const id = await farm.submit({ steps: 60 })
    await farm.untilCall(id, 2)
    const thaw = farm.redis.freeze()
    const refusal = async (answer: Promise<{ status: number; headers: Record<string, string | undefined>; json: { code?: string } }>) => {
      const asked = performance.now()
      const { status, headers, json } = await answer
      return { status, code: json.code, mayRepeat: headers['retry-after'] !== undefined, isInTime: performance.now() - asked < 5000 }
    }
    const refused = { status: 503, code: 'redis.unavailable', mayRepeat: true, isInTime: true }
    const [health, ready, ...others] = await Promise.all([
      farm.client.get('/v1/health'),
      refusal(farm.client.get('/v1/ready')),
      refusal(farm.client.get(`/v1/sessions/${id}`)),
      refusal(farm.client.get('/v1/sessions')),
      refusal(farm.client.get('/v1/workers')),
      refusal(farm.client.post(`/v1/sessions/${id}/pause`)),
      ...Array.from({ length: 8 }, (_, i) => refusal(farm.client.post('/v1/sessions', body, { 'Idempotency-Key': `frozen-${i % 4}` }))),
    ])
    expect(health.status).toBe(200)
    expect(ready).toEqual({ ...refused, code: 'api.not_ready' })
    expect(others).toEqual(others.map(() => refused))
    await sleep(2 * farm.times.leaseMs)
    thaw()
    const ids = await Promise.all(Array.from({ length: 8 }, (_, i) => farm.submitSurely(`frozen-${i % 4}`, body.input)))
    expect(new Set(ids)).toHaveProperty('size', 4)
    for (const each of [id, ...ids]) await farm.until(each, 'succeeded')
    expect((await farm.client.get('/v1/sessions')).json.sessions as Session[]).toHaveLength(5)
    for (const each of [id, ...new Set(ids)])
      expect((await farm.history(each)).filter((event) => event.type === 'step.recovered')).toEqual([])
    const records = await eventually('both workers publish themselves', async () => {
      const seen = await farm.records()
      return seen.length === 2 && seen
    })
    expect(records.map(({ status }) => status)).toEqual(['ready', 'ready'])
    for (const worker of farm.workers) expect(await farm.eye.exists(keys.losses(worker.ready))).toBe(0)
  })

  it('away at shutdown: a busy worker and an API still end within their bounds; the step goes on elsewhere when Redis is back', async ({
    expect,
  }) => {
    await using farm = await startFarm({ workers: 1, fake: ['--call-ms', '100'], settings: { DARKROOM_DRAIN_S: '2' } })
    const id = await farm.submit({ steps: 60 })
    await farm.untilCall(id, 3)
    await farm.redis.kill()
    const asked = performance.now()
    await Promise.all([...farm.workers.map((worker) => worker.stop(8000)), ...farm.apis.map((api) => api.stop(8000))])
    expect(performance.now() - asked).toBeLessThan(8000)
    await farm.redis.restart()
    await Promise.all([...farm.apis, ...farm.workers].map((process) => process.start()))
    await farm.until(id, 'succeeded')
    expect((await farm.attempts(id, 'inference.denoise')).at(-1)?.resumedFrom?.call).toBeGreaterThanOrEqual(3)
  })

  it('absent at start: an API and a worker wait for it and then serve; where it does not come, the end is clear and names the address', async ({
    expect,
  }) => {
    await using farm = await startFarm({ workers: 0, apis: 0 })
    const nowhere = `unix:${join(farm.folder, 'no.sock')}`
    const env = { DARKROOM_DATA: join(farm.folder, 'data'), DARKROOM_PORT: '0' }
    await farm.redis.kill()
    const late = start(['api'], { ...env, REDIS_URL: farm.redis.url, DARKROOM_MODELS: join(farm.folder, 'models') })
    const never = run(['api'], { ...env, REDIS_URL: nowhere })
    const worker = farm.addWorker()
    await sleep(3000)
    await farm.redis.restart()
    await Promise.all([worker, late.until(/listening/)])
    late.process.kill('SIGTERM')
    expect((await late.ended).code).toBe(0)
    const { code, stderr } = await never
    expect(code).toBe(1)
    expect(stderr).toContain('redis.unavailable')
    expect(stderr).toContain(nowhere)
  })
})
