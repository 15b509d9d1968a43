import { open, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { keys } from '../../src/keys.ts'
import type { Checkpoint } from '../../src/engine/store.ts'
import { startFarm, type Farm } from '../support/farm.ts'

/** A paused session with the two checkpoints that are kept of its denoise step, newest first. */
async function pausedAt(farm: Farm, call: number): Promise<{ id: string; checkpoints: Checkpoint[] }> {
  const open = await farm.gate(7, call)
  const id = await farm.submit()
  const { stepKey } = await farm.untilCall(id, call)
  await farm.control(id, 'pause')
  await farm.until(id, 'paused')
  await open()
  const texts = await farm.eye.hmget(keys.step(stepKey), 'checkpoint', 'checkpointBefore')
  const checkpoints = texts.map((text) => JSON.parse(text ?? '') as Checkpoint)
  expect(checkpoints[0]?.call).toBeGreaterThan(checkpoints[1]?.call ?? 0)
  return { id, checkpoints }
}

const fileOf = (farm: Farm, sha256 = ''): string => join(farm.artifacts, sha256.slice(0, 2), sha256)

async function flipByte(path: string): Promise<void> {
  const file = await open(path, 'r+')
  const byte = Buffer.alloc(1)
  await file.read(byte, 0, 1, 100)
  await file.write(Buffer.from([(byte[0] ?? 0) ^ 1]), 0, 1, 100)
  await file.close()
}

describe('a checkpoint that cannot be used', () => {
  let farm: Farm
  let undisturbed: string[]
  beforeAll(async () => {
    farm = await startFarm({ fake: ['--call-ms', '10'] })
    undisturbed = await farm.pictures(await farm.submit())
  })
  afterAll(() => farm[Symbol.asyncDispose]())

  const resumed = async (id: string): Promise<{ call: unknown; notes: string[] }> => {
    await farm.control(id, 'resume')
    expect(await farm.pictures(id)).toEqual(undisturbed)
    const last = (await farm.attempts(id, 'inference.denoise')).at(-1)
    return { call: last?.stats?.['resumedFrom'], notes: (await farm.receipt(id)).notes.map(({ note }) => note) }
  }

  it('one flipped byte: the step goes on from the checkpoint before, and the receipt says so', async () => {
    const { id, checkpoints } = await pausedAt(farm, 5)
    await flipByte(fileOf(farm, checkpoints[0]?.sha256))
    const { call, notes } = await resumed(id)
    expect(call).toBe(checkpoints[1]?.call)
    expect(notes).toContainEqual(expect.stringContaining(`the checkpoint at call ${checkpoints[0]?.call} is not used`))
    expect((await farm.attempts(id, 'inference.denoise')).at(-1)?.resumedFrom?.call).toBe(checkpoints[1]?.call)
  })

  it('an attempt whose folder is removed under it is tried again from its checkpoint, as by a broken machine', async () => {
    const open = await farm.gate(7, 5)
    const id = await farm.submit()
    await farm.untilCall(id, 5)
    const place = join(farm.folder, 'attempts', 'worker-0')
    const folders = (await readdir(place, { recursive: true })).filter(
      (name) => /^[^/]+\/[^/]+$/.test(name) && !/\/home$|\.lock$/.test(name),
    )
    expect(folders).toHaveLength(1)
    await rm(join(place, folders[0] ?? ''), { recursive: true })
    await open()
    expect(await farm.pictures(id)).toEqual(undisturbed)
    expect(JSON.stringify(await farm.history(id))).toContain('worker.folder_gone')
  })

  it('one flipped, the other gone: the step begins at call 0, and the receipt says so', async () => {
    const { id, checkpoints } = await pausedAt(farm, 5)
    await flipByte(fileOf(farm, checkpoints[0]?.sha256))
    await rm(fileOf(farm, checkpoints[1]?.sha256))
    const { call, notes } = await resumed(id)
    expect(call).toBe(0)
    for (const checkpoint of checkpoints)
      expect(notes).toContainEqual(expect.stringContaining(`the checkpoint at call ${checkpoint.call} is not used`))
    expect((await farm.attempts(id, 'inference.denoise')).at(-1)?.resumedFrom).toBe(null)
  })
})

it.concurrent(
  'one changed version string: the picture begins again on the other build, and the receipt says so',
  { timeout: 120_000 },
  async ({ expect }) => {
    await using farm = await startFarm({
      workers: ['2.13.0', '2.13.1'].map((build) => ({ fake: ['--build', build] })),
      settings: { DARKROOM_CLASS_WAIT_S: '2' },
    })
    const open = await farm.gate(7, 5)
    const id = await farm.submit()
    const { worker } = await farm.untilCall(id, 5)
    const { exactnessKey } = (await farm.records()).find((record) => record.id === worker.ready) ?? {}
    const other = farm.other(worker)
    await worker.kill()
    await open()
    const pictures = await farm.pictures(id)
    const moved = await farm.event(id, 'session.moved')
    expect(moved).toMatchObject({ from: exactnessKey })
    const attempts = await farm.attempts(id, 'inference.denoise')
    expect(attempts.at(-1)).toMatchObject({ worker: other.ready, end: 'completed', resumedFrom: null, stats: { resumedFrom: 0 } })
    const encodes = await farm.attempts(id, 'inference.encode')
    expect(encodes.map((attempt) => attempt.worker)).toEqual([worker.ready, other.ready])
    expect((await farm.receipt(id)).notes.map(({ note }) => note)).toContainEqual(expect.stringContaining(`class ${exactnessKey}`))
    // The other build draws other bits: what it gives is its own picture, whole.
    expect(pictures).toEqual(await farm.undisturbed())
  },
)

it.concurrent('one session may lose the same class twice', { timeout: 120_000 }, async ({ expect }) => {
  const builds = ['one', 'two'].map((build) => ({ fake: ['--build', build] }))
  await using farm = await startFarm({ workers: [builds[0] ?? {}], settings: { DARKROOM_CLASS_WAIT_S: '1' } })
  const open = await farm.gate(7, 2)
  const id = await farm.submit()
  let { worker } = await farm.untilCall(id, 2)
  for (const next of [1, 0, 1]) {
    await worker.kill()
    worker = await farm.addWorker(builds[next])
    await farm.event(id, 'step.started', 'inference.denoise', (await farm.history(id)).filter(isDenoise).length + 1)
  }
  await open()
  await farm.pictures(id)
  expect((await farm.history(id)).filter((event) => event.type === 'session.moved')).toHaveLength(3)
})

const isDenoise = (event: { type: string; step?: string }): boolean => event.type === 'step.started' && event.step === 'inference.denoise'
