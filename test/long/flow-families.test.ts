/** Families with flow matching over HTTP: found in a folder, drawn by the real child and killed in the middle. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { survivesKill } from '../support/exactness.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { makeMicroModels } from '../support/micro-models.ts'
import { shapes } from '../support/pictures.ts'

const slow = 240_000
const request = { prompt: 'a star', width: 96, height: 64, steps: 100, seed: 8 }

describe('families with flow matching', () => {
  let farm: Farm
  let models = ''
  beforeAll(async () => {
    models = await mkdtemp(join(tmpdir(), 'darkroom-micro-'))
    await makeMicroModels(models, 'z-image', 'flux1', 'flux2')
    farm = await startFarm({ workers: 2, real: true, settings: { DARKROOM_MODELS: models } })
  }, slow)
  afterAll(async () => {
    await farm[Symbol.asyncDispose]()
    await rm(models, { recursive: true })
  }, 60_000)

  it.each([
    ['z-image', { guidance: 5, negativePrompt: 'a square' }],
    ['flux1', { sampler: 'Heun' }],
  ])('%s: killed in the middle, the picture is the same', { timeout: slow }, async (model, more) => {
    await survivesKill(farm, { ...request, ...more, model })
  })

  it(
    'flux2: an edit with two pictures that is killed in the middle is the same, and its own text asks for it again',
    {
      timeout: slow,
    },
    async () => {
      const sent = async (svg: string): Promise<string> => {
        const body = await sharp(Buffer.from(svg)).resize(80, 96).png().toBuffer()
        return (await farm.client.request('POST', '/v1/artifacts', { headers: { 'Content-Type': 'image/png' }, body })).json
          .sha256 as string
      }
      const references = [await sent(shapes(96)), await sent(shapes(96).replace('#d02828', '#28d0d0'))]
      const asked = { ...request, model: 'flux2', sampler: 'Heun', guidance: 1, references }
      await survivesKill(farm, asked)
      const [both] = await farm.pictures(await farm.submit(asked), slow)
      const [one] = await farm.pictures(await farm.submit({ ...asked, references: references.slice(0, 1) }), slow)
      expect(one).not.toBe(both)
      expect((await farm.client.get(`/v1/artifacts/${both}/request`)).json).toMatchObject({ source: 'darkroom', input: { references } })
    },
  )

  it('what is left out is usual for the model', { timeout: slow }, async () => {
    const { input } = await farm.until(await farm.submit({ model: 'z-image', prompt: 'a star', seed: 8, steps: 2 }), 'succeeded', slow)
    expect(input).toMatchObject({ width: 64, height: 64, guidance: 1, sampler: 'Euler' })
  })

  it.each([
    ['flux1', { negativePrompt: 'a square' }, /422.*input\.negativePrompt.*hears no negative prompt/s],
    ['flux1', { width: 72 }, /422.*input\.width.*must be a multiple of 16 for flux1 \(FLUX\.1\), such as 80, not 72/s],
    ['z-image', { sampler: 'Euler a' }, /422.*input\.sampler.*Euler, Heun, LCM.*the nearest to Euler a is Euler/s],
  ])('%s refuses at submit what it cannot heed: %o', async (model, more, words) => {
    await expect(farm.submit({ ...request, ...more, model })).rejects.toThrow(words)
  })
})
