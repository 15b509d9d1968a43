/** darkroom-tiny in every layout that people keep models in: one picture of them all, to the byte. */
import { cp, mkdir, readdir, readFile, rename, rm, stat, symlink, utimes, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { decode } from 'fast-png'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { sha256Of } from '../../src/artifacts/store.ts'
import type { Model } from '../../src/client/index.ts'
import { run } from '../support/command.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { writeSafetensors } from '../support/headers.ts'
import * as headers from '../support/model-headers.ts'
import { originalTiny, readTensors, tiny, writeTensors, type Tensors } from '../support/single-file.ts'
import { eventually } from '../support/wait.ts'

const input = { prompt: 'a large red circle on a blue background', steps: 3, width: 64, height: 64, seed: 11, sampler: 'Euler' }

let farm: Farm
const models = (...path: string[]): string => join(farm.folder, 'models', ...path)
/** Parts of the folder, without what lies beside them. */
const parts = ['model_index.json', 'manifest.json', 'unet', 'vae', 'text_encoder', 'tokenizer', 'scheduler']
const copy = async (to: string, isWanted: (file: string) => boolean = () => true): Promise<void> => {
  for (const part of parts) await cp(join(tiny, part), join(to, part), { recursive: true, filter: (file) => isWanted(file) })
}
const isNoWeights = (file: string): boolean => !file.endsWith('.safetensors')
const write = async (path: string, ...tensors: Tensors[]): Promise<void> => {
  await mkdir(dirname(path), { recursive: true })
  await writeTensors(path, Object.assign({}, ...tensors) as Tensors)
}

beforeAll(async () => {
  farm = await startFarm({ workers: 0 })
  await rm(models('darkroom-tiny'), { recursive: true })
  await copy(models('folder'))
  await copy(models('fp16'))
  for (const part of ['unet', 'vae', 'text_encoder'])
    for (const file of (await readdir(models('fp16', part))).filter((name) => name.endsWith('.safetensors')))
      await rename(models('fp16', part, file), models('fp16', part, file.replace('.safetensors', '.fp16.safetensors')))
  await copy(models('sharded'), (file) => !/unet\/.*safetensors$/.test(file))
  await shard(await readTensors(join(tiny, 'unet/diffusion_pytorch_model.safetensors')), models('sharded/unet'))
  await hubCache(models('models--darkroom--tiny'))

  const { unet, vae, text } = await originalTiny()
  await write(models('checkpoints/one-file.safetensors'), unet, vae, text)
  await copy(models('checkpoints/one-file.configs'), isNoWeights)
  const alone = await originalTiny({ unet: '', vae: '', text: '' })
  // The checkpoint's own decoder draws black: what is drawn with is the one beside it.
  const spoiled = Object.fromEntries(
    Object.entries(vae).map(([name, tensor]) => [name, { ...tensor, bytes: Buffer.alloc(tensor.bytes.byteLength) }]),
  )
  await write(models('checkpoints/own-vae.safetensors'), unet, spoiled, text)
  await write(models('checkpoints/own-vae.vae.safetensors'), alone.vae)
  await copy(models('checkpoints/own-vae.configs'), isNoWeights)
  await write(models('diffusion_models/split.safetensors'), alone.unet)
  await write(models('text_encoders/tiny-clip.safetensors'), alone.text)
  await write(models('vae/tiny-vae.safetensors'), alone.vae)
  await farm.addWorker({ real: true })
}, 120_000)
afterAll(() => farm[Symbol.asyncDispose]())

async function shard(tensors: Tensors, folder: string): Promise<void> {
  const names = Object.keys(tensors)
  const weightMap: Record<string, string> = {}
  for (const [i, some] of [names.slice(0, 40), names.slice(40)].entries()) {
    const file = `diffusion_pytorch_model-0000${i + 1}-of-00002.safetensors`
    await write(join(folder, file), Object.fromEntries(some.map((name) => [name, tensors[name]])) as Tensors)
    for (const name of some) weightMap[name] = file
  }
  await writeFile(join(folder, 'diffusion_pytorch_model.safetensors.index.json'), JSON.stringify({ metadata: {}, weight_map: weightMap }))
}

/** Every file a link to a blob, as the hub's cache has them. */
async function hubCache(folder: string): Promise<void> {
  const snapshot = join(folder, 'snapshots', '0123abcd')
  await copy(snapshot)
  await mkdir(join(folder, 'blobs'), { recursive: true })
  await mkdir(join(folder, 'refs'))
  await writeFile(join(folder, 'refs', 'main'), '0123abcd')
  for (const file of await readdir(snapshot, { recursive: true })) {
    const path = join(snapshot, file)
    if (!(await stat(path)).isFile()) continue
    const blob = join(folder, 'blobs', file.replaceAll('/', '-'))
    await rename(path, blob)
    await symlink(blob, path)
  }
}

const model = async (id: string): Promise<Model> => (await farm.client.get(`/v1/models/${encodeURIComponent(id)}`)).json as Model
const usable = (id: string): Promise<unknown> => eventually(`${id} is usable`, async () => (await model(id)).status === 'usable')
/** A picture without its notes, which name the model. */
const draw = async (id: string): Promise<{ picture: string; session: string }> => {
  await usable(id)
  const session = await farm.submit({ ...input, model: id })
  const [sha256 = ''] = await farm.pictures(session)
  const png = await readFile(join(farm.artifacts, sha256.slice(0, 2), sha256))
  return { picture: sha256Of(Buffer.from(decode(png).data.buffer)), session }
}

describe('the same weights draw the same bytes', () => {
  it.each(['fp16', 'sharded', 'darkroom/tiny', 'one-file', 'own-vae'])('as %s', async (id) => {
    const { picture, session } = await draw(id)
    expect(picture).toBe((await draw('folder')).picture)
    const [attempt] = await farm.attempts(session, 'inference.denoise')
    expect(attempt?.stats).toMatchObject({ modelFormat: id.includes('-') ? 'safetensors' : 'diffusers' })
  })
})

describe('a model of several files', () => {
  const refusal = async (): Promise<{ status: number; json: { code: string; detail: string; field?: string } }> => {
    const { status, json } = await farm.client.post('/v1/sessions', { workflow: 'image-generation', input: { ...input, model: 'split' } })
    return { status, json: json as { code: string; detail: string } }
  }

  it('says what it lacks, in the list and at submit', async () => {
    const why =
      /it lacks a configuration for unet .* and a configuration for text_encoder \(darkroom-tiny\) and tokenizer, the vocabulary of darkroom-tiny/
    expect(await model('split')).toMatchObject({ status: 'unsupported', why: expect.stringMatching(why) as string })
    const { status, json } = await refusal()
    expect([status, json.code]).toEqual([422, 'model.unusable'])
    expect(json.detail).toMatch(why)
    expect(json.detail).toContain('darkroom models import-config FOLDER')
  })

  it('draws once its configurations are imported', async () => {
    const data = join(farm.folder, 'data')
    const { code, stdout, stderr } = await run(['models', 'import-config', tiny], { DARKROOM_URL: farm.client.url, DARKROOM_DATA: data })
    expect([code, stderr]).toEqual([0, ''])
    expect(stdout).toContain(join(data, 'configs', 'darkroom-tiny'))
    expect((await readdir(join(data, 'configs', 'darkroom-tiny'), { recursive: true })).some((file) => file.endsWith('.safetensors'))).toBe(
      false,
    )
    expect((await draw('split')).picture).toBe((await draw('folder')).picture)
  })

  it('is cached in RAM with all of its files of weights, and comes from there', async () => {
    const post = (verb: string) => farm.client.post(`/v1/models/split/${verb}`, {}, { Prefer: 'wait=30' })
    const files = ['diffusion_models/split', 'text_encoders/tiny-clip', 'vae/tiny-vae']
    const sizes = await Promise.all(files.map(async (file) => (await stat(models(`${file}.safetensors`))).size))
    const told = async () =>
      (await farm.client.get('/v1/memory/models')).json.devices[0].cache as { hits: number; misses: number; models: { id: string }[] }
    const isTold = async (): Promise<boolean> => (await told()).models.some(({ id }) => id === 'split')
    const { picture } = await draw('folder')
    // What is told is a moment old: once both are told, so is every load before them.
    expect((await post('evict')).status).toBe(200)
    await eventually('it is told', async () => !(await isTold()))
    const { status, json } = await post('cache')
    expect([status, json.bytes]).toEqual([200, sizes.reduce((sum, size) => sum + size)])
    await eventually('it is told', isTold)
    const before = await told()
    expect((await post('unload')).status).toBe(200)
    expect((await draw('split')).picture).toBe(picture)
    const after = await eventually('the load is told', async () => {
      const now = await told()
      return now.hits + now.misses > before.hits + before.misses && now
    })
    expect([after.hits - before.hits, after.misses - before.misses]).toEqual([1, 0])
  })

  it('is another model when one of its files is another: every one is in its body hash', async () => {
    await usable('split')
    const before = (await model('split')).bodyHash
    const scheduler = join(farm.folder, 'data/configs/darkroom-tiny/scheduler/scheduler_config.json')
    const text = await readFile(scheduler, 'utf8')
    await writeFile(scheduler, text.replace(/\}\s*$/, ', "_of": "a test"}'))
    await farm.client.post('/v1/models/rescan')
    const changed = await eventually('another hash', async () => {
      const { bodyHash } = await model('split')
      return bodyHash !== null && bodyHash !== before && bodyHash
    })
    await writeFile(scheduler, text)
    await utimes(scheduler, new Date(), new Date())
    await farm.client.post('/v1/models/rescan')
    await eventually('the same hash again', async () => (await model('split')).bodyHash === before)
    expect(changed).not.toBe(before)
  })

  it('lacks its text encoder when that is gone', async () => {
    const path = models('text_encoders/tiny-clip.safetensors')
    await rename(path, `${path}.aside`)
    await eventually('it lacks it', async () => (await model('split')).why?.includes('it lacks text_encoder (darkroom-tiny)'))
    expect((await refusal()).json.detail).toContain('text_encoder (darkroom-tiny)')
    await rename(`${path}.aside`, path)
    await usable('split')
  })
})

