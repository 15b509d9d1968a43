/**
 * Memory of devices through real doors: HTTP, Redis, worker processes; on the addon where it is built, and on plain
 * TypeScript.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readWorkers } from '../../src/farm/presence.ts'
import type { AllocationView } from '../../src/domains/memory/figures/report.ts'
import type { DeviceReport } from '../../src/farm/record.ts'
import { nativeStatus } from '../../src/workers/device/native.ts'
import { ended } from '../../src/engine/session.ts'
import { type WorkerRecord } from '../../src/farm/record.ts'
import type { Session } from '../../src/client/index.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { eventually } from '../support/wait.ts'
import type { GroupProcess } from '../support/process.ts'

const MiB = 2 ** 20
const implementations = nativeStatus().addon === null ? (['typescript'] as const) : (['addon', 'typescript'] as const)

let farm: Farm

const submit = async (workflow: string, input: object, more: object = {}): Promise<string> => {
  const { status, json, text } = await farm.client.post('/v1/sessions', { workflow, input, ...more })
  if (status !== 202) throw new Error(`${workflow} → ${status} ${text}`)
  return (json as Session).id
}
const endOf = (id: string): Promise<Session> =>
  eventually(`${id} ended`, async () => {
    const session = await farm.get(id)
    return ended.has(session.status) && session
  })
/** Submits a workflow and waits for its success. */
const run = async <Output = Record<string, unknown>>(workflow: string, input: object): Promise<Output> => {
  const session = await endOf(await submit(workflow, input))
  expect(session, JSON.stringify(session.error)).toMatchObject({ status: 'succeeded' })
  return session.output as Output
}
/** The code a workflow ends with, or is refused with at submit. */
const refusal = async (workflow: string, input: object): Promise<{ code: string; field?: string | undefined; message: string }> => {
  const { status, json } = await farm.client.post('/v1/sessions', { workflow, input })
  if (status !== 202) {
    const problem = json as { code: string; field?: string; detail: string }
    return { ...problem, message: problem.detail }
  }
  const session = await endOf((json as Session).id)
  expect(session.status).toBe('failed')
  return session.error ?? { code: '', message: '' }
}
const record = async (worker: GroupProcess): Promise<WorkerRecord> =>
  eventually(`the record of ${worker.ready}`, async () => (await readWorkers(farm.eye)).find(({ id }) => id === worker.ready))
const report = async (worker: GroupProcess): Promise<DeviceReport> => (await record(worker)).report
const deviceOf = async (worker: GroupProcess): Promise<string> => (await record(worker)).device.id
const nothingHeld = (worker: GroupProcess): Promise<unknown> =>
  eventually(`nothing held by ${worker.name}`, async () => {
    const { usage, allocations, allocationCount } = await report(worker)
    return usage.live === 0 && usage.tracked === 0 && usage.pinned === 0 && allocations.length === 0 && allocationCount === 0
  })
const worker = (n: number): GroupProcess => {
  const found = farm.workers[n]
  if (!found) throw new Error(`there is no worker ${n}`)
  return found
}

