import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { DarkroomError } from '../../src/errors.ts'
import { keys, shardOf } from '../../src/keys.ts'
import { AttemptPort, type Attempt } from '../../src/engine/attempt.ts'
import { acts, type AtPoint } from '../../src/engine/points.ts'
import type { Cause } from '../../src/engine/store.ts'
import { noUse } from '../../src/engine/usage.ts'
import { cancelled } from '../../src/engine/outcome.ts'
import { startEngine, type TestEngine } from '../support/engine.ts'
import * as programs from '../support/program.ts'
import { tree, treeChildren } from '../support/programs.ts'

/** What an attempt may write, by verb; a verb may write in several ways. */
const writes: Record<string, Record<string, (port: AttemptPort, attempt: Attempt) => Promise<unknown>>> = {
  // The job of an older dispatch, looked at once more.
  take: { take: (port, { stepKey }) => port.take(`${stepKey}.1`, { worker: 'late', device: 'd', exactnessKey: '01234567' }) },
  renew: { renew: (port, attempt) => port.renew(attempt) },
  progress: { progress: (port, attempt) => port.progress(attempt, { stage: 'run', call: 9, calls: 10 }) },
  checkpoint: { checkpoint: (port, attempt) => port.checkpoint(attempt, { sha256: 'c'.repeat(64), bytes: 1, call: 9 }) },
  preview: { preview: (port, attempt) => port.preview(attempt, 9, Buffer.from('no picture')) },
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
    'deliver a result and go on': (port, attempt) =>
      port.deliver(attempt, encoded, { taker: () => ({ worker: 'late', device: 'd', exactnessKey: '' }) }),
    'deliver an error that is tried again': (port, attempt) => port.deliver(attempt, { error: new DarkroomError('worker.busy', 'late') }),
    'deliver an error for another device': (port, attempt) => port.deliver(attempt, { error: new DarkroomError('redis.full', 'late') }),
    'deliver an error that ends the session': (port, attempt) =>
      port.deliver(attempt, { error: new DarkroomError('worker.failed', 'late') }),
  },
}
/** Of no session: `withhold` keeps a picture that none of them names, `putBack` names steps that nobody has taken. */
const reads = ['close', 'count', 'isPaused', 'openWorkflows', 'putBack', 'waitingModels', 'withhold', 'workers']

const encoded = { output: { conditioning: 'c'.repeat(64) }, artifacts: [], stats: {} }

/** How an attempt grows stale. Each returns when somebody or something else has come first. */
const overtakings: Record<string, (t: TestEngine, attempt: Attempt) => Promise<unknown>> = {
  'another attempt took the step after its lease ended': async ({ engine, redis, take }, { stepKey, sessionId }) => {
    await redis.hset(keys.step(stepKey), 'leaseUntil', 0)
    expect((await engine.store.expire(stepKey, 5)).is).toBe('reopened')
    await take(sessionId, '1.0', 2)
  },
  'it gave the step back': ({ port }, attempt) => port.release(attempt, 'drain', undefined),
  'it asked to be tried again': ({ port }, attempt) => port.deliver(attempt, { error: new DarkroomError('worker.busy', 'busy') }),
  'the step has a result': ({ port }, attempt) => port.deliver(attempt, encoded),
  'the result waits in the inbox of a pausing session': async ({ engine, port }, attempt) => {
    await engine.control(attempt.sessionId, 'pause')
    await port.deliver(attempt, encoded)
    expect((await engine.get(attempt.sessionId))?.status).toBe('paused')
  },
  'its lease ended while the session was pausing, which is paused now': async ({ engine, redis }, { stepKey, sessionId }) => {
    expect((await engine.control(sessionId, 'pause')).status).toBe('pausing')
    await redis.hset(keys.step(stepKey), 'leaseUntil', 0)
    expect((await engine.store.expire(stepKey, 5)).is).toBe('reopened')
    expect((await engine.get(sessionId))?.status).toBe('paused')
  },
  'it gave the step back to a session that is paused now': async ({ engine, port }, attempt) => {
    await engine.control(attempt.sessionId, 'pause')
    await port.release(attempt, 'pause', undefined)
    expect((await engine.get(attempt.sessionId))?.status).toBe('paused')
  },
  'that session went on since': async ({ engine, redis }, { stepKey, sessionId }) => {
    await engine.control(sessionId, 'pause')
    await redis.hset(keys.step(stepKey), 'leaseUntil', 0)
    await engine.store.expire(stepKey, 5)
    expect((await engine.control(sessionId, 'resume')).status).toBe('running')
  },
  'the session is quarantined': async ({ engine, redis }, { stepKey }) => {
    await redis.hset(keys.step(stepKey), 'leaseUntil', 0)
    expect((await engine.store.expire(stepKey, 1)).is).toBe('poisoned')
  },
  'the deadline of the session is over': async ({ engine }, { sessionId }) => {
    expect(await engine.store.end(sessionId, new DarkroomError('session.deadline_exceeded', 'late').toWire(), '')).toBe(true)
  },
  'the session was cancelled': ({ engine }, attempt) => engine.control(attempt.sessionId, 'cancel'),
  'the session was deleted': async ({ engine }, attempt) => {
    await engine.control(attempt.sessionId, 'cancel')
    await engine.remove(attempt.sessionId)
  },
}

