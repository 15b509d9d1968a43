/** Two models that take turns at a device: both stay where there is room, and one of them comes from RAM where not. */
import { cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { startFarm, type Farm } from '../support/farm.ts'
import { tiny } from '../support/single-file.ts'
import { eventually } from '../support/wait.ts'

const turns = 20
const names = ['one', 'two']
const parts = ['model_index.json', 'manifest.json', 'unet', 'vae', 'text_encoder', 'tokenizer', 'scheduler']
let farm: Farm
beforeAll(async () => {
  farm = await startFarm({ workers: 0 })
  const models = join(farm.folder, 'models')
  await rm(join(models, 'darkroom-tiny'), { recursive: true })
  await mkdir(models, { recursive: true })
  for (const name of names) {
    for (const part of parts) await cp(join(tiny, part), join(models, name, part), { recursive: true })
  }
  // Another body: the last number of its network is another in its last bit.
  const path = join(models, 'two/unet/diffusion_pytorch_model.safetensors')
  const weights = await readFile(path)
  weights[weights.length - 4] = (weights.at(-4) ?? 0) ^ 1
  await writeFile(path, weights)
}, 60_000)
afterAll(() => farm[Symbol.asyncDispose]())

interface Cache {
  hits: number
  misses: number
  models: { id: string }[]
}
const cache = async (): Promise<Cache> => (await farm.client.get('/v1/memory/models')).json.devices[0].cache as Cache
const resident = async (): Promise<string[]> =>
  ((await farm.client.get('/v1/memory/models')).json.devices[0].models as { id: string }[]).map(({ id }) => id)

/** Pictures by turns: how often the worker loaded a model, from disk and from RAM, and what was drawn. */
async function alternate(): Promise<{ loads: number[]; pictures: Set<string>[] }> {
  const pictures = names.map(() => new Set<string>())
  for (let turn = 0; turn < turns; turn++) {
    const model = names[turn % 2] ?? ''
    const session = await farm.submit({ model, prompt: 'a red circle', width: 64, height: 64, steps: 1, seed: 5 })
    await farm.until(session, 'succeeded')
    for (const sha256 of await farm.pictures(session)) pictures[turn % 2]?.add(sha256)
    // What comes from disk is read into RAM meanwhile.
    if (turn < 2) await eventually(`${model} is cached`, async () => (await cache()).models.some(({ id }) => id === model))
  }
  const { hits, misses } = await eventually('the last load is told', async () => {
    const now = await cache()
    await new Promise((resolve) => setTimeout(resolve, 1500))
    const then = await cache()
    return now.hits === then.hits && then
  })
  return { loads: [misses, hits], pictures }
}

it('on a device that holds both none is loaded after the first two; on one that holds one each comes from RAM', async () => {
  const worker = await farm.addWorker({ real: true })
  await eventually('both draw', async () => (await farm.client.get('/v1/models?status=usable')).json.total === 2)
  const both = await alternate()
  expect(both.loads).toEqual([2, 0])
  expect((await resident()).toSorted()).toEqual(names)
  const { json } = await farm.client.post('/v1/models/one/load', {}, { Prefer: 'wait=30' })
  const { bytes } = json as { bytes: number }
  await worker.stop(12_000)

  await farm.addWorker({ real: true, env: { DARKROOM_MODEL_MEMORY: `${bytes}` } })
  const one = await alternate()
  expect(one.loads).toEqual([2, turns - 2])
  expect(await resident()).toEqual(['two'])
  expect(one.pictures).toEqual(both.pictures)
  expect(both.pictures.map(({ size }) => size)).toEqual([1, 1])
}, 300_000)
