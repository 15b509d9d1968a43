/** A worker of a GPU, here the stand-in driver's: it finds its device by UUID, and its memory is that of the device. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readWorkers } from '../../src/farm/presence.ts'
import { keys } from '../../src/keys.ts'
import type { AllocationView, MemoryAnalytics } from '../../src/domains/memory/figures/report.ts'
import type { DeviceReport } from '../../src/farm/record.ts'
import { ended } from '../../src/engine/session.ts'
import { type WorkerRecord } from '../../src/farm/record.ts'
import type { Session } from '../../src/client/index.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { eventually } from '../support/wait.ts'
import { backendsOf } from './backends.ts'

const MiB = 2 ** 20
const env = backendsOf().find(({ name }) => name === 'cuda')?.env ?? null
/** Of the driver's second device; Python numbers the devices otherwise. */
const uuid = 'fafafafa-fafa-fafa-fafa-fafafafafa01'

describe.skipIf(env === null)('a worker of a GPU', () => {
  let farm: Farm
  let device = ''
  beforeAll(async () => {
    farm = await startFarm({ fake: ['--uuid', uuid], env: { ...env, DARKROOM_DEVICE: 'cuda:0' } })
    device = (await record()).device.id
  })
  afterAll(() => farm[Symbol.asyncDispose]())

  const record = (): Promise<WorkerRecord> => eventually('the record of the worker', async () => (await readWorkers(farm.eye))[0])
  /** As it is from now on. */
  const report = async (holds: (report: DeviceReport) => boolean = () => true): Promise<DeviceReport> => {
    const since = Date.now()
    return eventually('a report that says so', async () => {
      const { report: now } = await record()
      return now.sampledAt > since && holds(now) && now
    })
  }
  const run = async (workflow: string, input: object): Promise<Session> => {
    const { status, json, text } = await farm.client.post('/v1/sessions', { workflow, input })
    if (status !== 202) throw new Error(`${workflow} → ${status} ${text}`)
    const { id } = json as Session
    return eventually(`${id} ended`, async () => {
      const session = await farm.get(id)
      return ended.has(session.status) && session
    })
  }
  const allocate = async (bytes: number, more: object = {}): Promise<AllocationView> => {
    const { status, output, error } = await run('memory-allocate', { device, bytes, ...more })
    expect(status, JSON.stringify(error)).toBe('succeeded')
    return output as unknown as AllocationView
  }
  const release = async ({ id }: AllocationView): Promise<void> => {
    expect((await run('memory-release', { id })).status).toBe('succeeded')
  }

  it('finds it by its UUID, whatever its number, and says what it is', async () => {
    expect(device).toContain('-cuda-fafafafa')
    const seen = await report()
    expect(seen).toMatchObject({ backend: 'cuda', implementation: 'addon', reason: null, key: `GPU-${uuid}`, software: false })
    expect(seen.figures.total).toBe(2048 * MiB)
    expect(seen.alerts).toEqual([])
  })

  it('holds memory of the device itself: its figures grow and fall with it', async () => {
    const { used: before } = (await report()).figures
    const made = await allocate(256 * MiB)
    const { figures, usage } = await report(({ allocationCount }) => allocationCount === 1)
    expect((figures.used ?? 0) - (before ?? 0)).toBeGreaterThanOrEqual(256 * MiB)
    expect(usage.tracked).toBe(256 * MiB)
    const host = await allocate(8 * MiB, { kind: 'upload' })
    expect(await run('memory-copy', { from: host.id, to: made.id, verify: true })).toMatchObject({
      status: 'succeeded',
      output: { bytes: 8 * MiB, crc32: expect.stringMatching(/^[0-9a-f]{8}$/) as string },
    })
    await release(made)
    await release(host)
    expect((await report(({ allocationCount }) => allocationCount === 0)).figures.used).toBeLessThan((before ?? 0) + 256 * MiB)
  })

  it('moves placed allocations together without copying a byte, and gives the space back', async () => {
    const pieces: AllocationView[] = []
    for (let n = 0; n < 12; n++) pieces.push(await allocate(16 * MiB, { placement: 'placed' }))
    for (const piece of pieces.filter((_, n) => n % 2 === 0)) await release(piece)
    const { fragmentation, reserved, tracked } = (await report(({ allocationCount }) => allocationCount === 6)).usage
    expect(fragmentation).toBeGreaterThan(0)
    expect(tracked).toBe(96 * MiB)
    const { output } = await run('memory-defragment', { device })
    expect(output).toMatchObject({ compaction: { bytesCopied: 0 } })
    const { compaction } = output as unknown as { compaction: { moves: number; before: number; after: number } }
    expect(compaction.moves).toBeGreaterThan(0)
    expect(compaction.after).toBeLessThan(compaction.before)
    expect((await report()).usage.reserved).toBeLessThanOrEqual(reserved)
    for (const piece of pieces.filter((_, n) => n % 2 === 1)) await release(piece)
  })

  it('says how much it is pressed, refuses with figures what does not fit, and is at ease again', async () => {
    const most = await allocate(1700 * MiB)
    expect((await report(({ pressure }) => pressure.device.level === 'elevated')).state).toBe('online')
    const rest = await allocate(270 * MiB)
    const critical = await report(({ alerts }) => alerts.some(({ code }) => code === 'memory.pressure'))
    expect(critical).toMatchObject({ state: 'degraded', pressure: { device: { level: 'critical' } } })
    expect(critical.pressure.device.fraction).toBeGreaterThan(0.95)
    await report(({ pressure }) => pressure.device.rung !== null)

    expect(await run('memory-allocate', { device, bytes: MiB })).toMatchObject({
      status: 'failed',
      error: { code: 'memory.exhausted', details: { need: MiB, level: 'critical', total: 2048 * MiB } },
    })
    // Memory of the host is another pool.
    await release(await allocate(MiB, { kind: 'upload' }))
    await release(most)
    await release(rest)
    const calm = await report(({ pressure }) => pressure.device.level === 'ok')
    expect(calm).toMatchObject({ state: 'online', alerts: [], pressure: { device: { rung: null } } })
  })

  it('publishes what it has seen of it over time', async () => {
    const analytics = await eventually('analytics with the refusal', async () => {
      const text = await farm.eye.get(keys.deviceMemory(device))
      const seen = text === null ? undefined : (JSON.parse(text) as MemoryAnalytics)
      return seen !== undefined && seen.refusals.count > 0 && seen
    })
    expect(analytics.peaks.tracked?.bytes).toBeGreaterThanOrEqual(1970 * MiB)
    expect(analytics.totals.key).toMatchObject({ allocated: 17, released: 17, expired: 0, orphaned: 0 })
    expect(analytics.refusals.byCode).toEqual({ 'memory.exhausted': 1 })
    expect(await farm.eye.pttl(keys.deviceMemory(device))).toBeGreaterThan(0)
  })
})
