import { describe, expect, it } from 'vitest'
import { startFarm } from '../support/farm.ts'
import { eventually } from '../support/wait.ts'
import { module, Scripted } from '../support/scripted.ts'

/**
 * What a worker may need besides its `DARKROOM_DRAIN_S`: its farewell to Redis, its Python child's end, and a busy
 * machine.
 */
const slackMs = 8000

describe.concurrent('SIGTERM', { timeout: 120_000 }, () => {
  it('under a step with a checkpoint: the worker is gone at once, and the other goes on with the step', async () => {
    await using farm = await startFarm({ workers: 2, settings: { DARKROOM_DRAIN_S: '60' } })
    const open = await farm.gate(7, 5)
    const id = await farm.submit()
    const { worker } = await farm.untilCall(id, 5)
    const from = Date.now()
    await worker.stop(60_000)
    expect(Date.now() - from).toBeLessThan(slackMs)
    const again = await farm.event(id, 'step.started', 'inference.denoise', 2)
    expect(again.at - from).toBeLessThan(slackMs)
    await open()
    expect((await farm.attempts(id, 'inference.denoise')).map(({ end }) => end)).toContain('released')
    expect(await farm.pictures(id)).toEqual(await farm.undisturbed())
  })

  it('under a step that ends within DARKROOM_DRAIN_S: its result is recorded before the worker goes', async () => {
    await using farm = await startFarm({ workers: 2, module, settings: { DARKROOM_DRAIN_S: '60' } })
    const play = await Scripted.begin(farm, [{ say: 'held', holds: true }, { say: 'after' }])
    const pid = await play.ran('held')
    const gone = farm.workers.find((each) => each.pid === pid)?.stop(60_000)
    await eventually('it drains', async () => (await farm.records()).some(({ status }) => status === 'draining'))
    play.release('held')
    await gone
    expect(await play.said()).toEqual(['held', 'after'])
    expect(play.runs).toEqual({ held: 1, after: 1 })
  })

  it('under a step that does not end: the worker goes within DARKROOM_DRAIN_S, and the step runs elsewhere when its lease is over', async () => {
    await using farm = await startFarm({ workers: 2, module, settings: { DARKROOM_DRAIN_S: '2' } })
    const play = await Scripted.begin(farm, [{ say: 'held', holds: true }, { say: 'after' }])
    const pid = await play.ran('held')
    const worker = farm.workers.find((each) => each.pid === pid)
    const from = Date.now()
    await worker?.stop(60_000)
    expect(Date.now() - from).toBeLessThan(2000 + slackMs)
    const next = await play.ran('held', 2)
    expect(Date.now() - from).toBeLessThan(2000 + farm.times.leaseMs + slackMs)
    expect(next).toBe(farm.workersAlive()[0]?.pid)
    play.release('held')
    expect(await play.said()).toEqual(['held', 'after'])
    expect(play.runs).toEqual({ held: 2, after: 1 })
  })
})
