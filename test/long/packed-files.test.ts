/** darkroom-tiny's network packed as GGUF: it draws what its weights draw, and the receipt names the packing. */
import { execFile } from 'node:child_process'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { decode } from 'fast-png'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { root } from '../../src/config.ts'
import type { Model } from '../../src/client/index.ts'
import { interpreter } from '../support/child.ts'
import { run } from '../support/command.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { originalTiny, tiny, writeTensors } from '../support/single-file.ts'
import { eventually } from '../support/wait.ts'

const slow = 240_000
const input = { prompt: 'a large red circle on a blue background', steps: 3, width: 64, height: 64, seed: 11, sampler: 'Euler' }

describe('a network in GGUF', () => {
  let farm: Farm
  const models = (...path: string[]): string => join(farm.folder, 'models', ...path)
  const model = async (id: string): Promise<Model> => (await farm.client.get(`/v1/models/${encodeURIComponent(id)}`)).json as Model

  beforeAll(async () => {
    farm = await startFarm({ workers: 0 })
    for (const folder of ['diffusion_models', 'text_encoders', 'vae']) await mkdir(models(folder), { recursive: true })
    const { unet, vae, text } = await originalTiny({ unet: '', vae: '', text: '' })
    await writeTensors(models('text_encoders/tiny-clip.safetensors'), text)
    await writeTensors(models('vae/tiny-vae.safetensors'), vae)
    const plain = join(farm.folder, 'plain.safetensors')
    await writeTensors(plain, unet)
    const [packed, meant] = [join(farm.folder, 'packed.gguf'), models('diffusion_models/meant.safetensors')]
    await promisify(execFile)(interpreter(), [join(root, 'python/tests/gguf_writer.py'), plain, packed, meant])
    await rename(packed, models('diffusion_models/packed.gguf'))
    const bytes = await readFile(models('diffusion_models/packed.gguf'))
    await writeFile(models('diffusion_models/cut.gguf'), bytes.subarray(0, bytes.length - 1000))
    await farm.addWorker({ real: true })
    const data = join(farm.folder, 'data')
    await run(['models', 'import-config', tiny], { DARKROOM_URL: farm.client.url, DARKROOM_DATA: data })
  }, slow)
  afterAll(async () => farm[Symbol.asyncDispose](), 60_000)

  async function drawn(id: string) {
    await eventually(`${id} is usable`, async () => (await model(id)).status === 'usable')
    const session = await farm.submit({ ...input, model: id })
    const [sha256 = ''] = await farm.pictures(session, slow)
    const { bytes } = await farm.client.get(`/v1/artifacts/${sha256}`)
    const [attempt] = await farm.attempts(session, 'inference.denoise')
    return { pixels: decode(bytes).data, stats: attempt?.stats }
  }

  it('draws what its weights draw', { timeout: slow }, async () => {
    const [packed, meant] = [await drawn('packed'), await drawn('meant')]
    expect(packed.stats).toMatchObject({ modelFormat: 'gguf Q8_0' })
    expect(meant.stats).toMatchObject({ modelFormat: 'safetensors' })
    expect(packed.pixels).toEqual(meant.pixels)
  })

  it('that ends too early is refused by name', async () => {
    await eventually('cut is listed', async () => (await model('cut')).status !== undefined)
    const { status, json } = await farm.client.post('/v1/sessions', { workflow: 'image-generation', input: { ...input, model: 'cut' } })
    expect([status, json.code]).toEqual([422, 'model.unusable'])
    expect(JSON.stringify(json)).toContain('Incomplete')
  })
})
