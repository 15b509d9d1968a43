/** Pictures made of others, through a farm: by what is on them, to the byte, and what is refused. */
import { decode } from 'fast-png'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { textsOf } from '../../src/artifacts/texts.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import type { Answer } from '../support/http.ts'
import { eventually } from '../support/wait.ts'

let farm: Farm
beforeAll(async () => {
  farm = await startFarm({ workers: 1 })
})
afterAll(() => farm[Symbol.asyncDispose]())

type Fields = Record<string, unknown>

const fetched = async (sha256: string): Promise<Buffer> => (await farm.client.get(`/v1/artifacts/${sha256}`)).bytes
const thumbnailOf = async (sha256: string): Promise<Buffer> => (await farm.client.get(`/v1/artifacts/${sha256}?size=256`)).bytes
const sent = async (file: Buffer): Promise<string> =>
  (await farm.client.request('POST', '/v1/artifacts', { headers: { 'Content-Type': 'image/png' }, body: file })).json.sha256 as string
const asked = (verb: 'upscale' | 'enhance' | 'convert', body: Fields): Promise<Answer> =>
  farm.client.post(`/v1/images/${verb}`, body, { Prefer: 'wait=60' })
const done = async (verb: 'upscale' | 'enhance' | 'convert', body: Fields) => {
  const { status, json } = await asked(verb, body)
  expect({ status, json }).toMatchObject({ status: 200 })
  const [image] = json.images as { sha256: string; url: string; bytes: number; mediaType: string }[]
  if (!image) throw new Error('there is no picture')
  return { ...(json as { before: Measures; after: Measures; quality: number | null }), image, file: await fetched(image.sha256) }
}
interface Measures {
  sharpness: number
  noise: number
  clipping: { dark: number; light: number }
}

const [width, height] = [96, 64]
/** A dull picture: an orange box on grey, with noise from a generator of its own, and a little transparent or not. */
function scene(alpha?: number): Promise<Buffer> {
  const channels = alpha === undefined ? 3 : 4
  const pixels = Buffer.alloc(width * height * channels)
  let state = 1
  for (let at = 0; at < width * height; at++) {
    state = (state * 48_271) % 2_147_483_647
    const noise = (state % 31) - 15
    const isBox = at % width > 30 && at % width < 70 && at > 16 * width && at < 44 * width
    for (const [channel, value] of (isBox ? [170, 110, 80] : [120, 118, 116]).entries()) pixels[at * channels + channel] = value + noise
    if (alpha !== undefined) pixels[at * channels + 3] = at < width * 8 ? alpha : 255
  }
  return sharp(pixels, { raw: { width, height, channels } }).png().toBuffer()
}
/** Mean of each channel over all of a picture. */
function means(file: Buffer): number[] {
  const { data, channels } = decode(file)
  const sums = Array.from({ length: channels }, () => 0)
  for (let i = 0; i < data.length; i++) sums[i % channels] = (sums[i % channels] ?? 0) + (data[i] ?? 0)
  return sums.map((sum) => sum / (data.length / channels))
}
const spread = (values: number[]): number => Math.max(...values) - Math.min(...values)

