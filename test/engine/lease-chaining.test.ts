/** A worker that brings a result goes on with the session's next step: both are one commit. */
import { assign, setup } from 'xstate'
import { z } from 'zod'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { operation } from '../../src/domains/operation.ts'
import { keys, queues, stepsOfJob } from '../../src/keys.ts'
import type { Attempt, Delivery, GoingOn } from '../../src/engine/attempt.ts'
import { defineWorkflow } from '../../src/workflows/index.ts'
import { step } from '../../src/workflows/step.ts'
import { startEngine, type TestEngine } from '../support/engine.ts'

const Done = z.strictObject({})
type Done = z.infer<typeof Done>
const Plan = z.strictObject({
  lanes: z.array(z.enum(['host', 'gpu', 'other'])),
  fork: z.boolean().default(false),
})
type Plan = z.infer<typeof Plan>

/**
 * Steps one after another, each in the lane that the input says, `other` on the device with a model; with `fork` the
 * second and third at once.
 */
const walk = defineWorkflow({
  name: 'walk',
  version: 1,
  title: 'Walk',
  description: 'Steps that do nothing.',
  input: Plan,
  output: Done,
  machine: setup({
    types: { context: {} as Plan & { at: number }, input: {} as Plan, events: {} as { type: 'signal.go' } },
    actors: { 'walk.host': step<Done, Done>(), 'walk.gpu': step<Done, Done>(), 'walk.other': step<Done, Done>() },
    guards: {
      isOver: ({ context }) => context.at >= context.lanes.length,
      isGpu: ({ context }) => context.lanes[context.at] === 'gpu',
      isOther: ({ context }) => context.lanes[context.at] === 'other',
      forks: ({ context }) => context.fork && context.at === 1,
    },
    actions: { next: assign({ at: ({ context }) => context.at + 1 }) },
  }).createMachine({
    id: 'walk',
    context: ({ input }) => ({ lanes: input?.lanes ?? [], fork: input?.fork ?? false, at: 0 }),
    initial: 'choose',
    on: { 'signal.go': { actions: assign({ fork: false }) } },
    states: {
      choose: {
        always: [
          { guard: 'isOver', target: 'over' },
          { guard: 'forks', target: 'both' },
          { guard: 'isGpu', target: 'gpu' },
          { guard: 'isOther', target: 'other' },
          { target: 'host' },
        ],
      },
      host: { invoke: { id: 'host', src: 'walk.host', input: {}, onDone: { target: 'choose', actions: 'next' } } },
      other: { invoke: { id: 'other', src: 'walk.other', input: {}, onDone: { target: 'choose', actions: 'next' } } },
      gpu: { invoke: { id: 'gpu', src: 'walk.gpu', input: {}, onDone: { target: 'choose', actions: 'next' } } },
      both: {
        type: 'parallel',
        onDone: 'over',
        states: {
          left: {
            initial: 'run',
            states: { run: { invoke: { id: 'left', src: 'walk.host', input: {}, onDone: 'over' } }, over: { type: 'final' } },
          },
          right: {
            initial: 'run',
            states: { run: { invoke: { id: 'right', src: 'walk.host', input: {}, onDone: 'over' } }, over: { type: 'final' } },
          },
        },
      },
      over: { type: 'final' },
    },
  }),
  exact: true,
  resources: { lanes: ['host', 'gpu'], note: 'nothing' },
})
const nothing = (lane: 'host' | 'gpu'): ReturnType<typeof operation<Done, Done>> =>
  operation({ input: Done, output: Done, lane, attempts: 3, timeoutMs: 60_000, run: () => Promise.resolve({}) })

/** One that needs a model, and may begin ahead. */
const other = operation({
  ...nothing('gpu'),
  ahead: true,
  needs: () => ({ models: [{ id: 'm', bodyHash: null }] }),
})

const result: Delivery = { output: {}, artifacts: [], stats: {} }
const own = { worker: 'w', device: 'd' }
const host: GoingOn = { taker: (lane) => (lane === 'host' ? { ...own, exactnessKey: '' } : undefined) }
/** Of a worker that runs a step on its device. */
const device: GoingOn = { taker: (lane) => ({ ...own, exactnessKey: lane === 'gpu' ? '01234567' : '' }) }

