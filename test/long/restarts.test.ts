/**
 * Processes are killed and come back while sessions are under way, parked or paused: what was to go on goes on by
 * itself, once.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { keys } from '../../src/keys.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { graceMs } from '../support/times.ts'
import { eventually, sleep } from '../support/wait.ts'
import { module, Scripted } from '../support/scripted.ts'

let farm: Farm
beforeAll(async () => {
  farm = await startFarm({ workers: 2, module, settings: { DARKROOM_HOST_LANE: '12' }, fake: ['--call-ms', '10'] })
})
afterAll(() => farm[Symbol.asyncDispose]())

/** Waits for a session's end past the APIs: no request wakes anything. */
const endsByItself = (play: Scripted): Promise<unknown> =>
  eventually(`${play.id} succeeded by itself`, async () => (await farm.eye.hget(keys.session(play.id), 'status')) === 'succeeded')

const parkedOn = (play: { id: string }, what: string): Promise<unknown> =>
  eventually(`${play.id} waits for ${what}`, async () => (await farm.get(play.id)).waiting === what)

/** When its timer fired, ms after its session was made. */
async function firedAfter(play: Scripted): Promise<number> {
  const history = await farm.history(play.id)
  const fired = history.filter(({ type }) => type === 'timer.fired')
  expect(fired).toHaveLength(1)
  return (fired[0]?.at ?? 0) - (history[0]?.at ?? 0)
}

const told = async (play: Scripted): Promise<number> => (await farm.history(play.id)).filter(({ type }) => type === 'child.ended').length