describe('a picture that is enhanced', () => {
  let dull: string
  let before: number[]
  beforeAll(async () => {
    dull = await sent(await scene())
    before = means(await fetched(dull))
  })

  it('is sharper, or has less noise, by the figures before and after, which are those of the files', async () => {
    const sharpened = await done('enhance', { picture: dull, sharpen: 0.8 })
    expect(sharpened.after.sharpness).toBeGreaterThan(1.5 * sharpened.before.sharpness)
    const [little, much] = [await done('enhance', { picture: dull, denoise: 0.3 }), await done('enhance', { picture: dull, denoise: 1 })]
    expect(little.after.noise).toBeLessThan(0.8 * little.before.noise)
    expect(much.after.noise).toBeLessThan(0.5 * little.after.noise)
    expect(little.before).toEqual(sharpened.before)
    // Measured again, what came out is what went in.
    const again = await done('enhance', { picture: much.image.sha256, denoise: 0 })
    expect(again.before).toEqual(much.after)
    expect(decode(again.file).data).toEqual(decode(much.file).data)
  })

  it('has other colours and levels, as far as was said, either way', async () => {
    const of = async (more: Fields) => means((await done('enhance', { picture: dull, ...more })).file)
    const warm = await of({ temperature: 0.5 })
    const cold = await of({ temperature: -0.5 })
    expect([(warm[0] ?? 0) - (before[0] ?? 0), (warm[2] ?? 0) - (before[2] ?? 0)].map(Math.sign)).toEqual([1, -1])
    expect([(cold[0] ?? 0) - (before[0] ?? 0), (cold[2] ?? 0) - (before[2] ?? 0)].map(Math.sign)).toEqual([-1, 1])
    expect(spread(await of({ saturation: -1 }))).toBeLessThan(1)
    expect(spread(await of({ saturation: 0.6 }))).toBeGreaterThan(1.3 * spread(before))
    const flat = await done('enhance', { picture: dull, contrast: -1 })
    expect(flat.after).toMatchObject({ sharpness: 0, noise: 0 })
    const level = await sharp((await done('enhance', { picture: dull, autoLevels: 1 })).file).stats()
    const own = await sharp(await fetched(dull)).stats()
    expect(level.channels[0]?.stdev ?? 0).toBeGreaterThan(1.3 * (own.channels[0]?.stdev ?? 0))
  })

  it('has grain of its seed: the same again to the byte, and of another seed another', async () => {
    const grained = (seed: number) => done('enhance', { picture: dull, grain: { strength: 0.3, seed }, quality: 'best' })
    const [one, same, other] = [await grained(5), await grained(5), await grained(6)]
    expect(one.after.noise).toBeGreaterThan(one.before.noise)
    expect(same.image.sha256).toBe(one.image.sha256)
    expect(other.image.sha256).not.toBe(one.image.sha256)
    for (const [i, mean] of means(one.file).entries()) expect(Math.abs(mean - (means(other.file)[i] ?? 0))).toBeLessThan(1)
  })

  it('stays as transparent as it was', async () => {
    const clear = await sent(await scene(100))
    const { file } = await done('enhance', { picture: clear, sharpen: 1, autoLevels: 1 })
    const alphas = (png: Buffer): number[] => [...decode(png).data].filter((_, i) => i % 4 === 3)
    expect(alphas(file)).toEqual(alphas(await fetched(clear)))
    expect(decode(file).data).not.toEqual(decode(await fetched(clear)).data)
  })
})

