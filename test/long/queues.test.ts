import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { Worker as BullWorker } from 'bullmq'
import { describe, it } from 'vitest'
import { root } from '../../src/config.ts'
import { keys, queues } from '../../src/keys.ts'
import { startFarm } from '../support/farm.ts'
import { module, Scripted } from '../support/scripted.ts'
import { quickTimes } from '../support/times.ts'
import { eventually, sleep } from '../support/wait.ts'

const clockBack = pathToFileURL(join(root, 'test/support/clock-back.mjs')).href
const clockAhead = pathToFileURL(join(root, 'test/support/clock-ahead.mjs')).href

describe.concurrent('where steps run', { timeout: 120_000 }, () => {
  // Beyond every lease and every wait for a worker; LATE_S=60 is the long form.
  const lateS = Number(process.env['LATE_S'] ?? (quickTimes.leaseMs + quickTimes.affinityMs + quickTimes.queuedMs) / 1000)
  it(`the only worker arrives ${lateS} s after the submission`, { timeout: 60_000 + lateS * 1000 }, async ({ expect }) => {
    await using farm = await startFarm({ workers: 0, fake: ['--call-ms', '5'] })
    const id = await farm.submit()
    await eventually('it says what it waits for', async () => (await farm.get(id)).waiting === 'no worker is running')
    expect((await farm.client.get('/v1/ready')).status).toBe(503)
    await sleep(lateS * 1000)
    expect((await farm.get(id)).status).toBe('queued')
    await farm.addWorker()
    await farm.pictures(id)
    expect((await farm.get(id)).waiting).toBe(null)
    expect((await farm.client.get('/v1/ready')).status).toBe(200)
  })

  it('two workers share the work: of four sessions each runs some, and a session stays where its tensors are', async ({ expect }) => {
    await using farm = await startFarm({ workers: 2, fake: ['--call-ms', '50'] })
    const ids = await Promise.all([1, 2, 3, 4].map((seed) => farm.submit({ seed })))
    const workers = new Set<string>()
    for (const id of ids) {
      await farm.pictures(id)
      const steps = (await farm.receipt(id)).steps.filter(({ step }) => step.startsWith('inference.'))
      const own = new Set(steps.flatMap(({ attempts }) => attempts.map(({ worker }) => worker)))
      expect(own).toHaveProperty('size', 1)
      for (const worker of own) workers.add(worker)
    }
    expect(workers).toHaveProperty('size', 2)
  })

  it('a job that lies in the queue of a dead device moves', async ({ expect }) => {
    // With more time to see it there.
    await using farm = await startFarm({ workers: 2, times: { ...quickTimes, affinityMs: 4000 } })
    const open = await farm.gate(7, 3)
    const id = await farm.submit()
    const { worker, stepKey } = await farm.untilCall(id, 3)
    await farm.control(id, 'pause')
    await farm.until(id, 'paused')
    const ofWorker = async () => (await farm.records()).find((record) => record.id === worker.ready)
    await eventually('its worker says that it is free', async () => (await ofWorker())?.running.length === 0)
    // Its last worker still counts as alive, so the step goes to that worker's own queue, which nobody serves any more.
    worker.signalGroup('SIGSTOP')
    await farm.control(id, 'resume')
    const { device } = (await ofWorker()) ?? {}
    await eventually(
      'the step is placed',
      async () => (await farm.eye.hget(keys.step(stepKey), 'queue')) === queues.gpuDevice(device?.id ?? ''),
    )
    await worker.kill()
    await open()
    const again = await farm.event(id, 'step.started', 'inference.denoise', 2)
    expect(again.worker).toBe(farm.other(worker).ready)
    await farm.pictures(id)
  })

  it('jobs that a dead device leaves in its queue go with it', { timeout: 60_000 }, async ({ expect }) => {
    await using farm = await startFarm({ workers: 2 })
    const open = await farm.gate(7, 3)
    const id = await farm.submit()
    const { worker } = await farm.untilCall(id, 3)
    const { device } = (await farm.records()).find((record) => record.id === worker.ready) ?? {}
    const queue = queues.gpuDevice(device?.id ?? '')
    const left = (): Promise<string[]> => farm.eye.keys(`${keys.queuePrefix(queue)}:*`)
    await worker.kill()
    expect(await left()).not.toEqual([])
    await open()
    await farm.pictures(id)
    const isKnown = async (): Promise<boolean> => (await farm.eye.zscore(keys.serving(), queue)) !== null
    await eventually('its queue is gone and forgotten', async () => (await left()).length === 0 && !(await isKnown()), 40_000)
  })

  it('a job whose worker died between fetching it and taking its step is dispatched again', async ({ expect }) => {
    await using farm = await startFarm({ module, workers: 0 })
    const said = await Scripted.begin(farm, [{ say: 'taken' }])
    const connection = farm.eye.duplicate()
    const fetcher = new BullWorker('host', null, { connection, prefix: keys.queuePrefix('host'), autorun: false, lockDuration: 60_000 })
    const job = await eventually('a job', () => fetcher.getNextJob('of a worker that dies now', { block: false }))
    expect(job.id).toContain(said.id)
    await fetcher.close()
    connection.disconnect()
    await farm.addWorker()
    await said.said(25_000)
    expect(said.runs).toEqual({ taken: 1 })
  })

  it('a worker whose clock is an hour ahead: no timer is early, no lease is stolen, nothing runs twice', async ({ expect }) => {
    const callMs = 50
    await using farm = await startFarm({
      module,
      workers: [{ preload: [clockAhead] }, {}],
      fake: ['--call-ms', String(callMs)],
    })
    const delayed = await Scripted.begin(farm, [{ waitMs: 3000 }, { say: 'late' }])
    const picture = await farm.submit({}, { deadlineS: 60 })
    await farm.pictures(picture)
    const { createdAt } = await farm.eye.hgetall(keys.session(delayed.id))
    await delayed.said()
    const fired = (await farm.history(delayed.id)).find((event) => event.type === 'timer.fired')
    expect((fired?.at ?? 0) - Number(createdAt)).toBeGreaterThanOrEqual(3000)
    expect((fired?.at ?? 0) - Number(createdAt)).toBeLessThan(15_000)
    expect(delayed.runs).toEqual({ late: 1 })
    // Longer than a lease, on both.
    const steps = Math.ceil((2 * farm.times.leaseMs) / callMs)
    const ids = await Promise.all([1, 2].map((seed) => farm.submit({ seed, steps })))
    const workers = await Promise.all(ids.map(async (id) => (await farm.untilCall(id, 5)).worker.ready))
    expect(new Set(workers)).toHaveProperty('size', 2)
    for (const [i, id] of ids.entries()) {
      await farm.pictures(id)
      expect((await farm.attempts(id, 'inference.denoise')).map((attempt) => [attempt.worker, attempt.end])).toEqual([
        [workers[i], 'completed'],
      ])
    }
  })

  it('clocks that jump back by an hour under a step: its lease is kept, its progress is told, the next step finds its way', async ({
    expect,
  }) => {
    await using farm = await startFarm({ preload: [clockBack], workers: 2 })
    const open = await farm.gate(7, 2)
    const id = await farm.submit({ count: 2 })
    const { worker } = await farm.untilCall(id, 2)
    for (const process of [...farm.apis, ...farm.workers]) process.signal('SIGUSR1')
    await sleep(2 * farm.times.leaseMs)
    await open()
    await farm.pictures(id)
    const attempts = (await farm.receipt(id)).steps.flatMap((step) => step.attempts)
    expect(attempts.filter(({ end }) => end !== 'completed')).toEqual([])
    expect((await farm.attempts(id, 'inference.denoise')).map((attempt) => attempt.worker)).toEqual([worker.ready, worker.ready])
    // And a worker that is gone by now is not asked any more.
    await worker.kill()
    expect(await farm.pictures(await farm.submit({ seed: 8 }))).toHaveLength(1)
  })

  it('a worker that lost attempts of three different sessions in a row takes nothing more', async ({ expect }) => {
    await using farm = await startFarm({
      module,
      workers: [{ env: { SCRIPT_WORKER: 'bad', DARKROOM_HOST_LANE: '1' } }, { env: { SCRIPT_WORKER: 'good' } }],
    })
    const [bad] = farm.workers
    const blockMs = 2 * farm.times.leaseMs
    const statusOf = async (): Promise<string | undefined> => (await farm.records()).find((record) => record.id === bad?.ready)?.status
    const plays: Scripted[] = []
    const play = async (): Promise<void> =>
      void plays.push(await Scripted.begin(farm, [{ say: 'lost', blocks: { ms: blockMs, on: 'bad' } }]))
    const taken = (): number => plays.filter((each) => each.pids('lost').includes(bad?.pid ?? 0)).length
    await eventually(
      'the worker is suspect',
      async () => {
        await play()
        await sleep(500)
        return (await statusOf()) === 'suspect'
      },
      50_000,
    )
    for (const each of plays) await each.said()
    const before = taken()
    expect(before).toBeGreaterThanOrEqual(3)
    for (let i = 0; i < 5; i++) await play()
    for (const each of plays) await each.said()
    expect(taken()).toBe(before)
  })

  it('a retry of a session that waited for a timer waits for it again', async ({ expect }) => {
    await using farm = await startFarm({ module })
    const play = await Scripted.begin(farm, [{ waitMs: 2000 }, { say: 'late' }])
    await farm.control(play.id, 'cancel')
    const { json } = await farm.control(play.id, 'retry')
    await farm.until(json.id, 'succeeded')
    expect(play.runs).toEqual({ late: 1 })
  })

  it('a worker without the version of the workflow runs its steps; who has it makes the transition', async ({ expect }) => {
    await using farm = await startFarm({ module, workers: [{ module: undefined }] })
    const play = await Scripted.begin(farm, [{ do: 'run', operation: 'model.resolve', input: { model: 'darkroom-tiny' } }])
    expect(await play.said()).toMatchObject([{ family: expect.any(String) }])
    expect((await farm.attempts(play.id, 'model.resolve')).map(({ worker, end }) => [worker, end])).toEqual([
      [farm.workers[0]?.ready, 'completed'],
    ])
  })
})
