/** Families of models over HTTP: found in a folder, drawn by the real child, killed in the middle. Random weights. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { decode } from 'fast-png'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { survivesKill } from '../support/exactness.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { makeMicroModels } from '../support/micro-models.ts'

const slow = 240_000
const request = { prompt: 'a star', negativePrompt: 'a square', width: 96, height: 64, steps: 200, seed: 8 }

describe('families with a UNet', () => {
  let farm: Farm
  let models = ''
  beforeAll(async () => {
    models = await mkdtemp(join(tmpdir(), 'darkroom-micro-'))
    await makeMicroModels(models, 'sd2', 'sdxl', 'sdxl-inpainting', 'sdxl-refiner')
    farm = await startFarm({ workers: 2, real: true, settings: { DARKROOM_MODELS: models } })
  }, slow)
  afterAll(async () => {
    await farm[Symbol.asyncDispose]()
    await rm(models, { recursive: true })
  }, 60_000)

  it.each(['sd2', 'sdxl'])('%s: killed in the middle, the picture is the same', { timeout: slow }, async (model) => {
    await survivesKill(farm, { ...request, model })
  })

  it(
    'SDXL draws what is usual for it where the request says nothing, and another picture without its negative prompt',
    async () => {
      const few = { model: 'sdxl', prompt: 'a star', width: 64, height: 64, steps: 2, seed: 8 }
      const session = await farm.until(await farm.submit(few), 'succeeded', slow)
      expect(session.input).toMatchObject({ guidance: 5, sampler: 'Euler a' })
      const [zeros] = await farm.pictures(session.id, slow)
      const [other] = await farm.pictures(await farm.submit({ ...few, negativePrompt: 'a square' }), slow)
      expect(other).not.toEqual(zeros)
    },
    slow,
  )

  it(
    'SDXL is told other sizes when it is asked to, and other families refuse them',
    async () => {
      const few = { prompt: 'a star', width: 64, height: 64, steps: 2, seed: 8 }
      const sizes = { originalWidth: 300, originalHeight: 200, cropLeft: 16, negative: { originalWidth: 64 } }
      const [told] = await farm.pictures(await farm.submit({ ...few, model: 'sdxl', sizes }), slow)
      expect([told]).not.toEqual(await farm.pictures(await farm.submit({ ...few, model: 'sdxl' }), slow))
      await expect(farm.submit({ ...few, model: 'sd2', sizes })).rejects.toThrow(/422.*input\.sizes.*model sd2 is told no sizes/s)
      await expect(farm.submit({ ...few, model: 'sdxl', sizes: { cropLeft: -1 } })).rejects.toThrow(/422.*input\.sizes\.cropLeft/s)
    },
    slow,
  )

  describe('over a picture', () => {
    const size = { width: 64, height: 64 }
    const drawn = { prompt: 'a star', steps: 6, strength: 0.5, seed: 3, ...size }
    const bytesOf = async (sha256: string): Promise<Buffer> => (await farm.client.get(`/v1/artifacts/${sha256}`)).bytes
    let first = ''
    beforeAll(async () => {
      ;[first = ''] = await farm.pictures(await farm.submit({ ...size, model: 'sdxl', prompt: 'a ring', steps: 4, seed: 1 }), slow)
    }, slow)

    it(
      'a refiner goes on from what the base drew, and is refused without it',
      async () => {
        const model = 'sdxl-refiner'
        const [refined = ''] = await farm.pictures(await farm.submit({ ...drawn, model, picture: first }), slow)
        expect(decode(await bytesOf(refined)).data).not.toEqual(decode(await bytesOf(first)).data)
        const { strength: _, ...alone } = drawn
        await expect(farm.submit({ ...alone, model })).rejects.toThrow(/422.*input\.picture.*model sdxl-refiner draws over pictures alone/s)
      },
      slow,
    )

    it(
      'a model for inpainting draws inside the mask alone, and is refused without one',
      async () => {
        const model = 'sdxl-inpainting'
        const white = await sharp({ create: { ...size, channels: 3, background: 'black' } })
          .composite([{ input: { create: { width: 32, height: 64, channels: 3, background: 'white' } }, left: 32, top: 0 }])
          .png()
          .toBuffer()
        const headers = { 'Content-Type': 'image/png' }
        const source = (await farm.client.request('POST', '/v1/artifacts', { headers, body: white })).json.sha256 as string
        const [painted = ''] = await farm.pictures(await farm.submit({ ...drawn, model, picture: first, mask: { source, blur: 0 } }), slow)
        const [before, after] = [decode(await bytesOf(first)), decode(await bytesOf(painted))]
        const columns = new Set<number>()
        for (let i = 0; i < before.data.length; i++)
          if (before.data[i] !== after.data[i]) columns.add(Math.floor(i / before.channels) % before.width)
        expect(columns.size).toBeGreaterThan(16)
        expect(Math.min(...columns)).toBe(32)
        await expect(farm.submit({ ...drawn, model, picture: first })).rejects.toThrow(
          /422.*input\.mask.*model sdxl-inpainting draws behind masks alone/s,
        )
      },
      slow,
    )
  })
})