describe.each(implementations)('memory of a device (%s)', (implementation) => {
  let [here, there]: [string, string] = ['', '']
  beforeAll(async () => {
    farm = await startFarm({ workers: 2, plain: implementation === 'typescript' })
    ;[here, there] = [await deviceOf(worker(0)), await deviceOf(worker(1))]
  })
  afterAll(() => farm[Symbol.asyncDispose]())

  it('is published with what holds it, and found by the device of Python', async () => {
    const made = await run<AllocationView>('memory-allocate', { device: here, bytes: 3 * MiB })
    const { epoch } = await record(worker(0))
    expect(made).toMatchObject({ device: here, bytes: 3 * MiB, kind: 'device', owner: 'key:local', inUse: false })
    expect(made.id).toMatch(new RegExp(`^${here}\\.${epoch.slice(0, 8)}\\.\\d+$`))
    expect((made.expiresAt ?? 0) - made.createdAt).toBeGreaterThan(590_000)
    const seen = await eventually('the allocation is published', async () => {
      const now = await report(worker(0))
      return now.allocationCount === 1 && now
    })
    expect(seen).toMatchObject({ backend: 'host', implementation, key: 'host', state: 'online', usage: { live: 1 } })
    expect(seen.allocations[0]).toMatchObject({ id: made.id, bytes: 3 * MiB, owner: 'key:local' })
    expect(seen.usage.tracked).toBeGreaterThanOrEqual(3 * MiB)
    expect(seen.ram.total).toBeGreaterThan(seen.ram.rss)
    expect(Date.now() - seen.sampledAt).toBeLessThan(30_000)
    expect((await report(worker(1))).allocationCount).toBe(0)

    expect(await run('memory-release', { id: made.id })).toEqual({ id: made.id, bytes: made.bytes })
    await nothingHeld(worker(0))
  })

  it('is copied in every direction, and moved to another worker with its checksum', async () => {
    const make = (device: string, kind: string): Promise<AllocationView> =>
      run<AllocationView>('memory-allocate', { device, bytes: 9 * MiB, kind })
    const [upload, memory, other, readback] = [
      await make(here, 'upload'),
      await make(here, 'device'),
      await make(here, 'device'),
      await make(here, 'readback'),
    ]
    const sum = async (id: string, range: object = {}): Promise<string> =>
      (await run<{ crc32: string }>('memory-checksum', { id, ...range })).crc32
    const begins = await sum(upload.id)
    for (const [from, to] of [
      [upload, memory],
      [memory, other],
      [other, readback],
    ] as const)
      expect(await run('memory-copy', { from: from.id, to: to.id, verify: true })).toMatchObject({ bytes: 9 * MiB, crc32: begins })
    // A different range of the same bytes has another sum, so that an equal one says something.
    const part = await sum(readback.id, { at: 5, bytes: MiB })

    const moved = await run<{ allocation: AllocationView; bytes: number; crc32: string }>('memory-transfer', {
      from: readback.id,
      fromAt: 5,
      bytes: MiB,
      device: there,
      kind: 'readback',
    })
    expect(moved).toMatchObject({ bytes: MiB, crc32: part, allocation: { device: there, bytes: MiB, owner: 'key:local' } })
    expect(await sum(moved.allocation.id)).toBe(part)

    for (const { id } of [upload, memory, other, readback, moved.allocation]) await run('memory-release', { id })
    await Promise.all([nothingHeld(worker(0)), nothingHeld(worker(1))])
  })

  it('goes when its time is over, unless that is renewed', async () => {
    const short = await run<AllocationView>('memory-allocate', { device: here, bytes: 1, timeToLiveS: 1 })
    const kept = await run<AllocationView>('memory-allocate', { device: here, bytes: 1, timeToLiveS: 5 })
    const renewed = await run<AllocationView>('memory-renew', { id: kept.id, timeToLiveS: 3600 })
    expect((renewed.expiresAt ?? 0) - Date.now()).toBeGreaterThan(3_500_000)
    await eventually('one of two is left', async () => {
      const { allocations, usage } = await report(worker(0))
      return allocations.length === 1 && allocations[0]?.id === kept.id && usage.expired >= 1
    })
    expect(await refusal('memory-renew', { id: short.id })).toMatchObject({ code: 'memory.unknown' })
    await run('memory-release', { id: kept.id })
  })

  it('is defragmented, optimized and refreshed by command', async () => {
    const { compaction, python } = await run<{ compaction: { before: number; after: number }; python: object | null }>(
      'memory-defragment',
      {
        device: here,
      },
    )
    expect(compaction.after).toBeLessThanOrEqual(compaction.before)
    expect(python).not.toBeUndefined()
    const optimized = await run<{ before: object; after: object; did: string[] }>('device-optimize', { device: here })
    expect(optimized.did.length).toBeGreaterThan(0)
    const { sampledAt } = await run<{ sampledAt: number }>('device-refresh', { device: here })
    expect((await report(worker(0))).sampledAt).toBeGreaterThanOrEqual(sampledAt)
  })

  it.each<[string, string, (id: string) => object, object]>([
    ['no bytes', 'memory-allocate', () => ({ device: here, bytes: 0 }), { code: 'api.invalid', field: 'input.bytes' }],
    ['fewer than none', 'memory-allocate', () => ({ device: here, bytes: -1 }), { code: 'api.invalid', field: 'input.bytes' }],
    ['half a byte', 'memory-allocate', () => ({ device: here, bytes: 0.5 }), { code: 'api.invalid', field: 'input.bytes' }],
    ['NaN, which JSON has as null', 'memory-allocate', () => ({ device: here, bytes: NaN }), { code: 'api.invalid', field: 'input.bytes' }],
    ['more than there is', 'memory-allocate', () => ({ device: here, bytes: 2 ** 50 }), { code: 'memory.invalid', field: 'input.bytes' }],
    ['an unknown device', 'memory-allocate', () => ({ device: 'nowhere', bytes: 1 }), { code: 'device.unknown', field: 'input.device' }],
    ['a name of two devices', 'memory-allocate', () => ({ device: 'cpu:0', bytes: 1 }), { code: 'device.unknown', field: 'input.device' }],
    ['a day and a second', 'memory-allocate', () => ({ device: here, bytes: 1, timeToLiveS: 86_401 }), { code: 'api.invalid' }],
    ['an id that is none', 'memory-release', () => ({ id: '7' }), { code: 'api.invalid', field: 'input.id' }],
    ['an id of another epoch', 'memory-release', () => ({ id: `${here}.00000000.1` }), { code: 'memory.unknown', field: 'input.id' }],
    ['an id that was never given', 'memory-release', (id) => ({ id: id.replace(/\d+$/, '999999') }), { code: 'memory.unknown' }],
    ['a copy past the end', 'memory-copy', (id) => ({ from: id, to: id, at: 10, bytes: 100 }), { code: 'memory.out_of_range' }],
    ['a copy from behind the end', 'memory-copy', (id) => ({ from: id, fromAt: 64, to: id }), { code: 'memory.out_of_range' }],
    ['a transfer past the end', 'memory-transfer', (id) => ({ from: id, bytes: 65, device: there }), { code: 'memory.out_of_range' }],
    ['a transfer to nowhere', 'memory-transfer', (id) => ({ from: id }), { code: 'memory.invalid', field: 'input.to' }],
  ])('refuses %s, and nothing is left', async (_, workflow, input, expected) => {
    const { id } = await run<AllocationView>('memory-allocate', { device: here, bytes: 64 })
    expect(await refusal(workflow, input(id))).toMatchObject(expected)
    await run('memory-release', { id })
    expect(await refusal('memory-release', { id })).toMatchObject({ code: 'memory.unknown' })
    await Promise.all([nothingHeld(worker(0)), nothingHeld(worker(1))])
  })
})

