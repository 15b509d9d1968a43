/** Errors that a script finds by itself, without the product's errors.ts at hand. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { errorCatalogue } from '../../src/errors.ts'
import { keys } from '../../src/keys.ts'
import { scripts } from '../../src/redis.ts'
import { startEngine, type TestEngine } from '../support/engine.ts'

describe('a session that a script ends', () => {
  let t: TestEngine
  beforeAll(async () => {
    t = await startEngine()
  })
  afterAll(() => t[Symbol.asyncDispose]())

  it('with too long a history says what the catalogue says', async () => {
    const id = await t.submit()
    const attempt = await t.take(id, '1.0')
    await t.redis.rpush(keys.history(id), ...Array.from({ length: 9990 }, () => '{"at":0,"type":"step.noted"}'))
    await t.port.deliver(attempt, { output: { model: { id: 'm', bodyHash: '0' }, family: 'sd' }, artifacts: [], stats: {} })
    const code = 'session.too_long'
    const error = { code, ...errorCatalogue.get(code), message: `session ${id} has recorded 9993 events` }
    expect((await t.engine.get(id))?.error).toEqual(error)
    expect((await t.engine.history(id, 9993, 10)).map(({ event }) => event)).toEqual([
      { type: 'session.failed', at: expect.any(Number), error },
    ])
  })

  it('because its step ends one worker after the other says what the catalogue says', async () => {
    const id = await t.submit()
    const { stepKey } = await t.take(id, '1.0')
    await t.redis.hset(keys.step(stepKey), 'leaseUntil', 0)
    expect((await t.engine.store.expire(stepKey, 1)).is).toBe('poisoned')
    const code = 'worker.poisoned'
    const said = `step inference.encode of session ${id} ended 1 leases in a row without progress, the last on worker w`
    const error = { code, ...errorCatalogue.get(code), message: said, details: { leases: 1, worker: 'w', step: 'inference.encode' } }
    expect((await t.engine.get(id))?.error).toEqual(error)
    expect((await t.engine.history(id, 0, 10)).at(-1)?.event).toEqual({ type: 'session.failed', at: expect.any(Number), error })
  })

  it.each([...scripts])('%s carries no class and no remedy of its own', (_, text) => {
    const code = text.replaceAll(/--.*/g, '')
    expect(code).not.toMatch(/remedy|\bclass\b|permanent|transient/)
  })
})
