/** A farm with every hostile file in its folder: each is listed with its reason, and nothing comes to harm. */
import { existsSync } from 'node:fs'
import { mkdir, open, utimes } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { Model, ModelPage } from '../../src/client/index.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { writeImage, writeSafetensors } from '../support/headers.ts'
import { hostileFiles } from '../support/hostile-files.ts'
import { makeOddModels } from '../support/odd-models.ts'
import { eventually } from '../support/wait.ts'

/** How long it may take until all of them are listed, ms: a look at what is sound takes as long. */
const withinMs = 20_000

let farm: Farm
let cleanUp: () => Promise<void>
let listedMs = 0
let models: Model[]
const mark = (): string => join(farm.folder, 'opened')
/** A sound file, written at this time, in seconds. */
const kept = (): string => join(farm.folder, 'models/kept.safetensors')
const unchanged = 1_700_000_000
beforeAll(async () => {
  farm = await startFarm({ apis: 0, workers: 0 })
  const folder = join(farm.folder, 'models/hostile')
  await mkdir(folder, { recursive: true })
  for (const [i, { image, ending }] of hostileFiles(mark()).entries()) writeImage(join(folder, `${i}${ending}`), image)
  writeSafetensors(kept(), { 'lora_unet_a.lora_down.weight': ['F16', [4, 32]], 'lora_unet_a.lora_up.weight': ['F16', [32, 4]] })
  await utimes(kept(), unchanged, unchanged)
  cleanUp = await makeOddModels(join(farm.folder, 'models/odd'))
  await farm.addApi()
  const at = performance.now()
  await eventually('the folders were looked at', async () => ((await page()).shelves[0]?.scannedAt ?? null) !== null)
  listedMs = performance.now() - at
  models = (await page('limit=500')).models
})
afterAll(async () => {
  await cleanUp()
  await farm[Symbol.asyncDispose]()
})

const page = async (query = 'limit=1'): Promise<ModelPage> => (await farm.client.get(`/v1/models?${query}`)).json as ModelPage

it('lists each with its reason, within time', () => {
  const files = hostileFiles(mark())
  expect(files.length).toBeGreaterThanOrEqual(60)
  expect(listedMs).toBeLessThan(withinMs)
  for (const [i, { name, code, message, ending }] of files.entries()) {
    const found = models.find(({ where }) => where.some(({ path }) => path.endsWith(`/hostile/${i}${ending}`)))
    expect(found?.reason, name).toMatchObject({ code, message: expect.stringMatching(message) as string })
    expect(['broken', 'refused', 'unknown'], name).toContain(found?.status)
    expect(found?.reason?.remedy, name).toMatch(/\w/)
  }
})

it('goes on answering, and no text of a stranger is an order to a terminal', async () => {
  const from = performance.now()
  expect((await farm.client.get('/v1/health')).status).toBe(200)
  const text = (await farm.client.get('/v1/models?limit=500&status=broken')).text
  expect(performance.now() - from).toBeLessThan(2000)
  const reasons = models.map(({ reason, notes }) => JSON.stringify([reason, notes])).join('')
  expect(reasons).not.toMatch(/[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/u)
  expect(text).not.toContain('\u001B')
})

it('draws with none of them, and has opened no pickle', async () => {
  for (const { id } of models.filter(({ reason }) => reason?.code === 'pickle')) {
    const { status, json } = await farm.client.post('/v1/sessions', { workflow: 'image-generation', input: { prompt: 'x', model: id } })
    expect({ status, json }).toMatchObject({ status: 422, json: { code: 'model.unusable' } })
  }
  expect(existsSync(mark())).toBe(false)
})

it('reads no header again when it is started again, and a changed one as soon as that shows', async () => {
  const [api] = farm.apis
  if (!api) throw new Error('void: no API')
  const model = async (): Promise<Model> => (await farm.client.get('/v1/models/kept')).json as Model
  const scannedAt = async (): Promise<string | null> => (await page()).shelves[0]?.scannedAt ?? null
  const { kind, status, parameters, figures } = await model()
  expect({ kind, status }).toEqual({ kind: 'lora', status: 'unsupported' })
  const last = await scannedAt()
  await api.stop(8000)
  {
    await using file = await open(kept(), 'r+')
    await file.write(Buffer.alloc(64, 0xff), 0, 64, 0)
  }
  await utimes(kept(), unchanged, unchanged)
  await api.start()
  await eventually('the folders were looked at again', async () => (await scannedAt()) !== last)
  expect(await model()).toMatchObject({ kind, status, parameters, figures, reason: null })

  await utimes(kept(), unchanged, unchanged + 1)
  await eventually('the change is seen', async () => (await model()).status === 'broken')
  expect((await model()).reason).toMatchObject({ code: 'header_size' })
})