describe('sessions under way', { timeout: 120_000 }, () => {
  it('all workers killed in the second of three steps and in the step of a child: what was recorded is not run again, the rest runs once more', async () => {
    const open = await farm.gate(7, 3)
    const picture = await farm.submit()
    const { call, worker } = await farm.untilCall(picture, 3)
    const other = farm.other(worker)
    await farm.control(picture, 'pause')
    await farm.until(picture, 'paused')
    await open()
    const three = await Scripted.begin(farm, [{ say: 'one' }, { say: 'two', holds: true }, { say: 'three' }])
    const parent = await Scripted.begin(farm, [{ child: [{ say: 'held', holds: true }] }, { say: 'after' }])
    await Promise.all([three.ran('two'), parent.ran('held')])
    await Promise.all(farm.workers.map((each) => each.kill()))
    three.release('two')
    parent.release('held')
    await other.start()
    // The one that was paused on a worker that is gone goes on at its call on the other.
    await farm.control(picture, 'resume')
    const pictures = await farm.pictures(picture)
    const last = (await farm.attempts(picture, 'inference.denoise')).at(-1)
    expect(last?.worker).toBe(other.ready)
    expect(last?.resumedFrom?.call).toBeGreaterThanOrEqual(call)
    expect(await three.said()).toEqual(['one', 'two', 'three'])
    expect(three.runs).toEqual({ one: 1, two: 2, three: 1 })
    expect(await parent.said()).toEqual([['held'], 'after'])
    expect(parent.runs).toEqual({ held: 2, after: 1 })
    expect(await told(parent)).toBe(1)
    expect(pictures).toEqual(await farm.undisturbed())
    await worker.start()
  })

  it('the API killed while a timer, a step and a child run, and a worker boots: the timer is on time, nothing runs twice, the parent is told', async () => {
    const timer = await Scripted.begin(farm, [{ waitMs: 3000 }, { say: 'late' }])
    const long = await Scripted.begin(farm, [{ say: 'long', holds: true }])
    const parent = await Scripted.begin(farm, [{ child: [{ say: 'held', holds: true }] }, { say: 'after' }])
    const listening = await Scripted.begin(farm, [{ signal: true }, { say: 'after' }])
    await Promise.all([long.ran('long'), parent.ran('held'), parkedOn(listening, 'a signal')])
    const [api] = farm.apis
    await api?.kill()
    const fresh = await farm.addWorker()
    parent.release('held')
    await Promise.all([endsByItself(parent), endsByItself(timer)])
    // Beyond the first grace of the fresh worker: its sweeps have seen the lease of the long step, over and over.
    await sleep(graceMs(farm.times) + farm.times.leaseSweepMs)
    expect(long.runs).toEqual({ long: 1 })
    await api?.start()
    long.release('long')
    expect(await long.said()).toEqual(['long'])
    expect(long.runs).toEqual({ long: 1 })
    expect(await timer.said()).toEqual(['waited', 'late'])
    expect(timer.runs).toEqual({ late: 1 })
    const after = await firedAfter(timer)
    expect(after).toBeGreaterThanOrEqual(3000)
    expect(after).toBeLessThan(8000)
    expect(await parent.said()).toEqual([['held'], 'after'])
    expect(parent.runs).toEqual({ held: 1, after: 1 })
    expect(await told(parent)).toBe(1)
    expect(await listening.signal('here')).toBe(200)
    expect(await listening.said()).toEqual(['here', 'after'])
    expect((await farm.attempts(long.id, 'test.count')).map(({ end }) => end)).toEqual(['completed'])
    await fresh.stop(10_000)
  })

  it('everything killed, Redis included, while sessions wait: what is due goes on by itself without a request, the rest when it is told', async () => {
    const timer = await Scripted.begin(farm, [{ waitMs: 4000 }, { say: 'late' }])
    const later = await Scripted.begin(farm, [{ waitMs: 10_000 }, { say: 'late' }])
    const running = await Scripted.begin(farm, [{ child: [{ say: 'held', holds: true }] }, { say: 'after' }])
    const listening = await Scripted.begin(farm, [{ signal: true }, { say: 'after' }])
    const parent = await Scripted.begin(farm, [{ child: [{ signal: true }, { say: 'in' }] }, { say: 'after' }])
    const paused = await Scripted.begin(farm, [{ signal: true }, { say: 'after' }])
    await running.ran('held')
    await Promise.all([parkedOn(listening, 'a signal'), parkedOn(await parent.child(), 'a signal'), parkedOn(paused, 'a signal')])
    await farm.control(paused.id, 'pause')
    await farm.until(paused.id, 'paused')
    expect(await paused.signal('kept', 'kept')).toBe(200)
    const processes = [...farm.workersAlive(), ...farm.apis]
    await Promise.all(processes.map((process) => process.kill()))
    await farm.redis.kill()
    running.release('held')
    await sleep(4000)
    await farm.redis.restart()
    await Promise.all(processes.map((process) => process.start()))
    await Promise.all([timer, running, later].map(endsByItself))
    for (const [play, dueMs] of [
      [timer, 4000],
      [later, 10_000],
    ] as const) {
      expect(await play.said()).toEqual(['waited', 'late'])
      expect(play.runs).toEqual({ late: 1 })
      expect(await firedAfter(play)).toBeGreaterThanOrEqual(dueMs)
    }
    expect(await firedAfter(later)).toBeLessThan(16_000)
    expect(await running.said()).toEqual([['held'], 'after'])
    expect(running.runs).toEqual({ held: 2, after: 1 })
    for (const play of [listening, parent]) expect((await farm.get(play.id)).status).toBe('running')
    expect(await listening.signal('here')).toBe(200)
    expect(await listening.said()).toEqual(['here', 'after'])
    const { id } = await parent.child()
    expect((await farm.client.post(`/v1/sessions/${id}/signal`, { type: 'go', data: 'here' })).status).toBe(200)
    expect(await parent.said()).toEqual([['here', 'in'], 'after'])
    expect((await farm.get(paused.id)).status).toBe('paused')
    await farm.control(paused.id, 'resume')
    expect(await paused.said()).toEqual(['kept', 'after'])
  })
})