it('two VAEs that fit are not chosen between', async () => {
  await cp(models('vae/tiny-vae.safetensors'), models('vae/other.safetensors'))
  await eventually('it is not guessed', async () => (await model('split')).why?.includes('other, tiny-vae fit'))
  await cp(models('vae/tiny-vae.safetensors'), models('diffusion_models/split.vae.safetensors'))
  expect((await draw('split')).picture).toBe((await draw('folder')).picture)
})

describe('a VAE that a model is annotated with', () => {
  const annotate = async (vae: string | null): Promise<{ status: number; json: Record<string, unknown> }> => {
    const { status, json } = await farm.client.request('PUT', '/v1/models/folder/annotation', { body: { vae } })
    return { status, json: json as Record<string, unknown> }
  }
  const isAnnotated = (vae: string) => eventually(`${vae} is hashed`, async () => (await annotate(vae)).status === 200)
  const receipt = async (session: string): Promise<{ input: { model: unknown } }> => {
    const [sha256 = ''] = await farm.pictures(session)
    const { text } = decode(await readFile(join(farm.artifacts, sha256.slice(0, 2), sha256)))
    expect(text?.['parameters']).toMatch(/VAE hash: [0-9a-f]{10}, VAE: /)
    return JSON.parse(text?.['darkroom'] ?? '') as { input: { model: unknown } }
  }

  it('decodes in place of its own, and the receipt names it', async () => {
    const own = await draw('folder')
    await isAnnotated('tiny-vae')
    const same = await draw('folder')
    expect(same.picture).toBe(own.picture)
    const { bodyHash } = await model('tiny-vae')
    const pin = { id: 'folder', bodyHash: (await model('folder')).bodyHash, vae: { id: 'tiny-vae', bodyHash } }
    expect((await receipt(same.session)).input.model).toEqual(pin)

    const { vae } = await originalTiny({ unet: '', vae: '', text: '' })
    const black = Object.entries(vae).map(([name, tensor]) => [name, { ...tensor, bytes: Buffer.alloc(tensor.bytes.byteLength) }])
    await write(models('vae/black.safetensors'), Object.fromEntries(black) as Tensors)
    await eventually('it is listed', async () => (await model('black')).kind === 'vae')
    await isAnnotated('black')
    const hash = (await model('black')).bodyHash ?? ''
    expect((await annotate(hash)).json).toMatchObject({ vae: { id: 'black', bodyHash: hash } })
    expect((await draw('folder')).picture).not.toBe(own.picture)

    await rename(models('vae/black.safetensors'), models('vae/black.aside'))
    await eventually('it is gone', async () => (await farm.client.get('/v1/models/black')).status === 404)
    const { status, json } = await farm.client.post('/v1/sessions', { workflow: 'image-generation', input: { ...input, model: 'folder' } })
    const why = `model "folder" is annotated with the VAE "black", and no model folder has one with its body ${hash.slice(0, 10)}`
    expect({ status, json }).toMatchObject({ status: 422, json: { code: 'model.unusable', detail: why, field: 'input.model' } })
    expect((await annotate(null)).json).toMatchObject({ vae: null })
    expect((await draw('folder')).picture).toBe(own.picture)
  })

  it('is refused by name when it is of another family, no VAE, or not there', async () => {
    writeSafetensors(models('vae/flux.safetensors'), headers.vae.original(16))
    await eventually('it is listed', async () => (await model('flux')).kind === 'vae')
    const told = async (vae: string) => (await annotate(vae)).json
    expect(await told('flux')).toMatchObject({
      code: 'model.unusable',
      field: 'vae',
      detail: '"flux" cannot be the VAE of model "folder": it has 16 latent channels, and the model’s have 4',
    })
    expect(await told('one-file')).toMatchObject({ code: 'model.unusable', detail: /it is no VAE but a checkpoint/ })
    expect(await told('nonesuch')).toMatchObject({ code: 'model.unknown', field: 'vae', detail: 'there is no VAE "nonesuch"' })
    expect((await model('folder')).annotation?.vae ?? null).toBeNull()
  })
})
