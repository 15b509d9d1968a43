/** The queue as people see and move it, in a farm of one worker that draws one picture at a time. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Queue, Session } from '../../src/client/index.ts'
import { forItsTurn } from '../../src/engine/lines.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { eventually } from '../support/wait.ts'

let farm: Farm
beforeAll(async () => {
  farm = await startFarm({ workers: 1, fake: ['--call-ms', '5'] })
})
afterAll(() => farm[Symbol.asyncDispose]())

let seeds = 100

/** A picture that is held in its middle; `open` lets it go on. */
async function held(more: Record<string, unknown> = {}): Promise<{ id: string; seed: number; open: () => Promise<void> }> {
  const seed = seeds++
  const open = await farm.gate(seed, 3)
  const id = await farm.submit({ seed }, more)
  await farm.untilCall(id, 3)
  return { id, seed, open }
}

const queue = async (): Promise<Queue> => (await farm.client.get('/v1/queue')).json as Queue

/** Waits until so many are in line; returns them in order. */
const inLine = (n: number): Promise<string[]> =>
  eventually(`${n} in line`, async () => {
    const { sessions } = await queue()
    return sessions.length === n && sessions.map(({ session }) => session)
  })

/** Submits pictures, each in line or let in before the next. */
async function submitted(n: number, more: Record<string, unknown> = {}): Promise<string[]> {
  const ids: string[] = []
  for (let i = 0; i < n; i++) {
    const id = await farm.submit({ seed: seeds++ }, more)
    await eventually(`${id} waits`, async () => {
      const known = await farm.eye.hmget(`darkroom:{s${Number.parseInt(id, 10)}}:session:${id}`, 'order')
      return known[0] !== null
    })
    ids.push(id)
  }
  return ids
}

/** When a device first took a step of each, in this order. */
async function drawnInOrder(ids: readonly string[]): Promise<string[]> {
  for (const id of ids) await farm.pictures(id)
  const at = async (id: string): Promise<number> => (await farm.event(id, 'step.started', 'inference.encode')).at
  const times = new Map(await Promise.all(ids.map(async (id) => [id, await at(id)] as const)))
  return [...ids].toSorted((a, b) => (times.get(a) ?? 0) - (times.get(b) ?? 0))
}

