/** Who is to blame: a session that kills its workers, a worker that loses its sessions, or neither. */
import { describe, it } from 'vitest'
import type { SessionEvent } from '../../src/engine/session.ts'
import type { Session } from '../../src/client/index.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { eventually, sleep } from '../support/wait.ts'
import { journey } from '../support/programs.ts'
import { inputOf, module, Scripted } from '../support/scripted.ts'

/** Starts killed workers again, as a supervisor does, until the returned function is called. */
function supervise(farm: Farm): () => Promise<void> {
  let isOver = false
  const starts: Promise<void>[] = []
  for (const worker of farm.workers) {
    const keep = async (): Promise<void> => {
      for (;;) {
        const { signal } = await worker.exited
        if (isOver || signal !== 'SIGKILL') return
        const start = worker.start()
        starts.push(start)
        await start
      }
    }
    void keep()
  }
  return async () => {
    isOver = true
    await Promise.all(starts)
  }
}

const recoveries = async (farm: Farm, id: string): Promise<SessionEvent[]> =>
  (await farm.history(id)).filter(({ type }) => type === 'step.recovered')

describe.concurrent('quarantine', { timeout: 240_000 }, () => {
  it('a session that kills five workers in a row fails with the evidence; its neighbours succeed, and so does a retry once it is harmless', async ({
    expect,
  }) => {
    await using farm = await startFarm({ workers: 3, module, fake: ['--call-ms', '20'] })
    const over = supervise(farm)
    const { json } = await farm.client.post('/v1/sessions', { workflow: 'program', input: inputOf(farm, journey({ kills: 5 })) })
    const { id } = json as Session
    const pictures = await Promise.all([1, 2, 3, 4].map((seed) => farm.submit({ seed, steps: 150 })))
    await farm.client.post(`/v1/sessions/${id}/signal`, { type: 'go' })
    const { error } = await farm.until(id, 'failed', 120_000)
    expect(error).toMatchObject({ code: 'worker.poisoned', details: { leases: 5, step: 'test.count' } })
    const lost = await recoveries(farm, id)
    expect(lost.map(({ inARow }) => inARow)).toEqual([1, 2, 3, 4, 5])
    // Each was another worker, or one that had been started anew.
    expect(new Set(lost.map(({ worker }) => worker))).toHaveProperty('size', 5)
    for (const picture of pictures) expect(await farm.pictures(picture, 120_000)).toHaveLength(1)
    const retried = (await farm.control(id, 'retry')).json
    await farm.until(retried.id, 'succeeded')
    await over()
  })

  it('three outages of Redis, three deploys and a broken worker poison nobody; the broken worker takes nothing more', async ({
    expect,
  }) => {
    await using farm = await startFarm({
      workers: [{ env: { SCRIPT_WORKER: 'good' } }, { env: { SCRIPT_WORKER: 'good' } }],
      module,
      settings: { DARKROOM_HOST_LANE: '4' },
    })
    const { leaseMs, outageMs } = farm.times
    // One step that makes no progress all the while.
    const open = await farm.gate(7, 3)
    const patient = await farm.submit()
    await farm.untilCall(patient, 3)
    const plays: Scripted[] = []
    const play = async (): Promise<void> => {
      // The broken one loses every lease it has: it blocks its process for longer than a lease.
      plays.push(await Scripted.begin(farm, [{ say: 'work', blocks: { ms: 1.3 * leaseMs, on: 'bad' } }]))
    }
    for (let i = 0; i < 3; i++) {
      await play()
      await farm.redis.kill()
      await sleep(1.3 * leaseMs)
      await farm.redis.restart()
      await farm.event(patient, 'step.started', 'inference.denoise')
      await sleep(2 * outageMs)
    }
    expect(await recoveries(farm, patient)).toEqual([])
    for (let i = 0; i < 3; i++) {
      await play()
      for (const worker of farm.workers) {
        await worker.stop(30_000)
        await worker.start()
      }
    }
    expect(await recoveries(farm, patient)).toEqual([])
    expect((await farm.history(patient)).filter(({ type }) => type === 'step.released').length).toBeGreaterThanOrEqual(3)

    const bad = await farm.addWorker({ env: { SCRIPT_WORKER: 'bad', DARKROOM_HOST_LANE: '1' } })
    const statusOf = async (): Promise<string | undefined> => (await farm.records()).find(({ id }) => id === bad.ready)?.status
    await eventually(
      'the broken worker is suspect',
      async () => {
        await play()
        await sleep(500)
        return (await statusOf()) === 'suspect'
      },
      120_000,
    )
    for (const { id } of plays) await farm.until(id, 'succeeded', 60_000)
    const taken = async (): Promise<number> =>
      (await Promise.all(plays.map(({ id }) => farm.history(id))))
        .flat()
        .filter(({ type, worker }) => type === 'step.started' && worker === bad.ready).length
    const before = await taken()
    for (let i = 0; i < 5; i++) await play()
    for (const each of plays) expect(await each.said()).toEqual(['work'])
    expect(await taken()).toBe(before)
    await open()
    expect(await farm.pictures(patient)).toEqual(await farm.undisturbed())
  })
})
