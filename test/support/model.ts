/** A model for the fake child: the files discovery reads, with a few bytes of weights. Nothing here can draw. */
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Engine } from '../../src/engine/engine.ts'
import { eventually } from './wait.ts'

/** Writes a diffusers folder `<folder>/darkroom-tiny` of 64 × 64 pictures, 20 DDIM steps. */
export async function writeModel(folder: string): Promise<void> {
  const model = join(folder, 'darkroom-tiny')
  const write = async (file: string, content: unknown): Promise<void> => {
    await mkdir(join(model, file, '..'), { recursive: true })
    await writeFile(join(model, file), content instanceof Uint8Array ? content : JSON.stringify(content))
  }
  await write('model_index.json', { _class_name: 'StableDiffusionPipeline' })
  await write('unet/config.json', { sample_size: 16, in_channels: 4 })
  await write('vae/config.json', { block_out_channels: [16, 32, 64] })
  for (const part of ['text_encoder', 'tokenizer', 'scheduler']) await write(`${part}/config.json`, {})
  for (const part of ['unet', 'vae', 'text_encoder']) await write(`${part}/model.safetensors`, weights(part))
}

/** A safetensors file of one tensor, eight bytes. */
function weights(name: string): Uint8Array {
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
