/** Two processes have something to say of one step at the same time: one of them is heard, whichever comes first. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { DarkroomError } from '../../src/errors.ts'
import { keys } from '../../src/keys.ts'
import { connect } from '../../src/redis.ts'
import { AttemptPort, type Attempt, type Delivered, type Delivery } from '../../src/engine/attempt.ts'
import { Engine } from '../../src/engine/engine.ts'
import type { SessionEvent } from '../../src/engine/session.ts'
import { startEngine, type TestEngine } from '../support/engine.ts'

const rounds = 25
const encoded = (by: string): Delivery => ({ output: { conditioning: by }, artifacts: [], stats: {} })
const failed: Delivery = { error: new DarkroomError('worker.failed', 'it failed here') }

describe('of two processes at one step', () => {
  let t: TestEngine
  /** Each over a connection of its own, so that neither waits for the other. */
  let ports: [AttemptPort, AttemptPort]
  beforeAll(async () => {
    t = await startEngine()
    const { config, log } = t.engine
    const connections = [connect(t.url, { patience: 'wait' }), connect(t.url, { patience: 'wait' })] as const
    const second = new Engine({ redis: connections[0], subscriber: connections[1], config, log, sweeps: false })
    ports = [t.port, new AttemptPort(second, [...connections])]
  })
  afterAll(async () => {
    await ports[1].close()
    await t[Symbol.asyncDispose]()
  })

  const history = async (id: string): Promise<SessionEvent[]> => (await t.engine.history(id, 0, 100)).map(({ event }) => event)
  const both = (first: () => Promise<Delivered>, other: () => Promise<Delivered>, i: number): Promise<[Delivered, Delivered]> =>
    Promise.all(i % 2 ? [other(), first()] : [first(), other()])
  /** An attempt whose lease has ended, and the one that took the step after it. */
  const overtaken = async (): Promise<{ id: string; late: Attempt; present: Attempt }> => {
    const id = await t.submit()
    const late = await t.take(id, '1.0')
    await t.redis.hset(keys.step(late.stepKey), 'leaseUntil', 0)
    expect((await t.engine.store.expire(late.stepKey, 5)).is).toBe('reopened')
    return { id, late, present: await t.take(id, '1.0', 2) }
  }

  it('two results of one attempt at once: one is recorded, and the next step is opened once', async () => {
    for (let i = 0; i < rounds; i++) {
      const id = await t.submit()
      const attempt = await t.take(id, '1.0')
      const [a, b] = await both(
        () => ports[0].deliver(attempt, encoded('a')),
        () => ports[1].deliver(attempt, encoded('b')),
        i,
      )
      expect([a, b].filter(({ isRecorded }) => isRecorded)).toHaveLength(1)
      expect((await history(id)).filter(({ type }) => type === 'step.completed')).toHaveLength(1)
      expect(await t.redis.keys(keys.step(`${id}.*`))).toEqual([keys.step(`${id}.2.0`)])
    }
  })

  it('an attempt that fails here while the one that followed it succeeds there: the session goes on with the result', async () => {
    for (let i = 0; i < rounds; i++) {
      const { id, late, present } = await overtaken()
      await both(
        () => ports[0].deliver(late, failed),
        () => ports[1].deliver(present, encoded('there')),
        i,
      )
      const events = await history(id)
      expect(events.filter(({ type }) => type === 'step.completed').map(({ attemptId }) => attemptId)).toEqual([present.id])
      expect(events.filter(({ type }) => type === 'step.failed' || type === 'step.retrying')).toEqual([])
      expect((await t.engine.get(id))?.status).toBe('running')
    }
  })

  it('a result of each of two attempts at once: only that of the one that holds the step counts', async () => {
    for (let i = 0; i < rounds; i++) {
      const { id, late, present } = await overtaken()
      await both(
        () => ports[0].deliver(late, encoded('late')),
        () => ports[1].deliver(present, encoded('present')),
        i,
      )
      expect((await history(id)).filter(({ type }) => type === 'step.completed').map(({ attemptId }) => attemptId)).toEqual([present.id])
    }
  })
})