describe('a GPU that the native addon does not reach', () => {
  let device = ''
  beforeAll(async () => {
    farm = await startFarm({ fake: ['--uuid', 'c0ffee00-0000-4000-8000-000000000001'], env: { DARKROOM_DEVICE: 'cuda:0' }, plain: true })
    device = await deviceOf(worker(0))
  })
  afterAll(() => farm[Symbol.asyncDispose]())

  it('has figures of nobody else, an alert that says why, and no memory to give', async () => {
    const seen = await report(worker(0))
    expect(seen).toMatchObject({ backend: 'host', implementation: 'typescript', reason: 'the native addon is left out', state: 'online' })
    expect(seen.figures).toMatchObject({ total: null, used: null })
    expect(seen.pressure.device).toMatchObject({ level: 'ok', fraction: null })
    expect(seen.alerts).toMatchObject([{ code: 'native.missing' }])
    expect(await refusal('memory-allocate', { device, bytes: 1 })).toMatchObject({ code: 'device.unavailable', field: 'kind' })
    const host = await run<AllocationView>('memory-allocate', { device, bytes: 1, kind: 'upload' })
    await run('memory-release', { id: host.id })
    await nothingHeld(worker(0))
  })
})

describe('a device whose models are idle', () => {
  let device = ''
  beforeAll(async () => {
    farm = await startFarm({ fake: ['--heartbeat-ms', '100'] })
    device = await deviceOf(worker(0))
  })
  afterAll(() => farm[Symbol.asyncDispose]())
  const models = async (): Promise<string[]> => (await report(worker(0))).python?.models.map(({ id }) => id) ?? []
  const optimize = (input: object = {}): Promise<{ before: { models: string[] }; after: { models: string[] }; did: string[] }> =>
    run('device-optimize', { device, ...input })

  it('lets go of them by command, of none that a picture uses, and loads them again when needed', async () => {
    await farm.pictures(await farm.submit({ seed: 1 }))
    await eventually('the model is resident', async () => (await models()).join() === 'darkroom-tiny')
    expect(await optimize({ idleModels: false })).toMatchObject({ after: { models: ['darkroom-tiny'] } })
    const { before, did } = await optimize()
    expect(before.models).toEqual(['darkroom-tiny'])
    expect(did).toContain('let go of model darkroom-tiny')
    await eventually('it is gone', async () => (await models()).length === 0)

    const open = await farm.gate(2, 3)
    const picture = await farm.submit({ seed: 2 })
    await farm.untilCall(picture, 3)
    // Python is at the picture: the command does not wait for its end.
    expect((await optimize()).did.join()).toMatch(/until it ends/)
    expect(await farm.get(picture)).toMatchObject({ status: 'running' })
    await open()
    expect(await farm.pictures(picture)).toHaveLength(1)
  })
})