/** A session in the middle of its work: two children, a delay, and a signal to come. */
async function grow(t: TestEngine): Promise<{ id: string; good: string; timer: string; goodEffect: string; value: string }> {
  const id = await t.run(tree())
  await t.port.deliver(await t.take(id, '1.0'), { output: { n: 1 }, artifacts: [], stats: {} })
  const [timer] = (await t.redis.zrange(keys.timers(shardOf(id)), '0', '-1')).filter((member) => member.startsWith(id))
  if (timer === undefined) throw new Error(`${id} has no timer in the clock of its shard`)
  const { sessions } = await t.engine.list({ parent: id, keyId: null, limit: 10 })
  const good = sessions.find((child) => child.input['path'] === treeChildren.good)?.id ?? ''
  const goodEffect = (await t.redis.hget(keys.session(good), 'parent')) ?? ''
  return { id, good, timer, goodEffect, value: `${good}:program@1` }
}

/** What a process that was frozen has in its hand: the state as it was, and what it is about to do. */
async function frozen(
  t: TestEngine,
  id: string,
  about: Partial<Cause> & Pick<Cause, 'kind' | 'name' | 'entry'>,
): Promise<() => Promise<unknown>> {
  const { version, snapshot, workflow } = await t.engine.reads.fields(id, 'version', 'snapshot', 'workflow')
  const state = { version: version ?? '', snapshot: snapshot ?? '', workflow: workflow ?? '' }
  const cause: Cause = { attemptId: '', event: undefined, artifacts: [], unpin: false, ...about }
  return () => t.engine.commits.apply(id, cause, state)
}
const firing = (t: TestEngine, id: string, timer: string): ReturnType<typeof frozen> =>
  frozen(t, id, { kind: 'timer', name: timer.slice(id.length + 1), entry: { type: 'timer.fired', key: timer } })
const telling = (t: TestEngine, id: string, effect: string): ReturnType<typeof frozen> =>
  frozen(t, id, {
    kind: 'child',
    name: effect.slice(id.length + 1),
    event: { type: 'xstate.done.actor.at:1.0', output: { total: 10, trace: [], tokens: {}, said: [] }, actorId: 'at:1.0' },
    entry: { type: 'child.ended', key: effect },
    artifacts: [{ group: 'references', sha256: 'a'.repeat(64) }],
  })
const signalling = (t: TestEngine, id: string): ReturnType<typeof frozen> =>
  frozen(t, id, {
    kind: 'event',
    name: 'signal:once',
    event: { type: 'signal.go', data: { word: 'late' } },
    entry: { type: 'signal.received', signal: 'go', eventId: 'once' },
  })
const again = { type: 'go', data: { word: 'once' }, eventId: 'once' }

/**
 * What others than attempts write, by act: each prepares a session in which it comes too late, and returns the late
 * act.
 */
