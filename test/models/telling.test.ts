/**
 * A farm whose API has no models of its own: what is known before a host has told of its models; files that change
 * under a session; and where a model draws.
 */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Model } from '../../src/client/index.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { writeModel } from '../support/model.ts'
import { eventually } from '../support/wait.ts'

const loadMs = 1500

let farm: Farm
let models: string
beforeAll(async () => {
  farm = await startFarm({ workers: 0, settings: { DARKROOM_MODELS: '/nowhere/darkroom-models' } })
  models = join(farm.folder, 'models')
})
afterAll(() => farm[Symbol.asyncDispose]())

const submitted = (model: string): ReturnType<Farm['client']['post']> =>
  farm.client.post('/v1/sessions', { workflow: 'image-generation', input: { prompt: 'x', model } })
const model = async (id: string): Promise<Model | undefined> => {
  const { status, json } = await farm.client.get(`/v1/models/${encodeURIComponent(id)}`)
  return status === 200 ? (json as Model) : undefined
}
const isHashed = (id: string, but = ''): Promise<string> =>
  eventually(`${id} is hashed`, async () => {
    const hash = (await model(id))?.bodyHash ?? undefined
    return hash === but ? undefined : hash
  })

it('before a host has told of its models none is unknown: the answer is 503, and passes', async () => {
  const { status, json, headers } = await submitted('darkroom-tiny')
  expect({ status, json }).toMatchObject({ status: 503, json: { code: 'model.unlisted', class: 'transient', field: 'input.model' } })
  expect(Number(headers['retry-after'])).toBeGreaterThan(0)
  await farm.addWorker({ env: { DARKROOM_MODELS: models }, fake: ['--load-ms', String(loadMs)] })
  expect(await farm.pictures(await farm.submitSurely('early', { model: 'darkroom-tiny' }))).toHaveLength(1)
  const unknown = await submitted('darkroom-tinny')
  expect({ status: unknown.status, json: unknown.json }).toMatchObject({ status: 422, json: { code: 'model.unknown' } })
})

describe('a model whose files change under its session', () => {
  const change = (name: string): Promise<void> =>
    writeFile(join(models, name, 'unet/config.json'), '{"sample_size":16,"in_channels":4,"x":1}')

  it('before they are loaded fails it with `model.changed`', async () => {
    await writeModel(models, 'queued', 'queued')
    const before = await isHashed('queued')
    const release = await farm.gate(71, 1)
    const first = await farm.submit({ model: 'darkroom-tiny', seed: 71 })
    await farm.untilCall(first, 1)
    const id = await farm.submit({ model: 'queued' })
    await change('queued')
    await release()
    expect((await farm.until(id, 'failed')).error).toMatchObject({ code: 'model.changed', field: 'input.model' })
    await farm.pictures(first)
    expect(await isHashed('queued', before)).not.toBe(before)
    expect(await farm.pictures(await farm.submit({ model: 'queued' }))).toHaveLength(1)
  })

  it('while they are loaded fails it too, and what was loaded draws nothing', async () => {
    await writeModel(models, 'loading', 'loading')
    const before = await isHashed('loading')
    const id = await farm.submit({ model: 'loading' })
    await eventually('it is loaded', async () => (await farm.get(id)).progress?.stage === 'load')
    await change('loading')
    expect((await farm.until(id, 'failed')).error).toMatchObject({ code: 'model.changed', field: 'input.model' })
    const done = (await farm.history(id)).filter(({ type }) => type === 'step.completed').map(({ step }) => step)
    expect(done).toEqual([])
    await isHashed('loading', before)
    expect(await farm.pictures(await farm.submit({ model: 'loading' }))).toHaveLength(1)
  })
})

it('says on which device a model draws, and how long it takes once it has drawn', async () => {
  const { status, json } = await farm.client.get('/v1/models/darkroom-tiny/compatible')
  expect(status).toBe(200)
  const { devices, picture } = json as { devices: object[]; picture: object }
  expect(picture).toEqual({ width: 64, height: 64, steps: 20, guidance: 3 })
  expect(devices).toMatchObject([
    { worker: farm.workers[0]?.ready, fits: true, why: null, precision: 'float32', offload: 'none', peakBytes: { basis: 'estimate' } },
  ])
  const large = (await farm.client.get('/v1/models/darkroom-tiny/compatible?width=8192&height=8192')).json
  expect(large).toMatchObject({ devices: [{ fits: false, why: expect.stringMatching(/8192 × 8192 is larger/) as string }] })
  expect((await farm.client.get('/v1/models/darkroom-tiny/compatible?width=7')).status).toBe(422)
  expect((await farm.client.get('/v1/models/none/compatible')).status).toBe(404)
})
