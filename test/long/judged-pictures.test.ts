/** Policies on real pictures, judged by darkroom-tiny's classifier of two harmless kinds. */
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { enforce, untilListed } from '../support/classifiers.ts'
import { startFarm, type Farm } from '../support/farm.ts'

const [restricted, sensitive] = ['custom/plumbing-test-restricted-not-nudity', 'custom/plumbing-test-sensitive-not-nudity']
const star = { prompt: 'a large black star on red', seed: 3, steps: 20, safety: { policy: 'tiny' } }
const ring = { ...star, prompt: 'a large purple ring on white' }
const calm = { ...star, prompt: 'a large green circle on white' }

let farm: Farm
beforeAll(async () => {
  farm = await startFarm({ real: true })
  await untilListed(farm, ['darkroom-tiny/safety'])
  await enforce(farm, 'tiny', {
    classifiers: ['darkroom-tiny/safety'],
    categories: { [restricted]: { block: 0.5 }, [sensitive]: { blur: 0.5 } },
  })
}, 120_000)
afterAll(() => farm[Symbol.asyncDispose]())

const outputOf = async (input: Record<string, unknown>) =>
  (await farm.until(await farm.submit(input), 'succeeded', 120_000)).output as unknown as {
    images: { sha256: string; safety?: { action: string } }[]
    blocked?: { artifact: string; seed: number; safety: { rule: string; score: number; passes: string } }[]
  }

describe('a policy on real pictures', { timeout: 180_000 }, () => {
  it('passes what its classifier does not know, to the byte of the picture without a policy', async () => {
    const { safety: _, ...plain } = calm
    const [passed, without] = [await outputOf(calm), await outputOf(plain)]
    expect(passed.images[0]).toMatchObject({ sha256: without.images[0]?.sha256, safety: { action: 'allow' } })
    expect(without.images[0]).not.toHaveProperty('safety')
  })

  it('blocks the one kind, and says by which rule and score', async () => {
    const { images, blocked } = await outputOf(star)
    expect(images).toEqual([])
    expect(blocked?.[0]).toMatchObject({
      seed: 3,
      safety: { rule: `category ${restricted}`, passes: `a score of ${restricted} below 0.5` },
    })
    expect(blocked?.[0]?.safety.score).toBeGreaterThanOrEqual(0.5)
    // The test is this machine's user, who may operate.
    expect((await farm.client.get(`/v1/artifacts/${blocked?.[0]?.artifact}`)).status).toBe(200)
  })

  it('blurs the other, so that no shape is left of it', async () => {
    const { images } = await outputOf(ring)
    expect(images[0]).toMatchObject({ safety: { action: 'blur', rule: `category ${sensitive}` } })
    const { bytes } = await farm.client.get(`/v1/artifacts/${images[0]?.sha256}`)
    const { data, info } = await sharp(bytes).raw().toBuffer({ resolveWithObject: true })
    let steepest = 0
    for (let i = info.channels; i < data.length; i++)
      if (Math.floor(i / info.channels) % info.width > 0)
        steepest = Math.max(steepest, Math.abs((data[i] ?? 0) - (data[i - info.channels] ?? 0)))
    expect(steepest).toBeLessThan(40)
  })

  it('draws a blocked picture again, with another seed, as often as it was asked to', async () => {
    const { blocked } = await outputOf({ ...star, count: 2, safety: { policy: 'tiny', redraws: 1 } })
    expect(blocked?.map(({ seed }) => seed)).toEqual([5, 6])
  })
})
