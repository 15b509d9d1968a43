/** A sweep that is overtaken between what it reads and what it does about it: nothing that is due may be forgotten. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { DarkroomError } from '../../src/errors.ts'
import { keys, shardOf } from '../../src/keys.ts'
import type { WantedModel } from '../../src/domains/values.ts'
import type { WorkerRecord } from '../../src/farm/record.ts'
import { publishWorker } from '../../src/farm/presence.ts'
import { connect } from '../../src/redis.ts'
import { Engine } from '../../src/engine/engine.ts'
import { Sweep } from '../../src/engine/sweep.ts'
import { productTimes } from '../../src/engine/times.ts'
import { startEngine, type TestEngine } from '../support/engine.ts'
import { eventually, sleep } from '../support/wait.ts'
import * as programs from '../support/program.ts'

describe('a sweep that is overtaken', () => {
  let t: TestEngine
  let sweep: Sweep
  beforeAll(async () => {
    t = await startEngine()
    sweep = new Sweep(t.engine)
    sweep.start()
  })
  afterAll(async () => {
    await sweep.stop()
    await t[Symbol.asyncDispose]()
  })

  it('by an attempt that takes the step and asks for its retry: the retry stays in the outbox', async () => {
    const { reads } = t.engine
    const read = reads.step.bind(reads)
    const id = await t.submit()
    const key = `${id}.1.0`
    let isOver = false
    reads.step = async (stepKey) => {
      if (isOver || stepKey !== key) return read(stepKey)
      isOver = true
      const attempt = await t.take(id, '1.0')
      const seen = await read(stepKey)
      expect(seen?.state).toBe('leased')
      expect(await t.port.deliver(attempt, { error: new DarkroomError('worker.busy', 'not now') })).toEqual({ isRecorded: true })
      return seen
    }
    await eventually('the sweep came by', () => Promise.resolve(isOver))
    await sweep.stop()
    expect(await t.redis.zscore(keys.outbox(shardOf(id)), `step:${key}`)).not.toBe(null)
    reads.step = read
    sweep = new Sweep(t.engine)
    sweep.start()
  })

  it('by a pause and a resume: the deadline stays in its due list', async () => {
    const { store } = t.engine
    const end = store.end.bind(store)
    const id = await t.submit({ deadlineS: 0.2 })
    let isOver = false
    store.end = async (session, error, timer) => {
      if (isOver || session !== id) return end(session, error, timer)
      await t.engine.control(id, 'pause')
      const ended = await end(session, error, timer)
      await t.engine.control(id, 'resume')
      isOver = true
      return ended
    }
    await eventually('the sweep came by', () => Promise.resolve(isOver))
    await expect.poll(async () => (await t.engine.get(id))?.error?.code, { timeout: 30_000 }).toBe('session.deadline_exceeded')
  })
})

describe('a timer or deadline that has fallen due, and was claimed, when its session is paused', () => {
  let t: TestEngine
  beforeAll(async () => {
    t = await startEngine(programs)
  })
  afterAll(() => t[Symbol.asyncDispose]())

  /** What a sweep takes for itself. */
  const claim = async (id: string): Promise<string[]> => t.engine.store.claim('timers', shardOf(id), 10, productTimes.timerClaimMs)

  it.each([
    ['deadline', () => t.submit({ deadlineS: 0.05 })],
    ['timer', () => t.run({ do: 'timer', ms: 50 })],
  ])('a %s: nothing is left of it, not what the claim lasts, and it is due when the session goes on', async (_, begin) => {
    const id = await begin()
    const claimed = await eventually('it is due', async () => {
      const found = await claim(id)
      return found.length === 1 && found
    })
    expect(await claim(id)).toEqual([])
    const { deadlineLeftMs } = await t.engine.control(id, 'pause')
    const left = Object.entries(await t.redis.hgetall(keys.session(id))).filter(([field]) => field.startsWith('left:'))
    expect(left.map(([, ms]) => Number(ms))).toEqual([0])
    if (_ === 'deadline') expect(deadlineLeftMs).toBe(0)
    await t.engine.control(id, 'resume')
    expect(await claim(id)).toEqual(claimed)
    await t.engine.control(id, 'cancel')
  })

  it('one that is not due yet keeps what is left of it', async () => {
    const id = await t.submit({ deadlineS: 60 })
    expect(await claim(id)).toEqual([])
    const { deadlineLeftMs } = await t.engine.control(id, 'pause')
    expect(deadlineLeftMs).toBeGreaterThan(50_000)
    expect(deadlineLeftMs).toBeLessThanOrEqual(60_000)
    await t.engine.control(id, 'cancel')
  })
})

