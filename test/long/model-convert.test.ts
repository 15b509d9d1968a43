/** Pickles where the operator has opted in: what is weights becomes safetensors, whole or not at all. */
import { existsSync } from 'node:fs'
import { cp, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { DarkroomClient } from '../../src/client/index.ts'
import { run } from '../support/command.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { isMarked, writeMarking, writePickles } from '../support/pickles.ts'
import { readTensors, tiny } from '../support/single-file.ts'
import { eventually } from '../support/wait.ts'

let farm: Farm
let client: DarkroomClient
let root: string
const mark = (): string => join(farm.folder, 'mark')
beforeAll(async () => {
  farm = await startFarm({ apis: 0, workers: 0, settings: { DARKROOM_PICKLES: 'convert' } })
  root = join(farm.folder, 'models')
  const up = `{'lora_unet_a.lora_down.weight': torch.ones(4, 32).half(), 'lora_unet_a.lora_up.weight': torch.full((32, 4), 2.).half()}`
  await writePickles({
    [join(root, 'good.pt')]: `{'state_dict': ${up}, 'epoch': 3}`,
    [join(root, 'large.ckpt')]:
      `{'lora_unet_a.lora_down.weight': torch.zeros(4, 2_000_000), 'lora_unet_a.lora_up.weight': torch.zeros(32, 4)}`,
    [join(root, 'words.bin')]: `{'a': 1}`,
    [join(root, 'object.pth')]: `{'a': torch.ones(2), 'b': torch.nn.Linear(1, 1)}`,
  })
  writeMarking(join(root, 'stranger.ckpt'), mark())
  await writeFile(join(root, 'taken.pt'), Buffer.from('\x80\x02}q\x00.', 'latin1'))
  await writeFile(join(root, 'taken.safetensors'), 'somebody’s')
  await farm.addApi()
  await farm.addWorker()
  client = new DarkroomClient({ url: farm.client.url })
  await eventually('the models are listed', async () => (await client.models()).models.length >= 8)
})
afterAll(() => farm[Symbol.asyncDispose]())

const convert = (model: string) => farm.client.post(`/v1/models/${model}/convert`, undefined, { Prefer: 'wait=60' })

it('a diffusers folder of pickles: each that a picture needs, and those again that a kill left out', async () => {
  const folder = join(root, 'pickled')
  const pickles: Record<string, string> = {}
  for (const [part, file, bin] of [
    ['unet', 'diffusion_pytorch_model', 'diffusion_pytorch_model.bin'],
    ['vae', 'diffusion_pytorch_model', 'diffusion_pytorch_model.fp16.bin'],
    ['text_encoder', 'model', 'pytorch_model.bin'],
    ['safety_checker', 'model', 'pytorch_model.bin'],
  ] as const) {
    const from = join(tiny, part === 'safety_checker' ? 'text_encoder' : part, `${file}.safetensors`)
    pickles[join(folder, part, bin)] = `load_file(${JSON.stringify(from)})`
  }
  await cp(tiny, folder, { recursive: true, filter: (file) => !file.endsWith('.safetensors') })
  // As after a worker that was killed between two files.
  await cp(join(tiny, 'vae/diffusion_pytorch_model.safetensors'), join(folder, 'vae/diffusion_pytorch_model.fp16.safetensors'))
  const index = JSON.parse(await readFile(join(tiny, 'model_index.json'), 'utf8')) as object
  const checker = { safety_checker: ['stable_diffusion', 'StableDiffusionSafetyChecker'] }
  await writeFile(join(folder, 'model_index.json'), JSON.stringify({ ...index, ...checker }))
  await writePickles(pickles, 'from safetensors.torch import load_file')
  await cp(join(tiny, 'text_encoder/config.json'), join(folder, 'safety_checker/config.json'))
  const tensors = async (part: string, file: string): Promise<number> =>
    Object.keys(await readTensors(join(tiny, part, `${file}.safetensors`))).length
  const count = (await tensors('unet', 'diffusion_pytorch_model')) + (await tensors('text_encoder', 'model'))
  const isPickle = async () => (await client.models({ name: 'pickled' })).models[0]?.reason?.code === 'pickle'
  await eventually('it is listed', isPickle)
  const { status, json } = await convert('pickled')
  expect({ status, json }).toMatchObject({ status: 200, json: { path: folder, tensors: count, skipped: [] } })
  await eventually('it draws', async () => (await client.model('pickled')).status === 'usable')
  expect((await client.model('pickled')).notes).toContainEqual(expect.stringMatching(/^Its safety checker cannot be used: .*pickle/))
  expect(await client.run('model-validate', { model: 'pickled' })).toMatchObject({ isValid: true })
  expect(existsSync(join(folder, 'safety_checker', 'model.safetensors'))).toBe(false)
  expect(await convert('pickled')).toMatchObject({ json: { code: 'model.unusable', detail: /no pickle/ } })
})

const parts = async (): Promise<string[]> => (await readdir(root)).filter((name) => name.endsWith('.part'))

it('makes safetensors of weights, which are listed and sound', async () => {
  const { code, stdout } = await run(['models', 'convert', 'good'], { DARKROOM_URL: farm.client.url })
  expect({ code, stdout }).toMatchObject({ code: 0, stdout: /^made .*good\.safetensors, .* 2 tensors/ })
  await eventually('it is listed', async () => (await client.models({ name: 'good', kind: 'lora' })).total === 1)
  expect(await client.run('model-inspect', { model: 'good' })).toMatchObject({ kind: 'lora', format: 'safetensors', precision: 'fp16' })
  expect(await client.run('model-validate', { model: 'good' })).toMatchObject({ isValid: true, path: join(root, 'good.safetensors') })
  expect(await convert('good')).toMatchObject({ json: { code: 'model.unusable', detail: /no pickle/ } })
  expect(existsSync(join(root, 'good.pt'))).toBe(true)
})

describe('what is more than weights makes no file, and runs nothing', () => {
  it.each([
    ['stranger', 'model.not_converted', /more than weights/],
    ['object', 'model.not_converted', /more than weights/],
    ['words', 'model.not_converted', /no table of tensors/],
    ['taken', 'model.exists', /taken\.safetensors is there already/],
  ])('%s', async (model, code, detail) => {
    expect(await convert(model)).toMatchObject({ json: { code, detail } })
    expect(existsSync(join(root, `${model}.safetensors`))).toBe(model === 'taken')
    expect(isMarked(mark())).toBe(false)
    expect(await parts()).toEqual([])
  })
})

it('a worker that is killed in the middle leaves nothing that anybody believes; the next one makes it whole', async () => {
  const answer = await farm.client.post('/v1/models/large/convert')
  const { id } = answer.json as { id: string }
  const [first] = farm.workers
  await eventually('it is under way', async () => (await farm.get(id)).progress?.stage === 'read')
  await first?.kill()
  expect(existsSync(join(root, 'large.safetensors'))).toBe(false)
  await farm.addWorker()
  const { output } = await farm.until(id, 'succeeded')
  expect(output).toMatchObject({ path: join(root, 'large.safetensors'), tensors: 2 })
  await eventually('it is listed', async () => (await client.models({ name: 'large', kind: 'lora' })).total === 1)
  expect(await client.run('model-validate', { model: 'large' })).toMatchObject({ isValid: true })
  expect(await parts()).toEqual([])
})
