/**
 * The promise that no other system prints: the picture is the same to the byte, whatever dies on the way. Real weights,
 * real child.
 */
import { decode } from 'fast-png'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readPngTexts } from '../../src/domains/postprocessing/png.ts'
import { survivesDrain, survivesKill } from '../support/exactness.ts'
import { startFarm, type Farm } from '../support/farm.ts'

const prompt = 'a red circle left of a blue square on yellow'
const request = { prompt, seed: 8, steps: 24 }
const slow = 240_000

describe('the real child', () => {
  let farm: Farm
  beforeAll(async () => {
    farm = await startFarm({ workers: 2, real: true })
  }, slow)
  afterAll(async () => farm[Symbol.asyncDispose](), 60_000)

  it('draws what the prompt says, and writes the request into the file', { timeout: slow }, async () => {
    const session = await farm.until(await farm.submit({ prompt, seed: 8 }), 'succeeded', slow)
    const [image] = session.output?.images ?? []
    const { bytes } = await farm.client.get(image?.url ?? '')
    const { width, height, data, channels } = decode(bytes)
    const colourAt = (x: number, y: number): string => {
      const [red = 0, green = 0, blue = 0] = data.slice((y * width + x) * channels)
      const named = { red: [220, 40, 40], blue: [40, 80, 220], yellow: [250, 215, 40] }
      const far = (colour: number[]): number => Math.hypot(red - (colour[0] ?? 0), green - (colour[1] ?? 0), blue - (colour[2] ?? 0))
      return Object.entries(named).toSorted(([, a], [, b]) => far(a) - far(b))[0]?.[0] ?? ''
    }
    expect([colourAt(4, 4), colourAt(width - 5, height - 5)]).toEqual(['yellow', 'yellow'])
    const middle = Array.from({ length: height }, (_, y) => y)
    const columns = (colour: string): number[] =>
      Array.from({ length: width }, (_, x) => x).filter((x) => middle.some((y) => colourAt(x, y) === colour))
    expect(Math.max(...columns('red'))).toBeLessThan(Math.min(...columns('blue')))

    const texts = readPngTexts(bytes)
    expect(texts['parameters']).toBe(
      `${prompt}\nSteps: 20, Sampler: ${String(session.input['sampler'])}, CFG scale: 3, Seed: 8, Size: 128x128, ` +
        `Model hash: ${String(session.input['modelHash']).slice(0, 10)}, Model: darkroom-tiny`,
    )
    const receipt = JSON.parse(texts['darkroom'] ?? '') as Record<string, unknown>
    expect(receipt).toMatchObject({ workflow: 'image-generation@1', input: { prompt, seed: 8, steps: 20 } })
    for (const private_ of [session.id, ...farm.workers.map(({ ready }) => ready), farm.folder])
      expect(texts['darkroom']).not.toContain(private_)
  })

  it('draws seed 8 of four from seed 7 as it draws seed 8 alone', { timeout: slow }, async () => {
    const [, second] = await farm.pictures(await farm.submit({ prompt, seed: 7, steps: 8, count: 4 }), slow)
    expect([second]).toEqual(await farm.pictures(await farm.submit({ prompt, seed: 8, steps: 8 }), slow))
  })

  it.each(['Euler a', 'DPM++ 2M Karras', 'Heun'])(
    '%s: killed in the middle, the picture is the same',
    { timeout: slow },
    async (sampler) => {
      await survivesKill(farm, { ...request, sampler })
      expect(farm.workersAlive()).toHaveLength(2)
    },
  )

  it('drained in the middle, the picture is the same', { timeout: slow }, async () => {
    await survivesDrain(farm, { ...request, sampler: 'Euler a' })
    expect(farm.workersAlive()).toHaveLength(2)
  })

  it('paused, then everything killed, Redis included, then started and resumed: the picture is the same', { timeout: slow }, async () => {
    const input = { ...request, sampler: 'Euler a' }
    const undisturbed = await farm.pictures(await farm.submit(input), slow)
    const id = await farm.submit(input)
    await farm.untilCall(id, 5, slow)
    expect((await farm.control(id, 'pause')).status).toBe(200)
    await farm.until(id, 'paused', slow)
    for (const worker of farm.workersAlive()) expect((await farm.vitals(worker)).sessions).not.toHaveProperty(id)
    await Promise.all([...farm.workersAlive(), ...farm.apis].map((process) => process.kill()))
    await farm.redis.kill()
    await farm.redis.restart()
    await Promise.all([...farm.apis.map((api) => api.start()), farm.addWorker(), farm.addWorker()])
    expect((await farm.get(id)).status).toBe('paused')
    expect((await farm.control(id, 'resume')).status).toBe(200)
    expect(await farm.pictures(id, slow)).toEqual(undisturbed)
    const last = (await farm.attempts(id, 'inference.denoise')).at(-1)
    expect(last?.resumedFrom?.call).toBeGreaterThanOrEqual(5)
  })
})