describe('a session', () => {
  let t: TestEngine
  beforeAll(async () => {
    t = await startEngine({ config: { classWaitS: 0 } })
  })
  afterAll(() => t[Symbol.asyncDispose]())

  /** Up to its first step on a device, which pinned it to a class and was given back. */
  async function pinned(pin: 'class' | 'strict'): Promise<{ id: string; models: readonly WantedModel[] }> {
    const id = await t.submit({ input: { prompt: 'a red circle', seed: 7, pin } })
    const resolve = await t.take(id, '1.0')
    await t.port.deliver(resolve, { output: { ...(resolve.input as object), family: 'sd1' }, artifacts: [], stats: {} })
    const encode = await t.take(id, '2.0')
    await t.port.release(encode, 'drain', undefined)
    return { id, models: encode.models }
  }
  const isMoved = async (id: string): Promise<boolean> =>
    (await t.engine.history(id, 0, 100)).some(({ event }) => event.type === 'session.moved')

  it('whose hardware class is gone: it begins again on another, or waits for its own where its request says so', async () => {
    const [lenient, strict] = [await pinned('class'), await pinned('strict')]
    expect(lenient.models).toEqual([{ id: 'darkroom-tiny', bodyHash: expect.stringMatching(/^[0-9a-f]{64}$/) }])
    const device = { id: '0123abcd-cpu-0-0', kind: 'cpu', name: 'a CPU', index: 0, totalBytes: null }
    const record = {
      id: 'other',
      epoch: 'e',
      device,
      exactnessKey: '76543210',
      status: 'ready',
      shelf: t.engine.models.shelf,
      lanes: { gpu: 1, host: 4 },
    } as WorkerRecord
    const sweep = new Sweep(t.engine)
    sweep.start()
    try {
      await eventually('it moved', async () => {
        await publishWorker(t.redis, record, [])
        return isMoved(lenient.id)
      })
      const waiting = 'no worker of hardware class 01234567 is running'
      await eventually('the other one waits', async () => (await t.engine.get(strict.id))?.waiting === waiting)
      await sleep(1500)
      expect(await isMoved(strict.id)).toBe(false)
    } finally {
      await sweep.stop()
    }
    await t.engine.control(strict.id, 'cancel')
    const again = await t.engine.retry(strict.id, { keyId: null })
    expect(await t.redis.hmget(keys.session(again.id), 'strict', 'exact')).toEqual(['1', '1'])
    expect(await t.redis.hmget(keys.session(lenient.id), 'strict', 'exact')).toEqual([null, '1'])
  })
})

describe('a process without the workflow', () => {
  it('leaves what is due to others soon, so that it is not always the first to look', async () => {
    await using t = await startEngine({ shards: 1, ...programs })
    const { config, log } = t.engine
    const connections = [connect(t.url, { patience: 'wait' }), connect(t.url, { patience: 'wait' })] as const
    // It has the workflows of the product only, and sweeps; the one that has those of the test does not, yet.
    const other = new Engine({ redis: connections[0], subscriber: connections[1], config, log })
    try {
      const id = await t.run(programs.step({ n: 3 }))
      const attempt = await t.take(id, '1.0')
      await t.engine.control(id, 'pause')
      await t.port.deliver(attempt, { output: { n: 3 }, artifacts: [], stats: {} })
      await t.engine.control(id, 'resume')
      const dues: number[] = []
      for (let i = 0; i < 60; i++) {
        const [due, now] = await Promise.all([t.redis.zscore(keys.outbox(0), `inbox:${id}`), t.engine.reads.now(0)])
        dues.push(Number(due) - now)
        await sleep(50)
      }
      // Only while it looks is it held for longer.
      expect(dues.filter((due) => due > 510).length).toBeLessThan(dues.length / 2)
      const sweep = new Sweep(t.engine)
      sweep.start()
      await eventually('its end', async () => (await t.engine.get(id))?.status === 'succeeded')
      await sweep.stop()
    } finally {
      await other.close()
      for (const connection of connections) connection.disconnect()
    }
  })
})