describe('a picture that is converted', () => {
  /** Drawn by the farm, with a receipt. */
  let drawn: string
  beforeAll(async () => {
    const [sha256 = ''] = await farm.pictures(await farm.submit({ prompt: 'a café, 猫', seed: 3 }))
    drawn = sha256
  })

  it.each(['jpeg', 'webp', 'avif', 'png'] as const)(
    'is a %s that looks the same and tells of its request, with a thumbnail',
    async (format) => {
      const { image, file } = await done('convert', { picture: drawn, format, ...(format !== 'png' && { quality: 'best' }) })
      expect(image).toMatchObject({ mediaType: `image/${format}`, bytes: file.length, url: `/v1/artifacts/${image.sha256}` })
      expect(await sharp(file).metadata()).toMatchObject({ format: format === 'avif' ? 'heif' : format, width: 64, height: 64 })
      const texts = textsOf(file).texts
      expect(texts.get('parameters')).toBe(textsOf(await fetched(drawn)).texts.get('parameters'))
      expect(JSON.parse(texts.get('darkroom') ?? '')).toMatchObject({
        workflow: 'image-generation@1',
        input: { prompt: 'a café, 猫', seed: 3 },
        postprocess: [{ convert: { format } }],
        editor: expect.stringMatching(/^sharp \d/),
      })
      const { json } = await farm.client.get(`/v1/artifacts/${image.sha256}/request`)
      expect(json).toMatchObject({ source: 'darkroom', unread: [], input: { seed: 3, postprocess: [{ convert: { format } }] } })
      expect(await sharp(await thumbnailOf(image.sha256)).metadata()).toMatchObject({ format: 'webp', width: 64 })
      const raw = (from: Buffer): Promise<Buffer> => sharp(from).greyscale().raw().toBuffer()
      const [a, b] = [await raw(file), await raw(await fetched(drawn))]
      const off = a.reduce((sum, value, i) => sum + Math.abs(value - (b[i] ?? 0)), 0) / a.length
      // Of brightness: the picture is noise, whose colours no encoder keeps. A PNG is exact.
      expect(off).toBeLessThan(format === 'png' ? 1e-9 : 25)
    },
  )

  it('has as much quality as fits, and the same again to the byte', async () => {
    const free = await done('convert', { picture: drawn, format: 'webp', quality: 95, metadata: 'strip' })
    const maxBytes = Math.round(free.image.bytes * 0.6)
    const fitted = await done('convert', { picture: drawn, format: 'webp', quality: 95, metadata: 'strip', maxBytes })
    expect(fitted.file.length).toBeLessThanOrEqual(maxBytes)
    expect(fitted.quality ?? 0).toBeLessThan(95)
    expect(textsOf(fitted.file).texts.size).toBe(0)
    // One more would not have fitted, and the same quality without a limit is the same file.
    const next = await done('convert', { picture: drawn, format: 'webp', quality: (fitted.quality ?? 0) + 1, metadata: 'strip' })
    expect(next.image.bytes).toBeGreaterThan(maxBytes)
    const plain = await done('convert', { picture: drawn, format: 'webp', quality: fitted.quality, metadata: 'strip' })
    expect(plain.image.sha256).toBe(fitted.image.sha256)
  })

  it('keeps the text that other programs read, where the receipt is to go', async () => {
    const { file } = await done('convert', { picture: drawn, format: 'jpeg', metadata: 'reduce' })
    expect([...textsOf(file).texts.keys()]).toEqual(['parameters'])
  })

  it('of a transparent one lies on the background in a JPEG, and stays transparent in others', async () => {
    const clear = await sent(
      await sharp({ create: { width: 32, height: 32, channels: 4, background: { r: 0, g: 0, b: 0, alpha: 0 } } })
        .png()
        .toBuffer(),
    )
    const onGreen = await done('convert', { picture: clear, format: 'jpeg', background: '#00ff00', quality: 100 })
    const [r = 0, g = 0, b = 0] = await sharp(onGreen.file).raw().toBuffer()
    expect([r < 6, g > 249, b < 6]).toEqual([true, true, true])
    expect((await sharp((await done('convert', { picture: clear, format: 'webp' })).file).stats()).isOpaque).toBe(false)
  })

  const long = 'p'.repeat(8000)
  it.each([
    ['a limit that cannot be met', { format: 'webp', maxBytes: 50 }, 'maxBytes', /even at quality 1, and maxBytes allows 50/],
    ['a limit that a PNG is above', { format: 'png', maxBytes: 50 }, 'maxBytes', /as png it has \d+ bytes, and/],
    ['quality of a PNG', { format: 'png', quality: 'best' }, 'quality', /must be left out for png/],
    ['a format that there is not', { format: 'gif' }, 'format', /./],
    ['no format', {}, 'format', /./],
    ['a quality beyond', { format: 'jpeg', quality: 101 }, 'quality', /./],
    ['a background that is no colour', { format: 'jpeg', background: 'url(x)' }, 'background', /colour like #ffffff/],
    ['a field that there is not', { format: 'jpeg', icc: 'p3' }, 'icc', /no such field/],
    ['a picture of nobody', { format: 'jpeg', picture: '0'.repeat(64) }, 'picture', /no picture/],
    ['a path', { format: 'jpeg', picture: '../../etc/passwd' }, 'picture', /64 hex digits/],
    ['a name that is a program', { format: 'jpeg', picture: long }, 'picture', /64 hex digits/],
  ] as [string, Fields, string, RegExp][])('is refused: %s', async (_, more, field, says) => {
    const { json } = await asked('convert', { picture: drawn, ...more })
    const problems = (json.problems ?? [{ field: json.field, message: json.detail }]) as { field: string; message: string }[]
    expect({ json, found: problems.find((problem) => problem.field === field)?.message ?? '' }).toMatchObject({
      json: { status: expect.any(Number), remedy: expect.stringMatching(/\w/) },
      found: expect.stringMatching(says),
    })
  })

  it.each([
    ['a strength beyond', { sharpen: 1.1 }, 'sharpen'],
    ['a strength below', { denoise: -0.1 }, 'denoise'],
    ['no number', { contrast: 'much' }, 'contrast'],
    ['grain without a strength', { grain: { seed: 1 } }, 'grain.strength'],
    ['a seed beyond', { grain: { strength: 1, seed: 2 ** 53 } }, 'grain.seed'],
    ['a quality that there is not', { quality: 'ultra' }, 'quality'],
  ] as [string, Fields, string][])('and enhanced is refused: %s', async (_, more, field) => {
    const { status, json } = await asked('enhance', { picture: drawn, ...more })
    expect({ status, fields: [...new Set((json.problems as { field: string }[]).map((problem) => problem.field))] }).toEqual({
      status: 422,
      fields: [field],
    })
  })

  it('is no picture to begin from, and that is said', async () => {
    const { image } = await done('convert', { picture: drawn, format: 'jpeg' })
    const { json } = await asked('enhance', { picture: image.sha256 })
    expect(json).toMatchObject({ code: 'artifact.unknown', field: 'picture', detail: expect.stringMatching(/of type image\/jpeg/) })
  })
})

describe('analytics', () => {
  const countsOf = async (): Promise<Map<string, number>> => {
    const { operations } = (await farm.client.get('/v1/images/analytics')).json as {
      operations: { step: string; by: string | null; count: number }[]
    }
    return new Map(operations.map(({ step, by, count }) => [by === null ? step : `${step} ${by}`, count]))
  }

  it('tell of each step that ended, by route and client', async () => {
    const [before, picture] = [await countsOf(), await sent(await scene())]
    await done('enhance', { picture, sharpen: 0.4 })
    await done('convert', { picture, format: 'webp' })
    await done('upscale', { picture, upscaler: 'bicubic' })
    await eventually('they are counted', async () => {
      const now = await countsOf()
      return ['enhance', 'convert webp', 'upscale bicubic'].every((name) => now.get(name) === (before.get(name) ?? 0) + 1)
    })
    const { json } = await farm.client.get('/v1/images/analytics?days=2')
    const [enhance] = (json.operations as Fields[]).filter(({ step }) => step === 'enhance')
    expect(enhance).toMatchObject({
      by: null,
      before: { sharpness: expect.any(Number) as number },
      after: { noise: expect.any(Number) as number },
    })
    expect((await farm.client.get('/v1/images/analytics?days=32')).json).toMatchObject({ code: 'api.invalid', field: 'days' })
  })
})

describe('a chain in one request', () => {
  const postprocess = [
    { upscale: { factor: 1.5 }, keep: true },
    { enhance: { sharpen: 0.5, grain: { strength: 0.1 } }, keep: true },
    { convert: { format: 'webp' } },
  ]
  type Image = { sha256: string; mediaType: string; seed: number; stages: { step: string; picture?: { sha256: string; url: string } }[] }
  const imagesOf = async (id: string): Promise<Image[]> => (await farm.until(id, 'succeeded')).output?.images as unknown as Image[]

  it('is what its steps do one by one, and each image what it is alone', async () => {
    const images = await imagesOf(await farm.submit({ seed: 20, count: 2, postprocess }))
    expect(images.map(({ seed, mediaType }) => [seed, mediaType])).toEqual([
      [20, 'image/webp'],
      [21, 'image/webp'],
    ])
    const [, second] = images
    expect(second?.stages.map(({ step, picture }) => [step, picture !== undefined])).toEqual([
      ['draw', true],
      ['upscale', true],
      ['enhance', true],
      ['convert', false],
    ])
    const [alone] = await imagesOf(await farm.submit({ seed: 21, postprocess }))
    expect(alone).toEqual(second)
    const [drawn, larger, enhanced] = second?.stages.map(({ picture }) => picture?.sha256 ?? '') ?? []
    expect((await done('upscale', { picture: drawn, factor: 1.5 })).image).toMatchObject({ sha256: larger, width: 96, height: 96 })
    const own = await done('enhance', { picture: larger, sharpen: 0.5, grain: { strength: 0.1, seed: 21 } })
    expect(own.image.sha256).toBe(enhanced)
    expect((await done('convert', { picture: enhanced, format: 'webp' })).image.sha256).toBe(second?.sha256)
    // What is drawn is what is drawn without any of it; and the finished picture's own request makes it again.
    expect(await farm.pictures(await farm.submit({ seed: 21 }))).toEqual([drawn])
    const { json } = await farm.client.get(`/v1/artifacts/${second?.sha256}/request`)
    const { id } = (await farm.client.post('/v1/sessions', { workflow: 'image-generation', input: json.input })).json
    expect((await imagesOf(id)).map(({ sha256 }) => sha256)).toEqual([second?.sha256])
  })

  it('keeps no picture between that was not asked for', async () => {
    const [image] = await imagesOf(
      await farm.submit({ seed: 30, postprocess: [{ enhance: { sharpen: 1 } }, { convert: { format: 'avif' } }] }),
    )
    expect(image?.stages.map(({ picture }) => picture !== undefined)).toEqual([true, false, false])
    const id = (await farm.client.get('/v1/sessions?limit=1')).json.sessions[0].id as string
    expect(await farm.receipt(id)).toMatchObject({
      steps: expect.arrayContaining([expect.objectContaining({ step: 'postprocessing.convert' })]),
    })
  })

  it.each([
    ['nothing', [], 'input.postprocess', /name something/],
    ['two at once', [{ enhance: {}, convert: { format: 'png' } }], 'input.postprocess.0', /one of `upscale`, `enhance` and `convert`/],
    ['none', [{ keep: true }], 'input.postprocess.0', /one of/],
    ['a format before the end', [{ convert: { format: 'jpeg' } }, { enhance: {} }], 'input.postprocess.0.convert', /stand last/],
    ['a quality of a PNG', [{ convert: { format: 'png', quality: 5 } }], 'input.postprocess.0.convert.quality', /left out/],
    ['what there is not', [{ paint: {} }], 'input.postprocess.0.paint', /no such field/],
    ['a strength beyond', [{ enhance: { sharpen: 2 } }], 'input.postprocess.0.enhance.sharpen', /./],
    ['too much', Array.from({ length: 9 }, () => ({ enhance: {} })), 'input.postprocess', /at most 8/],
  ] as [string, Fields[], string, RegExp][])('is refused: %s', async (_, stages, field, says) => {
    const { status, json } = await farm.client.post('/v1/sessions', {
      workflow: 'image-generation',
      input: { prompt: 'x', postprocess: stages },
    })
    const problems = json.problems as { field: string; message: string }[]
    expect({ status, found: problems?.find((problem) => problem.field === field)?.message ?? JSON.stringify(json) }).toMatchObject({
      status: 422,
      found: expect.stringMatching(says),
    })
  })

  it('fails by name where a limit of bytes cannot be met, and what was drawn can be fetched', async () => {
    const id = await farm.submit({ seed: 50, postprocess: [{ convert: { format: 'webp', maxBytes: 10 } }] })
    const failed = await farm.until(id, 'failed')
    expect(failed.error).toMatchObject({ code: 'postprocessing.over_limit', field: 'maxBytes' })
    const [drawn = ''] = await farm.pictures(await farm.submit({ seed: 50 }))
    expect((await fetched(drawn)).subarray(1, 4).toString()).toBe('PNG')
  })
})
