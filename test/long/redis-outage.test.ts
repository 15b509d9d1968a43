import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { startFarm } from '../support/farm.ts'
import { graceMs } from '../support/times.ts'
import { eventually, sleep } from '../support/wait.ts'

describe.concurrent('Redis', { timeout: 120_000 }, () => {
  it.each(['frozen', 'gone'])(
    '%s for longer than a lease under a running step: nothing runs twice, and no lease is counted as lost',
    async (how) => {
      await using farm = await startFarm({ workers: 2 })
      const { leaseMs } = farm.times
      // Past the first grace of every process, or it would hide what is looked for.
      await sleep(graceMs(farm.times))
      const open = await farm.gate(7, 2)
      const id = await farm.submit()
      const { worker } = await farm.untilCall(id, 2)
      if (how === 'frozen') {
        const thaw = farm.redis.freeze()
        await sleep(1.4 * leaseMs)
        thaw()
      } else {
        // Its worker comes back later than those who look for dead leases.
        worker.signalGroup('SIGSTOP')
        await farm.redis.kill()
        await sleep(1.4 * leaseMs)
        await farm.redis.restart()
        await sleep(leaseMs / 2)
        worker.signalGroup('SIGCONT')
      }
      // Long enough for a lease that was declared dead to be taken by the other.
      await sleep(2 * farm.times.leaseSweepMs + 500)
      await open()
      const pictures = await farm.pictures(id)
      const history = await farm.history(id)
      expect(history.filter((event) => event.type === 'step.recovered')).toEqual([])
      expect(history.filter((event) => event.type === 'step.started').map((event) => event.step)).toEqual([
        'inference.encode',
        'inference.denoise',
        'inference.decode',
        'postprocessing.save',
      ])
      expect(pictures).toHaveLength(1)
    },
  )

  it('killed while sessions are submitted and run: each accepted one ends once, the same key is the same session', async () => {
    await using farm = await startFarm({ workers: 2, fake: ['--call-ms', '20'] })
    let isOver = false
    const kills = (async () => {
      let count = 0
      while (!isOver) {
        await sleep(400)
        await farm.redis.kill()
        count++
        await sleep(300)
        await farm.redis.restart()
      }
      return count
    })()
    const keys = Array.from({ length: 24 }, (_, i) => `key-${i}`)
    const ids: string[] = []
    for (const [i, key] of keys.entries()) {
      ids.push(await farm.submitSurely(key, { seed: i, steps: 4 }))
      await sleep(100)
    }
    isOver = true
    expect(await kills).toBeGreaterThan(3)
    for (const [i, key] of keys.entries()) expect(await farm.submitSurely(key, { seed: i, steps: 4 })).toBe(ids[i])
    expect(new Set(ids)).toHaveProperty('size', keys.length)
    for (const id of ids) expect(await farm.pictures(id)).toHaveLength(1)
    const { json } = await farm.client.get('/v1/sessions?limit=100')
    expect(json.sessions).toHaveLength(keys.length)
    const other = await farm.client.post(
      '/v1/sessions',
      { workflow: 'image-generation', input: { prompt: 'another' } },
      { 'Idempotency-Key': 'key-0' },
    )
    expect(other.json).toMatchObject({ code: 'session.idempotency_mismatch' })
  })

  it('away: a submission is refused as unknown, a step goes on and its result is not lost, a worker still ends in time', async () => {
    await using farm = await startFarm({ workers: 2, settings: { DARKROOM_DRAIN_S: '2' } })
    const open = await farm.gate(7, 10)
    const id = await farm.submit()
    const { worker } = await farm.untilCall(id, 10)
    await farm.redis.kill()
    const refused = await farm.client.post('/v1/sessions', { workflow: 'image-generation', input: { prompt: 'x' } })
    expect([refused.status, refused.json.code]).toEqual([503, 'redis.unavailable'])
    await open()
    // The step ends meanwhile; what it has to say waits.
    await sleep(2000)
    const idle = farm.other(worker)
    await idle.stop(10_000)
    await farm.redis.restart()
    const pictures = await farm.pictures(id)
    expect((await farm.attempts(id, 'inference.denoise')).map(({ end, worker: by }) => [end, by])).toEqual([['completed', worker.ready]])
    expect(pictures).toEqual(await farm.undisturbed())
  })

  it.each([
    ['while its lease lives: the step that has begun ahead of that commit counts', true],
    ['until another attempt has its step: nothing counts of the one that has begun ahead', false],
  ])('out of reach for one result alone, %s', async (_, counts) => {
    await using farm = await startFarm({ workers: 2, proxied: true })
    await sleep(graceMs(farm.times))
    const open = await farm.gate(7, 10)
    const id = await farm.submit()
    const { worker, stepKey } = await farm.untilCall(id, 10)
    const before = (await farm.attempts(id, 'inference.denoise')).length
    const cut = ['commitTransition']
    farm.proxy.rule = ({ name, sessions }) => (cut.includes(name) && sessions.includes(id) ? 'cut' : undefined)
    await open()
    const place = join(farm.folder, 'attempts', worker.name)
    const [own = ''] = (await readdir(place)).filter((name) => !name.endsWith('.lock'))
    /** Folders of this session's attempts on that worker: `<step key>.<epoch>.<attempt>`. */
    const folders = async (): Promise<string[]> => (await readdir(join(place, own))).filter((name) => name.startsWith(`${id}.`))
    const ahead = await eventually('a step has begun ahead', async () =>
      (await folders()).find((name) => !name.startsWith(`${stepKey}.`))?.replace(/^.*\./, ''),
    )
    await eventually('the commit before it did not come through', async () => farm.proxy.hits('cut') > 0)
    if (!counts) {
      cut.push('renewLease')
      await eventually('another attempt has the step', async () => (await farm.attempts(id, 'inference.denoise')).length > before)
    }
    farm.proxy.rule = undefined
    const pictures = await farm.pictures(id)
    const decodes = await farm.attempts(id, 'inference.decode')
    expect(decodes.map(({ end, attemptId }) => [end, attemptId === ahead])).toEqual([['completed', counts]])
    await eventually('nothing of it is left', async () => (await folders()).length === 0)
    expect(pictures).toEqual(await farm.undisturbed())
  })

  it('full under a running step: what it has to say is said again when there is room', async () => {
    await using farm = await startFarm()
    const open = await farm.gate(7, 15)
    const id = await farm.submit()
    await farm.untilCall(id, 15)
    await farm.eye.config('SET', 'maxmemory', '1mb')
    const refused = await farm.client.post('/v1/sessions', { workflow: 'image-generation', input: { prompt: 'x' } })
    expect([refused.status, refused.json.code]).toEqual([503, 'redis.full'])
    await open()
    // Shorter than what is left of the lease.
    await sleep(farm.times.renewMs)
    await farm.eye.config('SET', 'maxmemory', '0')
    const pictures = await farm.pictures(id)
    const attempts = (await farm.receipt(id)).steps.flatMap((step) => step.attempts)
    expect(attempts.filter(({ end }) => end !== 'completed')).toEqual([])
    // The API's figure of Redis' memory is a second old at most.
    await sleep(1000)
    expect(pictures).toEqual(await farm.undisturbed())
  })

  it('and everything else killed while a session is paused, then started again: it is paused, and goes on where it was', async () => {
    await using farm = await startFarm({ workers: 2 })
    const open = await farm.gate(7, 5)
    const id = await farm.submit()
    const { call } = await farm.untilCall(id, 5)
    await farm.control(id, 'pause')
    await farm.until(id, 'paused')
    await open()
    await Promise.all([...farm.workers, ...farm.apis].map((process) => process.kill()))
    await farm.redis.kill()
    await farm.redis.restart()
    await Promise.all([...farm.apis, ...farm.workers].map((process) => process.start()))
    expect((await farm.get(id)).status).toBe('paused')
    await farm.control(id, 'resume')
    const pictures = await farm.pictures(id)
    expect((await farm.attempts(id, 'inference.denoise')).at(-1)?.resumedFrom?.call).toBeGreaterThanOrEqual(call)
    expect(pictures).toEqual(await farm.undisturbed())
  })
})
