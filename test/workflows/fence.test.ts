import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { DarkroomError } from '../../src/errors.ts'
import { keys } from '../../src/keys.ts'
import { AttemptPort, type Attempt } from '../../src/workflows/attempt.ts'
import { startEngine, type TestEngine } from '../support/engine.ts'

/** What an attempt may write, by verb; a verb may write in several ways. */
const writes: Record<string, Record<string, (port: AttemptPort, attempt: Attempt) => Promise<unknown>>> = {
  // The job of an older dispatch, looked at once more.
  take: { take: (port, { stepKey }) => port.take(`${stepKey}.1`, { worker: 'late', device: 'd', exactnessKey: '01234567' }) },
  renew: { renew: (port, attempt) => port.renew(attempt) },
  progress: { progress: (port, attempt) => port.progress(attempt, { stage: 'run', call: 9, calls: 10 }) },
  checkpoint: { checkpoint: (port, attempt) => port.checkpoint(attempt, { sha256: 'c'.repeat(64), bytes: 1, call: 9 }) },
  log: { log: (port, attempt) => port.log(attempt, 'a note of somebody who is late') },
  release: {
    'release for a pause': (port, attempt) => port.release(attempt, 'pause', undefined),
    'release with a checkpoint': (port, attempt) => port.release(attempt, 'drain', { sha256: 'c'.repeat(64), bytes: 1, call: 9 }),
  },
  deliver: {
    'deliver a result with an artifact': (port, attempt) =>
      port.deliver(attempt, {
        output: { model: { id: 'late', bodyHash: '0' }, family: 'late' },
        artifacts: [{ group: 'references', sha256: 'a'.repeat(64) }],
        stats: {},
      }),
    'deliver an error that is tried again': (port, attempt) => port.deliver(attempt, { error: new DarkroomError('worker.busy', 'late') }),
    'deliver an error for another device': (port, attempt) => port.deliver(attempt, { error: new DarkroomError('redis.full', 'late') }),
    'deliver an error that ends the session': (port, attempt) =>
      port.deliver(attempt, { error: new DarkroomError('worker.failed', 'late') }),
  },
}
const reads = ['namedArtifacts', 'isNamed', 'endedOf', 'keyOf', 'close']

const resolved = { output: { model: { id: 'm', bodyHash: '0' }, family: 'sd' }, artifacts: [], stats: {} }

/** How an attempt grows stale. Each returns when somebody or something else has come first. */
const overtakings: Record<string, (t: TestEngine, attempt: Attempt) => Promise<unknown>> = {
  'another attempt took the step after its lease ended': async ({ engine, redis, take }, { stepKey, sessionId }) => {
    await redis.hset(keys.step(stepKey), 'leaseUntil', 0)
    expect((await engine.store.expire(stepKey, 5)).is).toBe('reopened')
    await take(sessionId, '1.0', 2)
  },
  'it gave the step back': ({ port }, attempt) => port.release(attempt, 'drain', undefined),
  'it asked to be tried again': ({ port }, attempt) => port.deliver(attempt, { error: new DarkroomError('worker.busy', 'busy') }),
  'the step has a result': ({ port }, attempt) => port.deliver(attempt, resolved),
  'the result waits in the inbox of a pausing session': async ({ engine, port }, attempt) => {
    await engine.control(attempt.sessionId, 'pause')
    await port.deliver(attempt, resolved)
    expect((await engine.get(attempt.sessionId))?.status).toBe('paused')
  },
  'the session was cancelled': ({ engine }, attempt) => engine.control(attempt.sessionId, 'cancel'),
  'the session was deleted': async ({ engine }, attempt) => {
    await engine.control(attempt.sessionId, 'cancel')
    await engine.remove(attempt.sessionId)
  },
}

describe('the fence', () => {
  let t: TestEngine
  beforeAll(async () => {
    t = await startEngine()
  })
  afterAll(() => t[Symbol.asyncDispose]())

  /** Every key of the store with its bytes. */
  const contents = async (): Promise<Map<string, string>> => {
    const names = (await t.redis.keys('darkroom:{s*')).toSorted()
    const values = await Promise.all(names.map((name) => t.redis.dumpBuffer(name)))
    return new Map(names.map((name, i) => [name, values[i]?.toString('base64') ?? '']))
  }

  it('has a row for every verb of the attempt port', () => {
    const verbs = Object.getOwnPropertyNames(AttemptPort.prototype).filter((name) => name !== 'constructor')
    expect(verbs.toSorted()).toEqual([...Object.keys(writes), ...reads].toSorted())
  })

  describe.each(Object.entries(overtakings))('%s', (_, overtake) => {
    let attempt: Attempt
    beforeAll(async () => {
      attempt = await t.take(await t.submit(), '1.0')
      await overtake(t, attempt)
    })

    it.each(Object.values(writes).flatMap((ways) => Object.entries(ways)))('%s changes nothing and tells nobody', async (_, write) => {
      const said: string[] = []
      const ear = t.redis.duplicate()
      await ear.psubscribe('darkroom:*')
      ear.on('pmessage', (_pattern: string, channel: string) => said.push(channel))
      const before = await contents()
      const answer = await write(t.port, attempt)
      expect(await contents()).toEqual(before)
      await ear.ping()
      ear.disconnect()
      expect(said).toEqual([])
      expect([false, 'lost', { is: 'gone' }]).toContainEqual(answer)
    })
  })

  it.each(Object.entries(writes).filter(([verb]) => verb !== 'take'))(
    'of the attempt that holds the step, %s does change something',
    async (_, ways) => {
      for (const write of Object.values(ways)) {
        const attempt = await t.take(await t.submit(), '1.0')
        // A renewal in the same millisecond would write what is there.
        await new Promise((resolve) => setTimeout(resolve, 5))
        const before = await contents()
        const answer = await write(t.port, attempt)
        expect([true, 'run']).toContainEqual(answer)
        expect(await contents()).not.toEqual(before)
      }
    },
  )

  it('a late renewal succeeds as long as nobody else took the step', async () => {
    const attempt = await t.take(await t.submit(), '1.0')
    await t.redis.hset(keys.step(attempt.stepKey), 'leaseUntil', 0)
    await t.engine.store.expire(attempt.stepKey, 5)
    expect(await t.port.renew(attempt)).toBe('run')
    expect(await t.port.deliver(attempt, resolved)).toBe(true)
  })

  it('the same attempt asking again for a step gets the same answer, another one has to wait', async () => {
    const id = await t.submit()
    const first = await t.engine.store.take(`${id}.1.0`, 1, { id: 'a', worker: 'w', device: 'd', exactnessKey: '' }, 5000)
    const again = await t.engine.store.take(`${id}.1.0`, 1, { id: 'a', worker: 'w', device: 'd', exactnessKey: '' }, 5000)
    expect({ ...again, now: 0 }).toEqual({ ...first, now: 0 })
    expect((await t.engine.store.take(`${id}.1.0`, 1, { id: 'b', worker: 'w', device: 'd', exactnessKey: '' }, 5000)).is).toBe('leased')
  })
})
