/** Models that no session has asked for are hashed while the host does nothing; what is asked for goes first. */
import { createHash } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Model } from '../../src/client/index.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { writeModel } from '../support/model.ts'
import { writeSparse } from '../support/model-tree.ts'
import { eventually, sleep } from '../support/wait.ts'

const megabyte = 2 ** 20

let farm: Farm
let models: string
beforeAll(async () => {
  farm = await startFarm({ settings: { DARKROOM_IDLE_HASH: '2mb' } })
  models = join(farm.folder, 'models')
})
afterAll(() => farm[Symbol.asyncDispose]())

const model = async (id: string): Promise<Model | undefined> => {
  const { status, json } = await farm.client.get(`/v1/models/${encodeURIComponent(id)}`)
  return status === 200 ? (json as Model) : undefined
}
const isHashed = (id: string): Promise<string> => eventually(`${id} is hashed`, async () => (await model(id))?.bodyHash ?? undefined)

describe('a model that no session has asked for', () => {
  it('is hashed in idle time, slowly', async () => {
    const path = join(models, 'vae', 'idle.safetensors')
    await mkdir(join(models, 'vae'), { recursive: true })
    const at = performance.now()
    await writeSparse(path, {
      'decoder.up_blocks.0.resnets.0.norm1.weight': [512],
      'encoder.conv_in.weight': [128, 3, 3, 3],
      'decoder.conv_in.weight': [512, 4, 3, 3],
      'quant_conv.weight': [8, 8, 1, 1],
      'decoder.more': [3 * megabyte],
    })
    const hash = await isHashed('idle')
    // Six megabytes, two a second.
    expect(performance.now() - at).toBeGreaterThan(2900)
    const weights = 512 + 128 * 27 + 512 * 36 + 64 + 3 * megabyte
    expect(hash).toBe(
      createHash('sha256')
        .update(Buffer.alloc(2 * weights))
        .digest('hex'),
    )
    expect(await model('idle')).toMatchObject({ autoV2: expect.stringMatching(/^[0-9a-f]{10}$/) as string })
  })

  it('is hashed at once when one asks, though idle time has begun with it', async () => {
    await writeModel(models, 'large', 'large')
    await writeSparse(join(models, 'large/unet/diffusion_pytorch_model.safetensors'), { unet: [40 * megabyte] })
    await eventually('it can be used', async () => (await model('large'))?.status === 'usable')
    expect((await model('large'))?.bodyHash).toBeNull()
    await sleep(5000)
    expect((await model('large'))?.bodyHash).toBeNull()
    const at = performance.now()
    const id = await farm.submit({ model: 'large' })
    expect(await farm.pictures(id)).toHaveLength(1)
    // In idle time it would take forty seconds.
    expect(performance.now() - at).toBeLessThan(30_000)
    expect((await farm.receipt(id)).steps[0]?.step).toBe('model.hash')
  })
})