const lateActs: Record<string, Record<string, (t: TestEngine) => Promise<() => Promise<unknown>>>> = {
  create: {
    'a submission whose key was taken': async ({ engine }) => {
      const submission = {
        workflow: 'image-generation',
        input: { prompt: 'x' },
        priority: 5,
        tags: [],
        keyId: null,
        idempotencyKey: 'k',
        bodySha256: 'b',
      }
      await engine.start(submission)
      return () => engine.start(submission)
    },
    'a child that is there': async (t) => {
      const { good, goodEffect } = await grow(t)
      const child = {
        id: good,
        stepKey: goodEffect,
        invoke: 'at:1.0',
        workflow: 'program@1',
        input: { ledger: '', key: '', program: programs.step() },
        keyId: null,
        device: null,
        priority: '5',
        group: null,
        trace: '',
        depth: 1,
        runs: true,
      }
      return () => t.engine.submissions.startChild({ ...child, end: cancelled })
    },
  },
  commit: {
    'a timer that has fired': async (t) => {
      const { id, timer } = await grow(t)
      const fire = await firing(t, id, timer)
      expect(await fire()).toBe('ok')
      return fire
    },
    'a timer of a session that was cancelled': async (t) => {
      const { id, timer } = await grow(t)
      const fire = await firing(t, id, timer)
      await t.engine.control(id, 'cancel')
      return fire
    },
    'a timer of a session that was deleted': async (t) => {
      const { id, timer } = await grow(t)
      const fire = await firing(t, id, timer)
      await t.engine.control(id, 'cancel')
      await t.engine.remove(id)
      return fire
    },
    'the end of a child that is known': async (t) => {
      const { id, good, goodEffect } = await grow(t)
      const tell = await telling(t, id, goodEffect)
      await t.engine.control(good, 'cancel')
      await t.engine.children.tell(good)
      return tell
    },
    'the end of a child of a session that was cancelled': async (t) => {
      const { id, goodEffect } = await grow(t)
      const tell = await telling(t, id, goodEffect)
      await t.engine.control(id, 'cancel')
      return tell
    },
    'the end of a child of a session that was deleted': async (t) => {
      const { id, goodEffect } = await grow(t)
      const tell = await telling(t, id, goodEffect)
      await t.engine.control(id, 'cancel')
      await t.engine.remove(id)
      return tell
    },
    'a signal that was taken': async (t) => {
      const { id } = await grow(t)
      const signal = await signalling(t, id)
      await t.engine.signal(id, again)
      return signal
    },
    'a signal that waits in the inbox of a paused session': async (t) => {
      const { id } = await grow(t)
      const signal = await signalling(t, id)
      await t.engine.control(id, 'pause')
      await t.engine.signal(id, again)
      return signal
    },
    'a signal to a session that was cancelled': async (t) => {
      const { id } = await grow(t)
      const signal = await signalling(t, id)
      await t.engine.control(id, 'cancel')
      return signal
    },
    'a signal to a session that was deleted': async (t) => {
      const { id } = await grow(t)
      const signal = await signalling(t, id)
      await t.engine.control(id, 'cancel')
      await t.engine.remove(id)
      return signal
    },
    'an entry of the inbox that another has applied': async (t) => {
      const { id } = await grow(t)
      for (const child of (await t.engine.list({ parent: id, keyId: null, limit: 10 })).sessions) await t.engine.control(child.id, 'cancel')
      await t.engine.control(id, 'pause')
      await t.engine.signal(id, again)
      await t.engine.control(id, 'resume')
      const head = (await t.engine.reads.inboxHead(id)) ?? ''
      await t.engine.commits.drainInbox(id)
      return () => t.engine.commits.apply(id, JSON.parse(head) as Cause, undefined, head)
    },
  },
  grant: {
    'an approval of a session that has ended': async ({ engine, submit }) => {
      const id = await submit()
      await engine.control(id, 'cancel')
      return () => engine.store.grant(id, 'f'.repeat(64), ['go'], 1000)
    },
  },
  control: {
    'a cancel of a session that was cancelled': async ({ engine, submit }) => {
      const id = await submit()
      await engine.control(id, 'cancel')
      return () => engine.control(id, 'cancel')
    },
    'a pause of a session that is paused': async ({ engine, submit }) => {
      const id = await submit()
      await engine.control(id, 'pause')
      return () => engine.control(id, 'pause')
    },
    'a resume of a session that runs': async (t) => {
      const id = await t.submit()
      await t.take(id, '1.0')
      return () => t.engine.control(id, 'resume')
    },
    'each of them for a session that has ended': async ({ engine, submit }) => {
      const id = await submit()
      await engine.store.end(id, new DarkroomError('session.deadline_exceeded', 'over').toWire(), '')
      return async () => [
        await engine.store.control(id, 'pause'),
        await engine.store.control(id, 'resume'),
        await engine.store.control(id, 'cancel'),
      ]
    },
    'each of them for a session that was deleted': async ({ engine, submit }) => {
      const id = await submit()
      await engine.control(id, 'cancel')
      await engine.remove(id)
      return async () => [
        await engine.store.control(id, 'pause'),
        await engine.store.control(id, 'resume'),
        await engine.store.control(id, 'cancel'),
      ]
    },
    'an older wish of a parent': async (t) => {
      const { good } = await grow(t)
      await t.engine.store.control(good, 'pause', '3')
      return async () => [await t.engine.store.control(good, 'resume', '2'), await t.engine.store.control(good, 'resume', '3')]
    },
  },
  end: {
    'the deadline of a session that is paused': async ({ engine, submit }) => {
      const id = await submit({ deadlineS: 60 })
      await engine.control(id, 'pause')
      return () => engine.store.end(id, new DarkroomError('session.deadline_exceeded', 'late').toWire(), 'deadline')
    },
    'the deadline of a session that has ended': async ({ engine, submit }) => {
      const id = await submit({ deadlineS: 60 })
      await engine.control(id, 'cancel')
      return () => engine.store.end(id, new DarkroomError('session.deadline_exceeded', 'late').toWire(), 'deadline')
    },
    'the deadline of a session that was deleted': async ({ engine, submit }) => {
      const id = await submit({ deadlineS: 60 })
      await engine.control(id, 'cancel')
      await engine.remove(id)
      return () => engine.store.end(id, new DarkroomError('session.deadline_exceeded', 'late').toWire(), 'deadline')
    },
  },
  delete: {
    'of a session that has not ended': async ({ engine, submit }) => {
      const id = await submit()
      return () => engine.store.remove(id, [], false)
    },
    'of a session that was deleted': async ({ engine, submit }) => {
      const id = await submit()
      await engine.control(id, 'cancel')
      await engine.remove(id)
      return () => engine.store.remove(id, [], false)
    },
    'of a child of whose end its parent has yet to hear': async (t) => {
      const { good } = await grow(t)
      await t.engine.control(good, 'cancel')
      return () => t.engine.store.remove(good, [], false)
    },
  },
  settle: {
    'a child that has settled': async (t) => {
      const { goodEffect, value } = await grow(t)
      return () => t.engine.store.settleChild(goodEffect, value, '0', false)
    },
    'a child that rests, of a parent that was cancelled': async (t) => {
      const { id, good, goodEffect, value } = await grow(t)
      await t.engine.control(id, 'cancel')
      expect(await t.engine.children.follow(goodEffect, value)).toBe(true)
      expect((await t.engine.get(good))?.status).toBe('cancelled')
      return () => t.engine.store.settleChild(goodEffect, value, '', true)
    },
    'a child that rests, of a parent that was deleted': async (t) => {
      const { id, goodEffect, value } = await grow(t)
      await t.engine.control(id, 'cancel')
      await t.engine.children.follow(goodEffect, value)
      await t.engine.remove(id)
      return () => t.engine.store.settleChild(goodEffect, value, '', true)
    },
  },
  expire: {
    'a lease that was renewed': async (t) => {
      const attempt = await t.take(await t.submit(), '1.0')
      await t.port.renew(attempt)
      return () => t.engine.store.expire(attempt.stepKey, 1)
    },
    'a lease of a step that has a result': async (t) => {
      const attempt = await t.take(await t.submit(), '1.0')
      await t.port.deliver(attempt, encoded)
      return () => t.engine.store.expire(attempt.stepKey, 1)
    },
    'a lease that was given back': async (t) => {
      const attempt = await t.take(await t.submit(), '1.0')
      await t.port.release(attempt, 'drain', undefined)
      return () => t.engine.store.expire(attempt.stepKey, 1)
    },
    'a lease of a session that was cancelled': async (t) => {
      const attempt = await t.take(await t.submit(), '1.0')
      await t.engine.control(attempt.sessionId, 'cancel')
      return () => t.engine.store.expire(attempt.stepKey, 1)
    },
  },
  place: {
    'a step that was taken': async (t) => {
      const { stepKey } = await t.take(await t.submit(), '1.0')
      return () => t.engine.store.place(stepKey, 1, 'gpu.late', true)
    },
    'an older dispatch': async (t) => {
      const { stepKey } = await t.take(await t.submit(), '1.0')
      await t.redis.hset(keys.step(stepKey), 'leaseUntil', 0)
      await t.engine.store.expire(stepKey, 5)
      return () => t.engine.store.place(stepKey, 1, 'gpu.late', true)
    },
    'a step of a session that was cancelled': async ({ engine, submit }) => {
      const id = await submit()
      await engine.control(id, 'cancel')
      return () => engine.store.place(`${id}.1.0`, 1, 'gpu.late', true)
    },
  },
  join: {
    'a step that was taken': async (t) => {
      const { stepKey } = await t.take(await t.submit(), '1.0')
      return () => t.engine.lines.join(stepKey, 1, 'gpu.late', '-')
    },
    'an older dispatch': async (t) => {
      const { stepKey } = await t.take(await t.submit(), '1.0')
      await t.redis.hset(keys.step(stepKey), 'leaseUntil', 0)
      await t.engine.store.expire(stepKey, 5)
      return () => t.engine.lines.join(stepKey, 1, 'gpu.late', '-')
    },
    'a step of a session that is paused': async ({ engine, submit }) => {
      const id = await submit()
      await engine.control(id, 'pause')
      return () => engine.lines.join(`${id}.1.0`, 1, 'gpu.late', '-')
    },
    'a step of a session that was cancelled': async ({ engine, submit }) => {
      const id = await submit()
      await engine.control(id, 'cancel')
      return () => engine.lines.join(`${id}.1.0`, 1, 'gpu.late', '-')
    },
  },
  change: {
    'the deadline of a session that has ended': async ({ engine, submit }) => {
      const id = await submit()
      await engine.control(id, 'cancel')
      return () => engine.store.change(id, { deadlineMs: 1000 }, { type: 'session.changed' })
    },
    'the tags of a session that was deleted': async ({ engine, submit }) => {
      const id = await submit()
      await engine.control(id, 'cancel')
      await engine.remove(id)
      return () => engine.store.change(id, { tags: ['late'] }, { type: 'session.changed' })
    },
  },
  items: {
    'an item of a session that has ended': async ({ engine, submit }) => {
      const id = await submit()
      await engine.control(id, 'cancel')
      return () =>
        engine.store.moveItems(`${id}.1.0`, [], { suffix: '1.0.0', value: 'late', status: 'succeeded', references: [], use: noUse })
    },
    'an item of a session that works none off': async ({ engine, submit }) => {
      const id = await submit()
      return () =>
        engine.store.moveItems(`${id}.1.0`, [], { suffix: '1.0.0', value: 'late', status: 'succeeded', references: [], use: noUse })
    },
  },
  admit: {
    'a step that was taken': async (t) => {
      const id = await t.submit()
      await t.engine.lines.join(`${id}.1.0`, 1, 'gpu.late', '-')
      await t.take(id, '1.0')
      return () => admit(t, id)
    },
    'a step of a session that was paused': async (t) => {
      const id = await t.submit()
      await t.engine.lines.join(`${id}.1.0`, 1, 'gpu.late', '-')
      await t.engine.control(id, 'pause')
      return () => admit(t, id)
    },
    'a step of a session that was cancelled': async (t) => {
      const id = await t.submit()
      await t.engine.lines.join(`${id}.1.0`, 1, 'gpu.late', '-')
      await t.engine.control(id, 'cancel')
      return () => admit(t, id)
    },
    'when another process has let one in since': async (t) => {
      const first = await t.submit()
      let id = await t.submit()
      while (shardOf(id) !== shardOf(first)) id = await t.submit()
      for (const each of [first, id]) await t.engine.lines.join(`${each}.1.0`, 1, 'gpu.late', '-')
      await admit(t, first)
      return () => admit(t, id, 0)
    },
  },
  withdraw: {
    'a step that was taken': async (t) => {
      const id = await t.submit()
      await t.engine.lines.join(`${id}.1.0`, 1, 'gpu.late', '-')
      await admit(t, id)
      await t.take(id, '1.0')
      return () => withdrawn(t, id)
    },
    'a step that waits in line': async (t) => {
      const id = await t.submit()
      await t.engine.lines.join(`${id}.1.0`, 1, 'gpu.late', '-')
      return () => withdrawn(t, id)
    },
    'a step of a session that was cancelled': async (t) => {
      const id = await t.submit()
      await t.engine.lines.join(`${id}.1.0`, 1, 'gpu.late', '-')
      await admit(t, id)
      await t.engine.control(id, 'cancel')
      return () => withdrawn(t, id)
    },
  },
  yield: {
    'a step that was given back': async (t) => {
      const { stepKey, ...attempt } = await t.take(await t.submit(), '1.0')
      await t.port.release({ stepKey, ...attempt }, 'drain', undefined)
      return () => yields(t, stepKey, 'w')
    },
    'a step that another worker runs': async (t) => {
      const { stepKey } = await t.take(await t.submit(), '1.0')
      return () => yields(t, stepKey, 'late')
    },
    'a step beside the device': async (t) => {
      const { stepKey } = await t.take(await t.run(tree()), '1.0')
      return () => yields(t, stepKey, 'w')
    },
  },
  move: {
    'of a session that has ended': async ({ engine, submit }) => {
      const id = await submit()
      await engine.control(id, 'cancel')
      return async () => (await engine.lines.move(id, 9, 0)).is
    },
    'of a session that was deleted': async ({ engine, submit }) => {
      const id = await submit()
      await engine.control(id, 'cancel')
      await engine.remove(id)
      return async () => (await engine.lines.move(id, 9, 0)).is
    },
  },
  wait: {
    'a step that was taken': async (t) => {
      const { stepKey } = await t.take(await t.submit(), '1.0')
      return () => t.engine.store.waits(stepKey, 'nobody is there')
    },
    'a step of a session that is paused': async ({ engine, submit }) => {
      const id = await submit()
      await engine.control(id, 'pause')
      return () => engine.store.waits(`${id}.1.0`, 'nobody is there')
    },
    'a step of a session that was cancelled': async ({ engine, submit }) => {
      const id = await submit()
      await engine.control(id, 'cancel')
      return () => engine.store.waits(`${id}.1.0`, 'nobody is there')
    },
  },
}

