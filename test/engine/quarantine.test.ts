import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { keys } from '../../src/keys.ts'
import type { Attempt } from '../../src/engine/attempt.ts'
import { startEngine, type TestEngine } from '../support/engine.ts'

const limit = 5

describe('a step whose leases end one after the other', () => {
  let t: TestEngine
  beforeAll(async () => {
    t = await startEngine()
  })
  afterAll(() => t[Symbol.asyncDispose]())

  /** Takes the session's first step under its present dispatch number. */
  const take = async (id: string): Promise<Attempt> => {
    const step = await t.engine.reads.step(`${id}.1.0`)
    return t.take(id, '1.0', step?.dispatch)
  }
  /** The attempt's worker has died; its lease is over. */
  const die = async (attempt: Attempt): Promise<string> => {
    await t.redis.hset(keys.step(attempt.stepKey), 'leaseUntil', 0)
    return (await t.engine.store.expire(attempt.stepKey, limit)).is
  }
  const dieOften = async (id: string, times: number): Promise<void> => {
    for (let i = 0; i < times; i++) expect(await die(await take(id))).toBe('reopened')
  }

  it('without progress: the session fails with the evidence, and its neighbours are not touched', async () => {
    const [id, neighbour] = [await t.submit(), await t.submit()]
    await dieOften(id, limit - 1)
    expect(await die(await take(id))).toBe('poisoned')
    const session = await t.engine.get(id)
    expect(session).toMatchObject({
      status: 'failed',
      error: { code: 'worker.poisoned', class: 'permanent', details: { leases: limit, worker: 'w', step: 'inference.encode' } },
    })
    const history = (await t.engine.history(id, 0, 100)).map(({ event }) => event)
    expect(history.filter((event) => event.type === 'step.recovered')).toHaveLength(limit)
    expect((await t.engine.get(neighbour))?.status).toBe('queued')
    // It can be looked into and tried again from where it was.
    expect((await t.engine.retry(id, { keyId: null })).status).toBe('queued')
  })

  it('with a checkpoint on the way: counted from there', async () => {
    const id = await t.submit()
    await dieOften(id, limit - 1)
    const attempt = await take(id)
    await t.port.checkpoint(attempt, { sha256: 'c'.repeat(64), bytes: 1, call: 1 })
    expect(await die(attempt)).toBe('reopened')
    await dieOften(id, limit - 2)
    expect(await die(await take(id))).toBe('poisoned')
  })

  it('a job that comes back after the lease has ended leaves it to the sweep, which knows whether Redis was away: nothing is counted or taken', async () => {
    const id = await t.submit()
    const attempt = await take(id)
    const dispatch = (await t.engine.reads.step(attempt.stepKey))?.dispatch
    for (let i = 0; i < 2 * limit; i++) {
      await t.redis.hset(keys.step(attempt.stepKey), 'leaseUntil', 0)
      const again = await t.port.take(`${attempt.stepKey}.${dispatch}`, { worker: 'w2', device: 'd', exactnessKey: '' })
      expect(again).toMatchObject({ is: 'leased', forMs: 1000 })
    }
    expect(await t.redis.hget(keys.step(attempt.stepKey), 'expiries')).toBeNull()
    expect((await t.engine.history(id, 0, 100)).map(({ event }) => event.type)).not.toContain('step.recovered')
    // Its holder was only late.
    expect(await t.port.renew(attempt)).toBe('run')
  })

  it('a release is no lost lease', async () => {
    const id = await t.submit()
    for (let i = 0; i < 2 * limit; i++) await t.port.release(await take(id), 'drain', undefined)
    expect((await t.engine.get(id))?.status).toBe('running')
  })

  it('during a pause: the last lease that ends makes it paused', async () => {
    const id = await t.submit()
    const attempt = await take(id)
    expect((await t.engine.control(id, 'pause')).status).toBe('pausing')
    expect(await die(attempt)).toBe('reopened')
    expect((await t.engine.get(id))?.status).toBe('paused')
    await t.engine.control(id, 'resume')
    expect((await take(id)).epoch).toBe(2)
  })
})
