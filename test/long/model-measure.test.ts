/** Figures of a real model on the product's own child: measured, kept by class, and never half of them. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { keys } from '../../src/keys.ts'
import { DarkroomClient } from '../../src/client/index.ts'
import { run } from '../support/command.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { eventually } from '../support/wait.ts'

let farm: Farm
let client: DarkroomClient
beforeAll(async () => {
  farm = await startFarm({ workers: 1, real: true })
  client = new DarkroomClient({ url: farm.client.url })
}, 120_000)
afterAll(() => farm[Symbol.asyncDispose]())

const recorded = (): Promise<number> => farm.eye.hlen(keys.benchmarks())
const pictured = { model: 'darkroom-tiny', width: 64, height: 64 }

it('a worker that is killed in the middle of a benchmark records nothing; the next one does', async () => {
  const { id } = (await farm.client.post('/v1/models/darkroom-tiny/benchmark', { width: 128, height: 128, calls: 50 })).json as {
    id: string
  }
  await eventually('it draws', async () => {
    const { progress } = await farm.get(id)
    return progress?.stage === 'run' && (progress.call ?? 0) > 0
  })
  await farm.workers[0]?.kill()
  expect(await recorded()).toBe(0)
  await farm.addWorker({ real: true })
  await farm.until(id, 'succeeded', 120_000)
  expect(await recorded()).toBe(1)
}, 240_000)

it('benchmark: figures that hold together, kept and shown with the status', async () => {
  const told = await client.run('model-benchmark', { ...pictured, calls: 4 })
  expect(told).toMatchObject({ id: 'darkroom-tiny', width: 64, height: 64, calls: 4, isCold: true })
  for (const name of ['coldLoadS', 'warmLoadS', 'encodeS', 'firstCallS', 'callS', 'decodeS'] as const)
    expect(told[name], name).toBeGreaterThan(0)
  expect(told.callsPerS).toBeCloseTo(1 / told.callS)
  expect(told.coldGbPerS).toBeCloseTo(told.bytes / 1e9 / told.coldLoadS)
  expect(told.peakBytes).toBeGreaterThan(told.bytes)
  const { benchmarks } = await client.modelStatus('darkroom-tiny')
  expect(benchmarks.map(({ figures }) => figures)).toEqual([told])
  expect(await recorded()).toBe(1)
  const { code, stdout } = await run(['models', 'benchmark', 'darkroom-tiny', '--size', '64x64', '--calls', '2'], {
    DARKROOM_URL: farm.client.url,
  })
  expect({ code, stdout }).toMatchObject({ code: 0, stdout: /steps +[\d.]+ a second/ })
  expect(stdout).toMatch(/cold load .* GB\/s/)
}, 120_000)

it('optimize: the first picture and the last, in the precision that pictures are promised in', async () => {
  const told = await client.run('model-optimize', { ...pictured, calls: 3 })
  expect(told).toMatchObject({ id: 'darkroom-tiny', precision: 'float32', freedBytes: null })
  expect(told.before.firstCallS).toBeGreaterThan(0)
  expect(told.after.callS).toBeGreaterThan(0)
}, 120_000)

it('a picture that no device may draw is refused', async () => {
  const { status, json } = await farm.client.post('/v1/models/darkroom-tiny/benchmark', { width: 4096, height: 4096 })
  expect({ status, json }).toMatchObject({ status: 422, json: { detail: /width · height must be at most/ } })
})

it('loads with its speed, and unloads by name', async () => {
  const { unloaded } = await client.run('model-unload', { model: 'darkroom-tiny' })
  expect(unloaded.map(({ id }) => id)).toEqual(['darkroom-tiny'])
  const { bytes, gbPerS, seconds } = await client.run('model-loading', { model: 'darkroom-tiny' })
  expect(bytes).toBe(unloaded[0]?.bytes)
  expect(gbPerS).toBeCloseTo(bytes / 1e9 / seconds)
}, 120_000)
