/** Sessions that wait for a device: who is let in, who gives a slot back, and that nobody gets lost on the way. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { KeyStore } from '../../src/api-keys.ts'
import type { WorkerRecord } from '../../src/farm/record.ts'
import { publishWorker } from '../../src/farm/presence.ts'
import { operations } from '../../src/domains/index.ts'
import { workflows } from '../../src/workflows/index.ts'
import { keys, queues, shardOf, stepsOfJob } from '../../src/keys.ts'
import { connect, type Redis } from '../../src/redis.ts'
import { Engine } from '../../src/engine/engine.ts'
import { DarkroomError } from '../../src/errors.ts'
import { forItsTurn } from '../../src/engine/lines.ts'
import type { Attempt } from '../../src/engine/attempt.ts'
import { startEngine, type TestEngine } from '../support/engine.ts'
import * as programs from '../support/program.ts'
import { eventually, sleep } from '../support/wait.ts'

/** As the engine of `startEngine` has them. */
const all = { workflows: [...workflows, ...programs.workflows], operations: { ...operations, ...programs.operations } }
const exactnessKey = '01234567'
const ofClass = queues.gpuClass(exactnessKey)

let t: TestEngine
let opened: string[] = []
/** What the hook of the engine does at the next point of that name. */
let faults: Partial<Record<string, () => void>> = {}
beforeAll(async () => {
  t = await startEngine({
    ...programs,
    shards: 1,
    at: (point) => {
      const fault = faults[point]
      faults = fault ? {} : faults
      fault?.()
    },
  })
})
afterAll(() => t[Symbol.asyncDispose]())
afterEach(async () => {
  faults = {}
  for (const id of opened) await t.engine.store.control(id, 'cancel')
  opened = []
  expect(await standing()).toEqual({ waiting: [], slots: {} })
  expect(await t.redis.keys('darkroom:{s0}:line*')).toEqual([])
})

/** A worker that is there for some seconds. */
const arrive = (id = 'w', redis: Redis = t.redis): Promise<void> =>
  publishWorker(
    redis,
    {
      id,
      epoch: 'e',
      device: { id: `0123abcd-cpu-${id}-0`, kind: 'cpu', name: 'a CPU', index: 0, totalBytes: null },
      exactnessKey,
      status: 'ready',
      shelf: t.engine.models.shelf,
      running: [],
      resident: [],
      lanes: { gpu: 1, host: 4 },
    } as unknown as WorkerRecord,
    [],
  )

/** A session of `n` steps on a device, once it waits in line or was let in. */
async function submit(
  more: { keyId?: string; priority?: number; program?: programs.Node; concurrency?: { key: string; limit: number } } = {},
): Promise<string> {
  await arrive()
  const { keyId = null, priority = 5, program = programs.step({ lane: 'gpu' }), concurrency } = more
  const input = { ledger: t.folder, key: crypto.randomUUID(), program }
  const { id } = (await t.engine.start({ workflow: 'program', input, priority, tags: [], keyId, concurrency })).session
  opened.push(id)
  await eventually(`${id} is known to the devices`, async () => {
    const [line, queue] = await t.redis.hmget(keys.step(`${id}.1.0`), 'line', 'queue')
    return line !== null || Boolean(queue)
  })
  await t.engine.admission.wake()
  return id
}

async function standing(): Promise<{ waiting: string[]; slots: Record<string, string> }> {
  const { lines, holders } = await t.engine.lines.read(100)
  return {
    waiting: lines.flatMap(({ head }) => head.map(({ stepKey }) => stepKey.split('.')[0] as string)),
    slots: Object.fromEntries(holders.map(({ stepKey, holder }) => [stepKey.split('.')[0] as string, holder])),
  }
}

