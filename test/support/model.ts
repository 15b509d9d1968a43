/** A model for the fake child: the files discovery reads, with a few bytes of weights. Nothing here can draw. */
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Engine } from '../../src/engine/engine.ts'
import { eventually } from './wait.ts'

/** The files of a diffusers folder of 64 × 64 pictures, 20 DDIM steps, by path: JSON values, or bytes. */
export const modelFiles = (): Record<string, unknown> => ({
  'model_index.json': {
    _class_name: 'StableDiffusionPipeline',
    scheduler: ['diffusers', 'DDIMScheduler'],
    text_encoder: ['transformers', 'CLIPTextModel'],
    tokenizer: ['transformers', 'CLIPTokenizer'],
    unet: ['diffusers', 'UNet2DConditionModel'],
    vae: ['diffusers', 'AutoencoderKL'],
  },
  'unet/config.json': { sample_size: 16, in_channels: 4 },
  'vae/config.json': { block_out_channels: [16, 32, 64] },
  'text_encoder/config.json': {},
  'tokenizer/vocab.json': {},
  'tokenizer/merges.txt': '',
  'scheduler/scheduler_config.json': {},
  'unet/diffusion_pytorch_model.safetensors': safetensors('unet'),
  'vae/diffusion_pytorch_model.safetensors': safetensors('vae'),
  'text_encoder/model.safetensors': safetensors('text_encoder'),
})

/** Writes such a folder, `<folder>/<name>`; other bytes for another `body`. */
export async function writeModel(folder: string, name = 'darkroom-tiny', body = ''): Promise<void> {
  const files = { ...modelFiles(), ...(body && { 'scheduler/scheduler_config.json': { body } }) }
  for (const [file, content] of Object.entries(files)) {
    const path = join(folder, name, file)
    await mkdir(dirname(path), { recursive: true })
    await writeFile(path, content instanceof Uint8Array || typeof content === 'string' ? content : JSON.stringify(content))
  }
}

/** A safetensors file of one tensor, eight bytes. */
export function safetensors(name: string): Buffer {
  const header = Buffer.from(JSON.stringify({ [name]: { dtype: 'F32', shape: [2], data_offsets: [0, 8] } }))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(header.byteLength))
  return Buffer.concat([length, header, Buffer.from(name.padEnd(8).slice(0, 8))])
}

/** Until the models that draw are known with their hashes: a session's first step is then the same each time. */
export const untilHashed = (engine: Pick<Engine, 'models'>): Promise<unknown> =>
  eventually('the models are hashed', async () => {
    await engine.models.refresh()
    const models = engine.models.list().filter(({ entry }) => entry.drawing)
    return models.length > 0 && models.every(({ bodyHash }) => bodyHash !== null)
  })
