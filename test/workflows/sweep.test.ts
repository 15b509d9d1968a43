/** A sweep that is overtaken between what it reads and what it does about it: nothing that is due may be forgotten. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { DarkroomError } from '../../src/errors.ts'
import { keys, shardOf } from '../../src/keys.ts'
import { Recovery } from '../../src/workflows/recovery.ts'
import { startEngine, type TestEngine } from '../support/engine.ts'
import { eventually } from '../support/farm.ts'

describe('a sweep that is overtaken', () => {
  let t: TestEngine
  let recovery: Recovery
  beforeAll(async () => {
    t = await startEngine()
    recovery = new Recovery(t.engine)
    recovery.start()
  })
  afterAll(async () => {
    await recovery.stop()
    await t[Symbol.asyncDispose]()
  })

  it('by an attempt that takes the step and asks for its retry: the retry stays in the outbox', async () => {
    const { store } = t.engine
    const read = store.step.bind(store)
    const id = await t.submit()
    const key = `${id}.1.0`
    let isOver = false
    store.step = async (stepKey) => {
      if (isOver || stepKey !== key) return read(stepKey)
      isOver = true
      const attempt = await t.take(id, '1.0')
      const seen = await read(stepKey)
      expect(seen?.state).toBe('leased')
      expect(await t.port.deliver(attempt, { error: new DarkroomError('worker.busy', 'not now') })).toBe(true)
      return seen
    }
    await eventually('the sweep came by', () => Promise.resolve(isOver))
    await recovery.stop()
    expect(await t.redis.zscore(keys.outbox(shardOf(id)), `step:${key}`)).not.toBe(null)
    store.step = read
    recovery = new Recovery(t.engine)
    recovery.start()
  })

  it('by a pause and a resume: the deadline stays in the clock', async () => {
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
