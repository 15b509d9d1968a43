/** Memory profiles over HTTP, with real weights: which of them move bits, and what files and receipts say of it. */
import { decode } from 'fast-png'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readPngTexts } from '../../src/domains/postprocessing/png.ts'
import { startFarm, type Farm } from '../support/farm.ts'

const slow = 240_000
/** 128 × 72 latent cells: three pieces of 64 beside one another, two above. */
const request = { prompt: 'a red circle on yellow', seed: 5, steps: 1, width: 512, height: 288, sampler: 'Euler' }

describe('a memory profile', () => {
  let farm: Farm
  beforeAll(async () => {
    farm = await startFarm({ workers: 1, real: true })
  }, slow)
  afterAll(async () => farm[Symbol.asyncDispose](), 60_000)

  async function drawn(input: object) {
    const session = await farm.submit({ ...request, ...input })
    const [sha256 = ''] = await farm.pictures(session, slow)
    const { bytes } = await farm.client.get(`/v1/artifacts/${sha256}`)
    const file = JSON.parse(readPngTexts(bytes)['darkroom'] ?? '') as {
      input: Record<string, unknown>
      exactness: { key: string; facts: { settings: Record<string, unknown> } }
    }
    const [denoise, decoded] = await Promise.all(
      ['inference.denoise', 'inference.decode'].map(async (step) => (await farm.attempts(session, step))[0]),
    )
    return { sha256, pixels: decode(bytes).data, ...file, denoise, decoded }
  }

  it('keeps the file, or says in it and in the receipt what has moved bits', { timeout: slow }, async () => {
    const auto = await drawn({})
    expect(auto.input).not.toHaveProperty('memoryProfile')
    expect(auto.decoded?.stats).toMatchObject({ memory: { profile: 'auto', offload: 'none' }, tiles: 0 })
    expect((await drawn({ memoryProfile: 'auto' })).sha256).toBe(auto.sha256)

    const balanced = await drawn({ memoryProfile: 'balanced' })
    expect(balanced.denoise?.stats).toMatchObject({ memory: { profile: 'balanced', offload: 'component' } })
    expect([balanced.pixels, balanced.exactness]).toEqual([auto.pixels, auto.exactness])

    const lowest = await drawn({ memoryProfile: 'lowest-memory' })
    expect(lowest.input).toMatchObject({ memoryProfile: 'lowest-memory' })
    expect(lowest.denoise?.stats).toMatchObject({ memory: { profile: 'lowest-memory', offload: 'blocks' } })
    expect(lowest.decoded?.stats).toMatchObject({ tiles: 6 })
    expect(lowest.exactness.facts.settings).toEqual({ ...auto.exactness.facts.settings, tiling: true })
    expect(lowest.exactness.key).toMatch(/^[0-9a-f]{8}$/)
    expect(lowest.exactness.key).not.toBe(auto.exactness.key)
    expect(lowest.pixels).not.toEqual(auto.pixels)
    expect((await drawn({ memoryProfile: 'lowest-memory' })).sha256).toBe(lowest.sha256)
  })

  it('that there is none of is refused by its field', async () => {
    const { status, json } = await farm.client.post('/v1/sessions', {
      workflow: 'image-generation',
      input: { ...request, memoryProfile: 'tiny' },
    })
    expect([status, json.code]).toEqual([422, 'api.invalid'])
    expect(JSON.stringify(json)).toMatch(/input\.memoryProfile.*highest-speed/)
  })
})