const take = async (id: string, suffix = '1.0'): Promise<Attempt> => {
  const dispatch = Number(await t.redis.hget(keys.step(`${id}.${suffix}`), 'dispatch'))
  return t.take(id, suffix, dispatch)
}
const finish = (attempt: Attempt): Promise<unknown> =>
  t.port.deliver(attempt, { output: { n: 1, token: 'token', said: 'done' }, artifacts: [], stats: {} })

/** Ids in the order in which they are let in, as one worker draws one after another. */
async function drawn(n: number): Promise<string[]> {
  const order: string[] = []
  while (order.length < n) {
    await arrive()
    await t.engine.admission.wake()
    const { slots } = await standing()
    const jobs = await t.engine.dispatcher.queue(ofClass).getPrioritized()
    // Jobs of sessions that were cancelled lie there too.
    const id = jobs.map((job) => job.id?.split('.')[0] ?? '').find((each) => slots[each] === ofClass)
    if (id === undefined) throw new Error(`nobody was let in after ${order.join(', ')}`)
    await finish(await take(id))
    order.push(id)
  }
  return order
}

describe('sessions that wait for a device', () => {
  it('one runs and one comes next; the others wait in line, and say so', async () => {
    const [a, b, c, d] = [await submit(), await submit(), await submit(), await submit()]
    expect(await standing()).toEqual({ waiting: [c, d], slots: { [a]: ofClass, [b]: ofClass } })
    expect((await t.engine.get(c))?.waiting).toBe(forItsTurn)
    expect((await t.engine.get(a))?.waiting).toBe(null)
    const attempt = await take(a)
    await t.engine.admission.wake()
    expect(await standing()).toEqual({ waiting: [c, d], slots: { [a]: 'w', [b]: ofClass } })
    await finish(attempt)
    await t.engine.admission.wake()
    expect(await standing()).toEqual({ waiting: [d], slots: { [b]: ofClass, [c]: ofClass } })
    expect((await t.engine.get(c))?.waiting).toBe(null)
  })

  it('one that was let in goes on without a line; one without a step on a device never sees one', async () => {
    const two = { do: 'sequence' as const, of: [programs.step({ lane: 'gpu' }), programs.step({ lane: 'gpu' })] }
    const a = await submit({ program: two })
    const others = [await submit(), await submit()]
    await finish(await take(a))
    expect((await standing()).slots[a]).toBe(ofClass)
    const host = await t.run(programs.step())
    opened.push(host)
    await sleep(100)
    expect((await standing()).waiting).not.toContain(host)
    expect((await t.engine.dispatcher.queue(queues.host).getJobs()).flatMap(stepsOfJob).some((id) => id.startsWith(host))).toBe(true)
    expect((await standing()).waiting).toEqual(others.slice(1))
  })

  it('a key with one session comes second at the latest, whatever another key has waiting', async () => {
    const many: string[] = []
    for (let i = 0; i < 12; i++) many.push(await submit({ keyId: 'aaaaaaaa' }))
    const one = await submit({ keyId: 'bbbbbbbb' })
    const order = await drawn(4)
    // Two of the other key were in before it came.
    expect(order.indexOf(one)).toBeLessThanOrEqual(2)
    expect(order.filter((id) => id !== one)).toEqual(many.slice(0, 3))
  })

  it('keys are served in proportion to their weights', async () => {
    const store = new KeyStore(t.redis)
    const [{ record: heavy }, { record: light }] = [await store.add('heavy', ['submit'], 3), await store.add('light', ['submit'])]
    const [ofHeavy, ofLight]: [string[], string[]] = [[], []]
    for (let i = 0; i < 12; i++) ofHeavy.push(await submit({ keyId: heavy.id }))
    for (let i = 0; i < 6; i++) ofLight.push(await submit({ keyId: light.id }))
    // What the engine has read of the weights is a second old at most.
    await sleep(1100)
    const order = await drawn(12)
    const lightDrawn = order.filter((id) => ofLight.includes(id))
    // Three of twelve; the two that were in before anybody else had come may make it one less.
    expect(lightDrawn.length).toBeGreaterThanOrEqual(2)
    expect(lightDrawn.length).toBeLessThanOrEqual(4)
    expect(lightDrawn).toEqual(ofLight.slice(0, lightDrawn.length))
  })

  it('who waits long rises above a higher priority, by the farm’s clock', async () => {
    const [first, second] = [await submit({ priority: 8 }), await submit({ priority: 8 })]
    const low = await submit({ priority: 0 })
    const later = 6_000_000
    await t.redis.set(keys.clock(0), `${later} ${Date.now() + later}`)
    try {
      const high = await submit({ priority: 8 })
      // Two were in before; the place in the queue of jobs is that of the risen priority, too.
      expect(await drawn(4)).toEqual([first, low, second, high])
    } finally {
      await t.redis.del(keys.clock(0))
    }
  })

  it('a lease that ends without its attempt gives its slot back', async () => {
    const a = await submit()
    const [b, c] = [await submit(), await submit()]
    const { stepKey } = await take(a)
    expect((await standing()).slots).toEqual({ [a]: 'w', [b]: ofClass })
    await t.redis.hset(keys.step(stepKey), 'leaseUntil', 0)
    await t.engine.store.expire(stepKey, 5)
    await t.engine.admission.wake()
    expect(await standing()).toEqual({ waiting: [], slots: { [b]: ofClass, [c]: ofClass } })
    // It is in already, and its step goes to a queue without a line.
    await t.engine.outbox.due(`step:${stepKey}`, { againMs: 0, isInGrace: () => false })
    expect((await standing()).slots[a]).toBe(ofClass)
  })

  it('a pause leaves the line or gives the slot back; the resumed one keeps its place', async () => {
    const [a, b, c, d] = [await submit(), await submit(), await submit(), await submit()]
    await t.engine.control(c, 'pause')
    await t.engine.control(a, 'pause')
    await t.engine.admission.wake()
    expect(await standing()).toEqual({ waiting: [], slots: { [b]: ofClass, [d]: ofClass } })
    const e = await submit()
    for (const id of [c, a]) {
      await t.engine.control(id, 'resume')
      await t.engine.outbox.due(`step:${id}.1.0`, { againMs: 0, isInGrace: () => false })
    }
    expect((await standing()).waiting).toEqual([a, c, e])
  })

  it('two processes that let in at once let in no more than there are slots', async () => {
    const connections = [connect(t.url, { patience: 'wait' }), connect(t.url, { patience: 'wait' })] as const
    const { config, log } = t.engine
    const other = new Engine({
      redis: connections[0],
      subscriber: connections[1],
      config,
      log,
      sweeps: false,
      workflows: all.workflows,
      operations: all.operations,
    })
    try {
      const ids: string[] = []
      for (let i = 0; i < 6; i++) ids.push(await submit())
      for (const id of ids.slice(0, 4)) {
        const [attempt] = await Promise.all([take(id), other.admission.wake(), t.engine.admission.wake()])
        await Promise.all([finish(attempt), other.admission.wake(), t.engine.admission.wake()])
        await Promise.all([other.admission.wake(), t.engine.admission.wake()])
        expect(Object.keys((await standing()).slots)).toHaveLength(Math.min(2, 5 - ids.indexOf(id)))
      }
    } finally {
      await other.close()
      for (const connection of connections) connection.disconnect()
    }
  })

  it.each(['join.before', 'join.after', 'admit.before', 'admit.after', 'dispatch.before', 'dispatch.after'])(
    'a process that fails at %s loses nobody: the outbox goes on',
    async (point) => {
      await arrive()
      faults[point] = () => {
        throw new Error(`planted at ${point}`)
      }
      const input = { ledger: t.folder, key: crypto.randomUUID(), program: programs.step({ lane: 'gpu' }) }
      const { id } = (await t.engine.start({ workflow: 'program', input, priority: 5, tags: [], keyId: null })).session
      opened.push(id)
      await eventually('the fault', () => Promise.resolve(faults[point] === undefined))
      await sleep(50)
      expect(await t.redis.zscore(keys.outbox(shardOf(id)), `step:${id}.1.0`)).not.toBe(null)
      await t.engine.outbox.due(`step:${id}.1.0`, { againMs: 0, isInGrace: () => false })
      await t.engine.admission.wake()
      const [job] = (await t.engine.dispatcher.queue(ofClass).getJobs()).filter((each) => each.id?.startsWith(id))
      expect(job?.id).toBe(`${id}.1.0.1`)
      await finish(await take(id))
      expect((await t.engine.get(id))?.status).toBe('succeeded')
      opened = []
    },
  )

  it('an entry of a line whose step is not open is taken out, not met again', async () => {
    await arrive()
    const stale = `0-${'0'.repeat(26)}.1.0`
    await t.redis.zadd(keys.line(0, `${ofClass} 5 local - -`), 0, stale)
    await t.redis.sadd(keys.lines(0), `${ofClass} 5 local - -`)
    await t.engine.admission.wake()
    expect((await standing()).waiting).toEqual([])
  })

  it('a concurrency limit of one: its holder dies, and the slot is free with its lease; between two steps none is held', async () => {
    const two = { do: 'sequence' as const, of: [programs.step({ lane: 'gpu' }), programs.step()] }
    const concurrency = { key: 'site', limit: 1 }
    const [a, b] = [await submit({ concurrency, program: two }), await submit({ concurrency, program: two })]
    const other = await submit()
    expect(await standing()).toEqual({ waiting: [b], slots: { [a]: ofClass, [other]: ofClass } })
    expect((await t.engine.waiting.view()).places[0]?.why).toBe('1 with the concurrency key site are on devices, as many as it allows')
    await finish(await take(other))
    const attempt = await take(a)
    await t.engine.admission.wake()
    expect((await standing()).waiting).toEqual([b])
    await t.redis.hset(keys.step(attempt.stepKey), 'leaseUntil', 0)
    await t.engine.store.expire(attempt.stepKey, 5)
    await t.engine.admission.wake()
    expect(await standing()).toEqual({ waiting: [], slots: { [b]: ofClass } })
    await finish(await take(b))
    // What follows runs beside the device.
    expect((await standing()).slots).toEqual({})
  })
})