describe('a worker that brings a result', () => {
  let t: TestEngine
  beforeAll(async () => {
    t = await startEngine({
      shards: 1,
      workflows: [walk],
      operations: { 'walk.host': nothing('host'), 'walk.gpu': nothing('gpu'), 'walk.other': other },
    })
  })
  afterAll(() => t[Symbol.asyncDispose]())

  const start = async (input: z.input<typeof Plan>): Promise<string> =>
    (await t.engine.start({ workflow: 'walk', input, priority: 5, tags: [], keyId: null })).session.id
  const history = async (id: string): Promise<string[]> => (await t.engine.history(id, 0, 100)).map(({ event }) => event.type)
  const jobs = async (id: string): Promise<string[]> =>
    (await t.engine.dispatcher.queue(queues.host).getJobs()).flatMap(stepsOfJob).filter((job) => job.startsWith(id))
  const slots = keys.outbox(0).replace(/outbox$/, 'slots')
  const waiting = async (id: string): Promise<string[]> =>
    (await t.redis.zrange(keys.outbox(0), '0', '-1')).filter((member) => member.includes(id))

  it('has the next step with it, under a lease, and no job and no entry of the outbox is made', async () => {
    const id = await start({ lanes: ['host', 'host', 'host'] })
    const first = await t.take(id, '1.0')
    const { isRecorded, next } = await t.port.deliver(first, result, host)
    expect(isRecorded).toBe(true)
    expect(next).toMatchObject({
      stepKey: `${id}.2.0`,
      sessionId: id,
      step: 'walk.host',
      invoke: 'host',
      input: {},
      epoch: 1,
      tries: 0,
      priority: 5,
    })
    expect(await history(id)).toEqual(['session.created', 'step.started', 'step.completed', 'step.started'])
    expect(await t.redis.hgetall(keys.step(`${id}.2.0`))).toMatchObject({
      state: 'leased',
      attemptId: next?.id,
      worker: 'w',
      epoch: '1',
      dispatch: '1',
    })
    expect(Number(await t.redis.zscore(keys.leases(0), `${id}.2.0`))).toBeGreaterThan(Date.now())
    expect(await waiting(id)).toEqual([])
    expect((await jobs(id)).filter((job) => job.startsWith(`${id}.2.`))).toEqual([])

    // It is an attempt like any other.
    expect(await t.port.renew(next as Attempt)).toBe('run')
    const last = await t.port.deliver(next as Attempt, result, host)
    expect(last.next?.stepKey).toBe(`${id}.3.0`)
    expect(await t.port.deliver(last.next as Attempt, result, host)).toEqual({ isRecorded: true })
    expect((await t.engine.get(id))?.status).toBe('succeeded')
    expect(await t.port.deliver(next as Attempt, result, host)).toEqual({ isRecorded: false })
  })

  it('goes on with its own device too, and has the slot there', async () => {
    const id = await start({ lanes: ['gpu', 'gpu', 'host'] })
    const first = await t.take(id, '1.0')
    const { next } = await t.port.deliver(first, result, device)
    expect(next).toMatchObject({ stepKey: `${id}.2.0`, step: 'walk.gpu' })
    expect(await t.redis.hgetall(keys.step(`${id}.2.0`))).toMatchObject({ state: 'leased', attemptId: next?.id, since: /./ })
    expect(await t.redis.hkeys(slots)).toEqual([`${id}.2.0`])
    expect(await t.redis.hget(slots, `${id}.2.0`)).toMatch(/^w /)
    expect((await t.engine.get(id))?.exactnessKey).toBe('01234567')
    const started = (await t.engine.history(id, 0, 100)).filter(({ event }) => event.type === 'step.started')
    expect(started.map(({ event }) => (event as { exactnessKey?: string }).exactnessKey)).toEqual(['01234567', '01234567'])
    expect(await waiting(id)).toEqual([])

    // What runs beside it comes after it, and has none.
    const last = await t.port.deliver(next as Attempt, result, device)
    expect(last.next).toMatchObject({ stepKey: `${id}.3.0`, step: 'walk.host' })
    expect(await t.redis.hkeys(slots)).toEqual([])
    expect(await t.port.deliver(last.next as Attempt, result, device)).toEqual({ isRecorded: true })
  })

  it('leaves a step on its device to the queue when its session was asked to make way', async () => {
    const id = await start({ lanes: ['gpu', 'gpu'] })
    const first = await t.take(id, '1.0')
    await t.redis.hset(keys.step(first.stepKey), 'yield', 1)
    expect(await t.port.deliver(first, result, device)).toEqual({ isRecorded: true })
    expect(await t.redis.hget(keys.step(`${id}.2.0`), 'state')).toBe('open')
    expect(await t.redis.hkeys(slots)).not.toContain(`${id}.2.0`)
  })

  it('and when its pictures are of another hardware class by now', async () => {
    const id = await start({ lanes: ['gpu', 'gpu'] })
    const first = await t.take(id, '1.0')
    await t.redis.hset(keys.session(id), 'exactnessKey', 'another')
    expect(await t.port.deliver(first, result, device)).toEqual({ isRecorded: true })
    expect(await t.redis.hget(keys.step(`${id}.2.0`), 'state')).toBe('open')
  })

  it('and when that needs a model that it had not', async () => {
    const id = await start({ lanes: ['gpu', 'other', 'other'] })
    const first = await t.take(id, '1.0')
    expect(await t.port.deliver(first, result, device)).toEqual({ isRecorded: true })
    const second = await t.take(id, '2.0')
    expect((await t.port.deliver(second, result, device)).next?.stepKey).toBe(`${id}.3.0`)
  })

  it('may begin ahead, and has no lease when the commit gives it none', async () => {
    const begun: Attempt[] = []
    const order: string[] = []
    const ahead: GoingOn = {
      ...device,
      begin: (next) => void (begun.push(next), order.push('begun')),
      stored: async () => void order.push('stored'),
    }
    const id = await start({ lanes: ['gpu', 'other', 'other'] })
    await t.port.deliver(await t.take(id, '1.0'), result, ahead)
    expect(begun).toEqual([]) // It needs a model that this one had not.
    const { next } = await t.port.deliver(await t.take(id, '2.0'), result, ahead)
    expect(order).toEqual(['stored', 'begun', 'stored'])
    expect(next?.id).toBe(begun[0]?.id)

    // Nothing of one that begins ahead counts before its lease, nor ever when its session pauses.
    const paused = await start({ lanes: ['gpu', 'other', 'other'] })
    await t.port.deliver(await t.take(paused, '1.0'), result)
    const attempt = await t.take(paused, '2.0')
    await t.engine.control(paused, 'pause')
    expect(await t.port.deliver(attempt, result, ahead)).toEqual({ isRecorded: true })
    const early = begun.at(-1) as Attempt
    expect(early.stepKey).toBe(`${paused}.3.0`)
    expect(await t.port.renew(early)).toBe('lost')
    expect(await t.port.checkpoint(early, { sha256: 'c'.repeat(64), bytes: 1, call: 1 })).toBe(false)
    expect(await t.port.deliver(early, result)).toEqual({ isRecorded: false })
  })

  it('records nothing when the store did not take what the result names', async () => {
    const id = await start({ lanes: ['gpu', 'gpu'] })
    const attempt = await t.take(id, '1.0')
    const full = { ...device, stored: () => Promise.reject(new Error('no room')) }
    await expect(t.port.deliver(attempt, result, full)).rejects.toThrow('no room')
    expect(await history(id)).toEqual(['session.created', 'step.started'])
    expect(await t.port.deliver(attempt, result, device)).toMatchObject({ isRecorded: true })
  })

  it('leaves a step on a device to its queue, and takes one of several', async () => {
    const other = await start({ lanes: ['host', 'gpu'] })
    expect(await t.port.deliver(await t.take(other, '1.0'), result, host)).toEqual({ isRecorded: true })
    expect(await waiting(other)).toEqual([`step:${other}.2.0`])

    const fork = await start({ lanes: ['host', 'host'], fork: true })
    const { next } = await t.port.deliver(await t.take(fork, '1.0'), result, host)
    expect(next?.stepKey).toBe(`${fork}.2.0`)
    expect(await waiting(fork)).toEqual([`step:${fork}.2.1`])
    expect(await jobs(fork)).toContain(`${fork}.2.1.1`)
  })

  it('gets nothing more of a session that pauses: the result waits, and so does what follows', async () => {
    const id = await start({ lanes: ['host', 'host'] })
    const attempt = await t.take(id, '1.0')
    await t.engine.control(id, 'pause')
    expect(await t.port.deliver(attempt, result, host)).toEqual({ isRecorded: true })
    expect((await t.engine.get(id))?.status).toBe('paused')
    await t.engine.control(id, 'resume')
    await t.engine.commits.drainInbox(id)
    expect(await t.redis.hgetall(keys.step(`${id}.2.0`))).toMatchObject({ state: 'open' })
  })

  it('goes on also when something else came first: the transition is computed again', async () => {
    const id = await start({ lanes: ['host', 'host'] })
    const attempt = await t.take(id, '1.0')
    await t.engine.signal(id, { type: 'go' })
    expect((await t.port.deliver(attempt, result, host)).next?.stepKey).toBe(`${id}.3.0`)
  })

  it('and says it again because the answer was lost has the same answer', async () => {
    const id = await start({ lanes: ['host', 'host'] })
    const { state, models, ...attempt } = await t.take(id, '1.0')
    const event = { type: 'xstate.done.actor.host', output: {}, actorId: 'host' }
    const entry = { type: 'step.completed' as const, key: attempt.stepKey }
    const cause = { kind: 'step' as const, name: '1.0', attemptId: attempt.id, event, entry, artifacts: [], unpin: false }
    const say = (attemptId: string): ReturnType<typeof t.engine.commits.applyAndChain> =>
      t.engine.commits.applyAndChain(id, cause, state, {
        leaseOf: () => ({ worker: 'w', device: 'd', exactnessKey: '', attemptId }),
        begin: () => false,
        stored: () => Promise.resolve(),
      })
    const first = await say('mine')
    const told = await history(id)
    expect(await say('mine')).toEqual(first)
    expect(await say('another')).toEqual({ is: 'stale' })
    expect(await history(id)).toEqual(told)
    expect(
      (await t.port.deliver({ ...attempt, state: first.next?.state ?? state, id: 'mine', stepKey: `${id}.2.0`, models }, result))
        .isRecorded,
    ).toBe(true)
    expect(await say('mine')).toEqual({ is: 'ended' })
  })

  it('that never hears of it loses the lease, and another worker takes the step', async () => {
    const id = await start({ lanes: ['host', 'host'] })
    const attempt = await t.take(id, '1.0')
    const { next } = await t.port.deliver(attempt, result, host)
    await t.redis.hset(keys.step(`${id}.2.0`), 'leaseUntil', 0)
    expect(await t.engine.store.expire(`${id}.2.0`, 5)).toEqual({ is: 'reopened', worker: 'w' })
    const present = await t.take(id, '2.0', 2)
    expect(await t.port.deliver(next as Attempt, result, host)).toEqual({ isRecorded: false })
    expect(await t.port.deliver(present, result, host)).toEqual({ isRecorded: true })
    expect((await t.engine.get(id))?.status).toBe('succeeded')
  })

  it('ends at the most events that a session may record, and no lease stays behind', async () => {
    const id = await start({ lanes: ['host', 'host'] })
    const attempt = await t.take(id, '1.0')
    await t.redis.rpush(keys.history(id), ...Array.from({ length: 9990 }, () => '{"at":0,"type":"step.noted"}'))
    expect(await t.port.deliver(attempt, result, host)).toEqual({ isRecorded: true })
    expect((await t.engine.get(id))?.error?.code).toBe('session.too_long')
    expect(await t.redis.zscore(keys.leases(0), `${id}.2.0`)).toBeNull()
  })
})
