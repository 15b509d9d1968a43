/** Which folders pictures are drawn with, by which family, and with which settings where a request leaves them out. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeEach, describe, expect, it } from 'vitest'
import { readDrawing, type Drawable } from '../../src/models/drawing.ts'
import { inspectFolder } from '../../src/models/folder.ts'
import { writeSafetensors, type Tensors } from '../support/headers.ts'
import { encoder, unet, vae } from '../support/model-headers.ts'

const base = mkdtempSync(join(tmpdir(), 'darkroom-drawing-'))
afterAll(() => rmSync(base, { recursive: true }))

let folder = ''
beforeEach(() => {
  folder = mkdtempSync(join(base, 'model-'))
})

const put = (name: string, content: unknown): void => {
  mkdirSync(join(folder, name, '..'), { recursive: true })
  writeFileSync(join(folder, name), JSON.stringify(content))
}

const encoders = { text_encoder: encoder.clip(768, 12), text_encoder_2: encoder.clip(1280, 32) }

/** A folder with this UNet and these text encoders. */
async function drawingOf(pipeline: string, network: Tensors, config: object, parts: Partial<typeof encoders>): Promise<Drawable> {
  put('model_index.json', {
    _class_name: pipeline,
    unet: ['diffusers', 'UNet2DConditionModel'],
    vae: ['diffusers', 'AutoencoderKL'],
    scheduler: ['diffusers', 'EulerDiscreteScheduler'],
    ...Object.fromEntries(Object.keys(parts).map((name) => [name, ['transformers', 'CLIPTextModel']])),
    ...Object.fromEntries(Object.keys(parts).map((name) => [name.replace('text_encoder', 'tokenizer'), ['transformers', 'CLIPTokenizer']])),
  })
  put('unet/config.json', config)
  put('vae/config.json', { block_out_channels: [128, 256, 512, 512] })
  put('scheduler/scheduler_config.json', {})
  mkdirSync(join(folder, 'vae'), { recursive: true })
  writeSafetensors(join(folder, 'unet/diffusion_pytorch_model.safetensors'), network)
  writeSafetensors(join(folder, 'vae/diffusion_pytorch_model.safetensors'), vae.diffusers(4))
  for (const [name, tensors] of Object.entries(parts)) {
    put(`${name}/config.json`, {})
    put(`${name.replace('text_encoder', 'tokenizer')}/tokenizer.json`, {})
    writeSafetensors(join(folder, name, 'model.safetensors'), tensors)
  }
  return readDrawing(folder, await inspectFolder(folder))
}

const first = { text_encoder: encoders.text_encoder }
const second = { text_encoder_2: encoders.text_encoder_2 }
const sd2 = { text_encoder: encoder.clip(1024, 23) }

describe('a folder', () => {
  it.each<[string, string, Tensors, object, Partial<typeof encoders>, string, object]>([
    ['SD1', 'StableDiffusionPipeline', unet.diffusers.sd(768), { sample_size: 64 }, first, 'sd1', { width: 512, steps: 20, guidance: 7 }],
    ['SD2', 'StableDiffusionPipeline', unet.diffusers.sd(1024), { sample_size: 96 }, sd2, 'sd1', { width: 768, sampler: 'DDIM' }],
    [
      'SDXL',
      'StableDiffusionXLPipeline',
      unet.diffusers.sdxl(),
      { sample_size: 128 },
      encoders,
      'sdxl',
      { width: 1024, height: 1024, steps: 30, guidance: 5, sampler: 'Euler a' },
    ],
    ['SDXL without a size of its own', 'StableDiffusionXLPipeline', unet.diffusers.sdxl(), {}, encoders, 'sdxl', { width: 1024 }],
    [
      'SDXL of another size',
      'StableDiffusionXLPipeline',
      unet.diffusers.sdxl(),
      { sample_size: [96, 64] },
      encoders,
      'sdxl',
      { width: 512, height: 768 },
    ],
  ])('of %s draws with what is usual', async (_, pipeline, network, config, parts, family, recommended) => {
    expect(await drawingOf(pipeline, network, config, parts)).toMatchObject({
      obstacle: null,
      drawing: { family, scale: 8, recommended },
    })
  })

  it('says what its manifest recommends instead', async () => {
    put('manifest.json', { recommended: { steps: 4, guidance: 1, sampler: 'LCM' } })
    expect(await drawingOf('StableDiffusionXLPipeline', unet.diffusers.sdxl(), {}, encoders)).toMatchObject({
      drawing: { recommended: { width: 1024, steps: 4, guidance: 1, sampler: 'LCM' } },
    })
  })

  it.each<[string, Tensors, object, Partial<typeof encoders>, string, string]>([
    ['StableDiffusionInpaintPipeline', unet.diffusers.sd(768, { input: 9 }), { in_channels: 9 }, first, 'sd1', 'mask'],
    ['StableDiffusionXLInpaintPipeline', unet.diffusers.sdxl({ input: 9 }), { in_channels: 9 }, encoders, 'sdxl', 'mask'],
    ['StableDiffusionXLImg2ImgPipeline', unet.diffusers.refiner(), {}, second, 'sdxl-refiner', 'picture'],
  ])('of %s asks for more than a prompt', async (pipeline, network, config, parts, family, needs) => {
    expect(await drawingOf(pipeline, network, config, parts)).toMatchObject({ obstacle: null, drawing: { family, needs } })
  })

  it('asks for no more than a prompt where nothing says so', async () => {
    const { drawing } = await drawingOf('StableDiffusionXLPipeline', unet.diffusers.sdxl(), {}, encoders)
    expect(drawing).not.toHaveProperty('needs')
  })

  it.each<[string, Tensors, object, Partial<typeof encoders>, RegExp]>([
    ['StableDiffusionXLPipeline', unet.diffusers.sdxl(), {}, first, /^it lacks text_encoder_2 \(clip-g\)$/],
    [
      'StableDiffusionXLInstructPix2PixPipeline',
      unet.diffusers.sdxl({ input: 8 }),
      { in_channels: 8 },
      encoders,
      /^it is a model for instruct, which/,
    ],
  ])('of %s that cannot draw says why', async (pipeline, network, config, parts, why) => {
    const { drawing, obstacle } = await drawingOf(pipeline, network, config, parts)
    expect([drawing, obstacle]).toEqual([null, expect.stringMatching(why)])
  })
})