describe('what sessions use', () => {
  /** From now on the farm's time is so much later. */
  const later = (ms: number): Promise<unknown> => t.redis.set(keys.clock(0), `${ms} ${Date.now() + ms}`)
  afterEach(() => t.redis.del(keys.clock(0)))
  const day = new Date().toISOString().slice(0, 10)
  const about = (s: number): unknown => expect.closeTo(s * 1000, -3) as unknown
  const checkpoint = { sha256: 'c'.repeat(64), bytes: 1, call: 3 }

  it('an attempt counts once; of a lost one what no checkpoint keeps, unless it was only late', async () => {
    const id = await submit({ keyId: 'cccccccc' })
    const first = await take(id)
    await later(10_000)
    await t.port.checkpoint(first, checkpoint)
    await later(20_000)
    await t.redis.hset(keys.step(first.stepKey), 'leaseUntil', Date.now() + 14_000)
    await t.engine.store.expire(first.stepKey, 5)
    expect((await t.engine.get(id))?.use).toMatchObject({ ms: about(14), lost: about(4) })
    await t.port.renew(first)
    expect((await t.engine.get(id))?.use).toMatchObject({ ms: about(14), lost: 0 })
    await later(26_000)
    await t.port.deliver(first, { error: new DarkroomError('worker.busy', 'busy') })
    await later(40_000)
    const second = await take(id)
    await later(43_000)
    await t.port.deliver(second, {
      output: { n: 1, token: 'token', said: 'done' },
      artifacts: [
        { group: 'references', sha256: 'a'.repeat(64), bytes: 5 },
        { group: 'scratch', sha256: 'b'.repeat(64), bytes: 7 },
      ],
      stats: { wasResident: true },
    })
    const use = { ms: about(23), lost: about(6), kept: 5, scratch: 7, hits: 1, misses: 0 }
    expect(await t.engine.get(id)).toMatchObject({ status: 'succeeded', use })
    expect(await t.engine.usage.days(['cccccccc', null], 1)).toMatchObject([
      { day, keyId: 'cccccccc', sessions: 1, ...use },
      { keyId: null },
    ])
    opened = []
  })

  it('a cancelled one has used what it had, and a parent what its children did', async () => {
    const id = await submit()
    await take(id)
    await later(5000)
    await t.engine.control(id, 'cancel')
    expect((await t.engine.get(id))?.use).toMatchObject({ ms: about(5), lost: 0 })
    await t.redis.del(keys.clock(0))
    const parent = await t.run({ do: 'child', body: programs.step({ lane: 'gpu' }) })
    opened.push(parent)
    await arrive()
    const child = await eventually('the child', async () => (await t.engine.list({ keyId: null, parent, limit: 1 })).sessions[0]?.id)
    await eventually('it is let in', async () => (await standing()).slots[child])
    const attempt = await take(child)
    await later(8000)
    await t.port.deliver(attempt, { output: { n: 1, token: 't', said: 'd' }, artifacts: [], stats: { wasResident: false } })
    await eventually('the parent has ended', async () => typeof (await t.engine.get(parent))?.endedAt === 'number')
    expect((await t.engine.get(parent))?.use).toMatchObject({ ms: about(8), misses: 1 })
  })

  it('days that are too old go when a new one begins', async () => {
    const today = Math.floor(Date.now() / 86_400_000)
    const all = keys.use(0, 'eeeeeeee')
    await t.redis.hset(all, `${today - 31} ms`, 5, `${today - 30} ms`, 6)
    const id = await submit({ keyId: 'eeeeeeee' })
    await finish(await take(id))
    expect((await t.redis.hkeys(all)).filter((field) => !field.startsWith(`${today} `))).toEqual([`${today - 30} ms`])
    expect(await t.redis.ttl(all)).toBeGreaterThan(31 * 86_400)
    opened = []
  })

  it('a key that has had devices for as long as it may waits until the next day', async () => {
    const connections = [connect(t.url, { patience: 'wait' }), connect(t.url, { patience: 'wait' })] as const
    const config = { ...t.engine.config, keyDeviceS: 10 }
    const [redis, subscriber] = connections
    const limited = new Engine({ redis, subscriber, config, log: t.engine.log, sweeps: false, ...all })
    const used = `${Math.floor(Date.now() / 86_400_000)} ms`
    try {
      await arrive()
      await t.redis.hset(keys.use(0, 'dddddddd'), used, 10_000)
      const input = { ledger: t.folder, key: crypto.randomUUID(), program: programs.step({ lane: 'gpu' }) }
      const start = async (keyId: string): Promise<string> =>
        (await limited.start({ workflow: 'program', input, priority: 5, tags: [], keyId })).session.id
      const id = await start('dddddddd')
      opened.push(id)
      await eventually('it waits', async () => (await standing()).waiting.includes(id))
      await limited.admission.wake()
      expect((await limited.waiting.latest()).places).toMatchObject([
        { session: id, why: expect.stringMatching(/for 10 s today/) as string },
      ])
      const other = await start('eeeeeeee')
      opened.push(other)
      await eventually('the other passes it', async () => (await standing()).slots[other])
      await t.redis.hset(keys.use(0, 'dddddddd'), used, 9999)
      await limited.admission.wake()
      expect((await standing()).slots[id]).toBe(ofClass)
    } finally {
      await limited.close()
      for (const connection of connections) connection.disconnect()
    }
  })
})
