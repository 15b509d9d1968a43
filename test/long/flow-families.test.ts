/** Families with flow matching over HTTP: found in a folder, drawn by the real child and killed in the middle. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { survivesKill } from '../support/exactness.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { makeMicroModels } from '../support/micro-models.ts'

const slow = 240_000
const request = { prompt: 'a star', width: 96, height: 64, steps: 100, seed: 8 }

describe('families with flow matching', () => {
  let farm: Farm
  let models = ''
  beforeAll(async () => {
    models = await mkdtemp(join(tmpdir(), 'darkroom-micro-'))
    await makeMicroModels(models, 'z-image', 'flux1')
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