describe('the queue', () => {
  it('shows who waits at which place and why; front, back and a priority move it', async () => {
    const { id: running, open } = await held()
    const [next = '', a = '', b = '', c = ''] = await submitted(4)
    expect(await inLine(3)).toEqual([a, b, c])
    const seen = await queue()
    expect(seen).toMatchObject({ waiting: 3, running: 1, next: 1, paused: [] })
    expect(seen.sessions.map(({ position, priority }) => [position, priority])).toEqual([
      [1, 5],
      [2, 5],
      [3, 5],
    ])
    expect(seen.sessions[1]?.why).toBe('all devices that could draw it are busy; 1 before it')
    expect(await farm.get(b)).toMatchObject({ waiting: forItsTurn, position: 2 })
    expect(await farm.get(running)).toMatchObject({ status: 'running', waiting: null, position: null })

    const moved = async (id: string, how: string, body?: Record<string, unknown>): Promise<number> =>
      (await farm.client.post(`/v1/sessions/${id}/${how}`, body)).status
    expect(await moved(c, 'front')).toBe(200)
    await eventually('c is first', async () => (await inLine(3))[0] === c)
    expect(await moved(a, 'back')).toBe(200)
    await eventually('a is last', async () => (await inLine(3)).join() === [c, b, a].join())
    expect((await farm.client.post(`/v1/sessions/${a}/priority`, { priority: 7 })).json).toMatchObject({ id: a, priority: 7 })
    await eventually('a is first', async () => (await inLine(3)).join() === [a, c, b].join())
    expect((await farm.history(a)).filter(({ type }) => type === 'session.reordered')).toHaveLength(2)
    expect(await moved(b, 'before', { session: c })).toBe(200)
    expect(await moved(a, 'before', { session: c })).toBe(200)
    await eventually('a is directly before c', async () => (await inLine(3)).join() === [b, a, c].join())
    expect(await moved(b, 'before', { session: running })).toBe(409)
    expect(await moved(a, 'front')).toBe(200)
    await eventually('a is first again', async () => (await inLine(3)).join() === [a, b, c].join())
    expect(await moved(c, 'before', { session: b })).toBe(200)

    const refused = await farm.client.post(`/v1/sessions/${running}/front`)
    expect(refused).toMatchObject({ status: 409, json: { code: 'session.not_waiting' } })
    expect(await moved(b, 'priority', { priority: 10 })).toBe(422)
    expect(await moved(b, 'priority', {})).toBe(422)
    expect(await moved(`0-${'0'.repeat(26)}`, 'back')).toBe(404)
    await open()
    expect(await drawnInOrder([a, b, c])).toEqual([a, c, b])
    await farm.pictures(next)
    expect(await moved(a, 'priority', { priority: 1 })).toBe(409)
  })

  it('paused as a whole, nobody begins; what runs goes on, and what was to come next waits again', async () => {
    const { id: running, open } = await held()
    const ids = await submitted(3)
    expect(await inLine(2)).toEqual(ids.slice(1))
    const answer = await farm.client.post('/v1/queue/pause', {})
    expect(answer).toMatchObject({ status: 200, json: { paused: [{ since: expect.any(String) }], next: 0, running: 1 } })
    expect((await inLine(3)).toSorted()).toEqual(ids.toSorted())
    await eventually('it says why', async () => (await queue()).sessions[0]?.why === 'the queue is paused')
    // By how long the pictures of the test before took, it would be known when.
    expect((await queue()).sessions[0]?.startsInS).toBe(null)
    await open()
    await farm.pictures(running)
    expect(await inLine(3)).toEqual(ids)
    expect((await farm.client.post('/v1/queue/resume', {})).json).toMatchObject({ paused: [] })
    expect(await drawnInOrder(ids)).toEqual(ids)
  })

  it('of a device that is paused: nothing begins there, and its name must be one', async () => {
    const [device] = (await farm.records()).map((record) => record.device)
    const { id: running, open } = await held()
    const [id = ''] = await submitted(1)
    expect((await farm.client.post('/v1/queue/pause', { device: 'cpu:0' })).json).toMatchObject({ paused: [{ device: device?.id }] })
    await eventually('it waits again', async () => (await queue()).sessions[0]?.why === 'every device that could draw it is paused')
    await open()
    await farm.pictures(running)
    expect((await farm.get(id)).position).toBe(1)
    expect(await farm.client.post('/v1/queue/pause', { device: 'nobody' })).toMatchObject({ status: 422, json: { code: 'device.unknown' } })
    expect((await farm.client.post('/v1/queue/pause', { device: 'cpu:0', class: '01234567' })).status).toBe(422)
    expect((await farm.client.post('/v1/queue/pause', { class: 'red' })).status).toBe(422)
    expect((await farm.client.post('/v1/queue/resume', { device: device?.id })).json).toMatchObject({ paused: [] })
    await farm.pictures(id)
  })

  it('a dry run says where it would run, at which place and for how long, and makes nothing', async () => {
    const dryRun = async (input: Record<string, unknown> = {}, more: Record<string, unknown> = {}) => {
      const submission = { workflow: 'image-generation', input: { prompt: 'a red circle', seed: 7, ...input }, ...more }
      return farm.client.post('/v1/sessions?dryRun=true', submission, { 'Idempotency-Key': 'dry' })
    }
    const known = async (): Promise<string[]> => (await farm.eye.keys('darkroom:{s*}:*:?-*')).toSorted()
    const before = await known()
    const [{ device, id: worker } = { device: { id: '' }, id: '' }] = await farm.records()
    const free = await dryRun()
    expect(free.status).toBe(200)
    expect(free.json).toMatchObject({
      dryRun: true,
      workflow: 'image-generation@1',
      input: { model: 'darkroom-tiny', width: 64, seed: 7, sampler: expect.any(String) as string },
      items: null,
      needs: { lanes: expect.arrayContaining(['gpu', 'host']) as string[], models: [{ id: 'darkroom-tiny' }] },
      place: { position: 1, startsInS: 0, why: null },
      nowhere: null,
    })
    expect(free.json.devices).toMatchObject([{ device: device.id, worker, runs: true, why: null, paused: false }])
    // Pictures of this shape were drawn by the tests before.
    expect(free.json.seconds).toMatchObject({ value: expect.any(Number) as number, basis: 'measured' })
    const four = await dryRun({ count: 4 })
    expect(four.json.seconds.value).toBeCloseTo(4 * free.json.seconds.value, 3)
    const many = await farm.client.post('/v1/sessions?dryRun=true', {
      workflow: 'batch',
      input: { input: { prompt: 'a red circle', seed: 7 }, grid: { steps: [20, 20, 20] } },
    })
    expect(many.json).toMatchObject({ workflow: 'batch@1', items: 3, needs: { models: [{ id: 'darkroom-tiny' }] } })
    expect(many.json.seconds.value).toBeCloseTo(3 * free.json.seconds.value, 3)
    expect(await known()).toEqual(before)

    const { open } = await held()
    const ids = await submitted(3)
    await inLine(2)
    expect((await dryRun()).json.place).toMatchObject({ position: 3, why: 'all devices that could draw it are busy; 2 before it' })
    expect((await dryRun({}, { priority: 9 })).json.place).toMatchObject({ position: 1, startsInS: 0 })
    await farm.client.post('/v1/queue/pause', {})
    expect((await dryRun()).json).toMatchObject({
      devices: [{ runs: true, paused: true }],
      place: { startsInS: null, why: 'the queue is paused' },
    })
    await farm.client.post('/v1/queue/resume', {})
    await open()
    for (const id of ids) await farm.pictures(id)

    expect((await dryRun({ model: 'nobody' })).json).toMatchObject({ status: 422, code: 'model.unknown', field: 'input.model' })
    expect((await dryRun({ steps: 0 })).json).toMatchObject({ status: 422, code: 'api.invalid', field: 'input.steps' })
    expect((await dryRun({}, { device: 'cuda:9' })).json).toMatchObject({ status: 422, code: 'device.unknown' })
    expect((await farm.client.post('/v1/sessions?dryRun=yes', {})).status).toBe(422)
    // The key of a dry run stands for nothing.
    const real = await farm.client.post(
      '/v1/sessions',
      { workflow: 'image-generation', input: { prompt: 'x' } },
      { 'Idempotency-Key': 'dry' },
    )
    expect(real.status).toBe(202)
    await farm.pictures(real.json.id)
  })

  it('says about when one begins, once some were drawn', async () => {
    const { open } = await held()
    const [, a = '', b = ''] = await submitted(3)
    await inLine(2)
    const starts = async (id: string): Promise<number> => ((await farm.get(id)) as Session).startsInS ?? -1
    await eventually('both know', async () => (await starts(a)) > 0 && (await starts(b)) > (await starts(a)))
    await open()
    await farm.pictures(b)
    expect(await farm.get(b)).toMatchObject({ position: null, startsInS: null })
  })

  it('an urgent session takes the place of the least urgent one, which goes on from its checkpoint to the same bytes', async () => {
    const { id: running, seed, open } = await held({ priority: 0 })
    const ids = await submitted(3, { priority: 0 })
    const urgent = await farm.submit({ seed: seeds++ }, { priority: 9 })
    // The gate of the running one is closed all the while.
    await farm.pictures(urgent)
    const ends = async (): Promise<unknown[]> => (await farm.attempts(running, 'inference.denoise')).map(({ end }) => end)
    expect((await ends())[0]).toBe('released')
    const [released] = (await farm.history(running)).filter(({ type }) => type === 'step.released')
    expect(released).toMatchObject({ reason: 'preempt', checkpoint: { call: expect.any(Number) } })
    await open()
    expect(await farm.pictures(running)).toEqual(await farm.undisturbed({ seed }))
    const [first, second] = (await farm.receipt(running)).steps.find(({ step }) => step === 'inference.denoise')?.attempts ?? []
    expect(first?.end).toBe('released')
    expect(second?.resumedFrom?.call).toBeGreaterThanOrEqual(3)
    for (const id of ids) await farm.pictures(id)
  })

  it('no picture makes way twice', async () => {
    const { id, seed, open } = await held({ priority: 0 })
    await farm.pictures(await farm.submit({ seed: seeds++ }, { priority: 9 }))
    const again = await farm.gate(seed, 6)
    await farm.untilCall(id, 6)
    const second = await farm.submit({ seed: seeds++ }, { priority: 9 })
    await eventually('it comes next', async () => (await queue()).next === 1)
    expect((await farm.history(id)).filter(({ type }) => type === 'step.released')).toHaveLength(1)
    await Promise.all([open(), again()])
    expect(await drawnInOrder([id, second])).toEqual([id, second])
    expect((await farm.history(id)).filter(({ type }) => type === 'step.released')).toHaveLength(1)
  })

  it('of one concurrency key no more than its limit are on devices, and others pass them', async () => {
    const { open } = await held()
    const one = { concurrency: { key: 'site', limit: 1 } }
    const [a = '', b = ''] = await submitted(2, one)
    expect((await farm.get(a)).concurrency).toEqual(one.concurrency)
    const [c = ''] = await submitted(1)
    await open()
    const order = await drawnInOrder([a, b, c])
    expect(order).toEqual([a, c, b])
    for (const concurrency of [{ key: 'a b', limit: 1 }, { key: 'a', limit: 0 }, { key: 'a' }, { key: 'a', limit: 1, more: 1 }]) {
      const answer = await farm.client.post('/v1/sessions', { workflow: 'image-generation', input: { prompt: 'x' }, concurrency })
      expect(answer.status).toBe(422)
    }
  })
})