const withdrawn = async ({ engine }: TestEngine, id: string): Promise<string> =>
  (await engine.lines.withdraw(`${id}.1.0`, 'gpu.late')) ? 'ok' : 'stale'

const yields = async ({ engine }: TestEngine, stepKey: string, worker: string): Promise<string> =>
  (await engine.lines.askYield(stepKey, worker)) ? 'ok' : 'stale'

/** Lets a session in to the queue `gpu.late`, as the one after so many that its shard had let in. */
async function admit({ engine }: TestEngine, id: string, number?: number): Promise<unknown> {
  const { numbers } = await engine.lines.read(0)
  const shard = shardOf(id)
  const line = {
    name: 'gpu.late 5 local - -',
    model: '-',
    shard,
    queue: 'gpu.late',
    priority: 5,
    key: 'local',
    group: null,
    length: 1,
    head: [],
  }
  const choice = {
    line,
    waiter: { stepKey: `${id}.1.0`, order: 0, waitedMs: 0 },
    level: 5,
    share: 1,
    floor: 0,
    passes: false,
    overtaken: [],
  }
  return engine.lines.admit(choice, line.queue, number === undefined ? numbers : numbers.with(shard, number))
}

describe('the fence', () => {
  let t: TestEngine
  /** Acts that came too late in these tests. */
  const late = new Set<string>()
  let isLate = false
  const at: AtPoint = (point) => {
    if (isLate) late.add(point.replace('.before', ''))
  }
  beforeAll(async () => {
    t = await startEngine({ ...programs, at })
  })
  afterAll(() => t[Symbol.asyncDispose]())

  /** Every key of the sessions with what it holds. */
  const contents = async (): Promise<Record<string, unknown>> => {
    const names = (await t.redis.keys('darkroom:{s*')).toSorted()
    const values = await Promise.all(names.map(valueOf))
    return Object.fromEntries(names.map((name, i) => [name, values[i]]))
  }
  // The order in which Redis keeps hashes and sets may change by itself.
  const valueOf = async (name: string): Promise<unknown> => {
    switch (await t.redis.type(name)) {
      case 'hash':
        return t.redis.hgetall(name)
      case 'zset':
        return t.redis.zrange(name, '0', '-1', 'WITHSCORES')
      case 'list':
        return t.redis.lrange(name, 0, -1)
      case 'set':
        return (await t.redis.smembers(name)).toSorted()
      default:
        return t.redis.get(name)
    }
  }

  /** Compares every record before and after, and listens to who is told. */
  const changesNothing = async <T>(act: () => Promise<T>): Promise<T> => {
    const said: string[] = []
    const ear = t.redis.duplicate()
    await ear.psubscribe('darkroom:*')
    ear.on('pmessage', (_pattern: string, channel: string) => said.push(channel))
    const before = await contents()
    isLate = true
    const answer = await act().finally(() => (isLate = false))
    expect(await contents()).toEqual(before)
    await ear.ping()
    ear.disconnect()
    expect(said).toEqual([])
    return answer
  }
  /** A refusal is an answer; anything else is a fault. */
  const refusal = (error: unknown): string => {
    if (error instanceof DarkroomError) return error.code
    throw error
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
      expect([false, 'lost', { is: 'gone' }, { isRecorded: false }]).toContainEqual(await changesNothing(() => write(t.port, attempt)))
    })
  })

  describe.each(Object.entries(lateActs))('%s', (_, rows) => {
    it.each(Object.entries(rows))('%s changes nothing and tells nobody', async (_, prepare) => {
      const act = await prepare(t)
      await expect(changesNothing(() => act().catch(refusal))).resolves.not.toBe('ok')
    })
  })

  it('has a row for every act on a session: it came too late, and changed nothing', () => {
    expect(Object.values(acts).filter((act) => !late.has(act))).toEqual([])
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
        const isDelivered = typeof answer === 'object' && answer !== null && 'isRecorded' in answer
        expect([true, 'run']).toContain(isDelivered ? answer.isRecorded : answer)
        expect(await contents()).not.toEqual(before)
      }
    },
  )

  it('a late renewal succeeds as long as nobody else took the step', async () => {
    const attempt = await t.take(await t.submit(), '1.0')
    await t.redis.hset(keys.step(attempt.stepKey), 'leaseUntil', 0)
    await t.engine.store.expire(attempt.stepKey, 5)
    expect(await t.port.renew(attempt)).toBe('run')
    expect((await t.port.deliver(attempt, encoded)).isRecorded).toBe(true)
  })

  it('the same attempt asking again for a step gets the same answer, another one has to wait', async () => {
    const id = await t.submit()
    const first = await t.engine.store.take(`${id}.1.0`, 1, { id: 'a', worker: 'w', device: 'd', exactnessKey: '' })
    const again = await t.engine.store.take(`${id}.1.0`, 1, { id: 'a', worker: 'w', device: 'd', exactnessKey: '' })
    expect({ ...again, now: 0 }).toEqual({ ...first, now: 0 })
    expect((await t.engine.store.take(`${id}.1.0`, 1, { id: 'b', worker: 'w', device: 'd', exactnessKey: '' })).is).toBe('leased')
  })
})
