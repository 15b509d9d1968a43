/** Workers killed while they read or load a model: what they had not finished, nobody believes. */
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { DarkroomClient } from '../../src/client/index.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { safetensors, writeImage } from '../support/headers.ts'
import { writeModel } from '../support/model.ts'
import { eventually } from '../support/wait.ts'

let farm: Farm
let client: DarkroomClient
const bytes = 700 * 2 ** 20
/** Of the model that is read into RAM. */
const drawnBytes = 128 * 2 ** 20
const slowReads = new URL('../support/slow-reads.mjs', import.meta.url).href
beforeAll(async () => {
  farm = await startFarm({ workers: 0, fake: ['--load-ms', '1500', '--heartbeat-ms', '100'] })
  // A hole in the file system: it is read as zeros, and takes no disk.
  writeImage(join(farm.folder, 'models', 'large.safetensors'), safetensors({ 'w.weight': ['U8', [bytes]] }))
  await writeModel(join(farm.folder, 'models'), 'drawn', 'of real size')
  writeImage(join(farm.folder, 'models/drawn/unet/diffusion_pytorch_model.safetensors'), safetensors({ unet: ['U8', [drawnBytes]] }))
  client = new DarkroomClient({ url: farm.client.url })
  await farm.addWorker()
  await eventually('the models are listed, and draw', async () => {
    const { models } = await client.models()
    return models.length >= 3 && models.every(({ id, status }) => id === 'large' || status === 'usable')
  })
})
afterAll(() => farm[Symbol.asyncDispose]())

/** The record of a worker that was killed lasts for some seconds, and its device with it. */
const untilOneDevice = () => eventually('there is one device', async () => (await farm.client.get('/v1/devices')).json.devices.length === 1)

it('in the middle of a validation: the next worker reads it again, from its first byte', async () => {
  const { id } = (await farm.client.post('/v1/models/large/validate')).json as { id: string }
  await eventually('some of it is read', async () => ((await farm.get(id)).progress?.call ?? 0) > 0)
  await farm.workers[0]?.kill()
  await farm.addWorker()
  const { output } = await farm.until(id, 'succeeded')
  expect(output).toMatchObject({ isValid: true })
  expect((output as unknown as { bytes: number }).bytes).toBeGreaterThan(bytes)
  expect((await farm.attempts(id, 'model.validate')).map(({ end }) => end)).toEqual(['lost', 'completed'])
})

it('in the middle of a load: it is resident where it was loaded whole, and nowhere else', async () => {
  const { id } = (await farm.client.post('/v1/sessions', { workflow: 'model-loading', input: { model: 'darkroom-tiny' } })).json as {
    id: string
  }
  await eventually('it loads', async () => (await farm.get(id)).progress?.stage === 'load')
  const loading = farm.workersAlive()[0]
  await loading?.kill()
  expect((await client.modelStatus('darkroom-tiny')).resident).toEqual([])
  const next = await farm.addWorker()
  const { output } = await farm.until(id, 'succeeded')
  expect(output).toMatchObject({ id: 'darkroom-tiny', wasResident: false })
  const where = await eventually('its worker tells of it', async () => {
    const { resident } = await client.modelStatus('darkroom-tiny')
    return resident.length > 0 ? resident.map(({ worker }) => worker) : undefined
  })
  expect(where).toEqual([next.ready])
})

it('a load is told by its bytes: by the whole of it where that is what was asked for, by nothing where it comes before', async () => {
  await untilOneDevice()
  await client.run('model-unload', { model: 'darkroom-tiny' })
  const whole: number[] = []
  await eventually('it is hashed', async () => (await client.model('drawn')).bodyHash !== null)
  await client.run(
    'model-loading',
    { model: 'drawn' },
    { onFrame: (frame) => void (frame.kind === 'progress' && frame.progress.stage === 'load' && whole.push(frame.progress.fraction)) },
  )
  expect(whole).toEqual(whole.toSorted((a, b) => a - b))
  expect(new Set(whole.filter((fraction) => fraction > 0.1 && fraction < 0.95)).size).toBeGreaterThan(2)

  await client.run('model-unload', { model: 'drawn' })
  const drawn: NonNullable<Awaited<ReturnType<Farm['get']>>['progress']>[] = []
  const id = await farm.submit({ model: 'drawn' })
  await eventually('it has drawn', async () => {
    const { progress, status } = await farm.get(id)
    if (progress?.stage === 'load') drawn.push(progress)
    return status === 'succeeded'
  })
  expect(drawn.some(({ call, calls }) => calls === drawnBytes / 2 ** 20 + 1 && (call ?? 0) > 50)).toBe(true)
  expect(Math.max(...drawn.map(({ fraction }) => fraction))).toBeLessThanOrEqual(0.01)
})

it('in the middle of a cache: it is in no RAM, and its session says that the worker was lost', async () => {
  await farm.workersAlive()[0]?.kill()
  const slow = await farm.addWorker({ preload: [slowReads] })
  await eventually('it is hashed', async () => (await client.model('drawn')).bodyHash !== null)
  await untilOneDevice()
  const answer = await farm.client.post('/v1/models/drawn/cache', {})
  expect(answer.status, answer.text).toBe(202)
  const { id } = answer.json as { id: string }
  await eventually('some of it is read', async () => {
    const { progress, status } = await farm.get(id)
    expect(status).not.toBe('succeeded')
    return progress?.stage === 'cache' && (progress.call ?? 0) > 0
  })
  await slow.kill()
  expect(await farm.until(id, 'failed')).toMatchObject({ error: { code: 'device.lost' } })

  await farm.addWorker()
  await untilOneDevice()
  const cache = async () => (await farm.client.get('/v1/memory/models')).json.devices[0].cache as Record<string, unknown>
  expect(await cache()).toMatchObject({ models: [], reading: [], bytes: 0 })
  const again = await farm.client.post('/v1/models/drawn/cache', {}, { Prefer: 'wait=30' })
  expect(again.status, again.text).toBe(200)
  expect((again.json as { bytes: number }).bytes).toBeGreaterThan(drawnBytes)
  await farm.until(await farm.submit({ model: 'drawn' }), 'succeeded')
  await eventually('its load came from there', async () => (await cache())['hits'] === 1)
})
