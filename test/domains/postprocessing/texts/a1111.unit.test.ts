/** The `parameters` text: what Darkroom writes is read back equal; what others write, as far as it goes. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { samplers, schedulesOf, settle } from '../../../../src/domains/samplers.ts'
import { infotext, readInfotext } from '../../../../src/domains/postprocessing/texts/a1111.ts'
import { askedOf } from '../../../../src/domains/postprocessing/texts/receipt.ts'
import { areas, fills, ImageRequest, maxSeed, resizes, upscalers } from '../../../../src/domains/values.ts'

const hash = fc.stringMatching(/^[0-9a-f]{64}$/)
const side = fc.integer({ min: 8, max: 512 }).map((eighths) => 8 * eighths)
const share = fc.integer({ min: 1, max: 100 }).map((percent) => percent / 100)
/** A text has no form of its own but for its lines: one that looks like the next part of the grammar cannot be told. */
const prompt = fc
  .string({ unit: fc.constantFrom(...Array.from('abcé猫🐈 ,:"\\()<>[]\n\t.-_0159')), maxLength: 60 })
  .filter((text) => text.trimEnd() === text && !text.split('\n').some((line) => line.startsWith('Negative prompt: ')))
const pin = fc.record({ sha256: hash, width: fc.integer({ min: 1, max: 9999 }), height: fc.integer({ min: 1, max: 9999 }) })
const pair = fc
  .constantFrom(...samplers)
  .chain((sampler) => fc.constantFrom(...schedulesOf(sampler)).map((schedule) => settle({ sampler }, schedule)))
  .filter((settled) => typeof settled !== 'string')
  .map((settled) => JSON.parse(JSON.stringify(settled)) as object)
const some = <T>(value: fc.Arbitrary<T>, name: string): fc.Arbitrary<object> =>
  fc.option(value, { nil: undefined }).map((each) => (each === undefined ? {} : { [name]: each }))

const box = fc.record({
  left: fc.nat(99),
  top: fc.nat(99),
  width: fc.integer({ min: 1, max: 99 }),
  height: fc.integer({ min: 1, max: 99 }),
})
const texts = fc.tuple(some(prompt, 'prompt'), some(prompt, 'negativePrompt')).map((all) => Object.assign({}, ...all) as object)
const mask = fc.record({
  source: fc.oneof(pin, fc.constantFrom('alpha', 'border')),
  invert: fc.boolean(),
  grow: fc.nat(512),
  blur: fc.nat(64),
  fill: fc.constantFrom(...fills),
  area: fc.constantFrom(...areas),
  padding: fc.nat(1024),
})
const over = fc
  .tuple(fc.record({ picture: pin, strength: share, resize: fc.constantFrom(...resizes) }), some(mask, 'mask'))
  .map((all) => Object.assign({}, ...all) as object)
const hires = fc
  .tuple(
    fc.record({
      width: side,
      height: side,
      upscaler: fc.constantFrom(...upscalers),
      steps: fc.integer({ min: 1, max: 200 }),
      strength: share,
    }),
    texts,
    fc.option(pair, { nil: {} }),
  )
  .map((all) => ({ hires: Object.assign({}, ...all) as object }))
const detail = fc.array(
  fc
    .tuple(
      fc.record({ source: fc.oneof(pin, box), strength: share, width: side, height: side, padding: fc.nat(99), blur: fc.nat(64) }),
      texts,
    )
    .map((all) => Object.assign({}, ...all) as object),
  { minLength: 1, maxLength: 3 },
)
const modelPin = fc.record({ id: fc.constantFrom('ink', 'a, b: c', 'folder/style'), bodyHash: hash })
/** What leads it beside the prompt. */
const leading = fc
  .tuple(
    some(fc.constantFrom('a1111', 'comfy'), 'promptSyntax'),
    some(fc.integer({ min: 1, max: 12 }), 'clipSkip'),
    some(fc.record({ seed: fc.maxSafeNat(), strength: share }), 'variation'),
    some(share, 'guidanceRescale'),
    some(fc.constant({ start: 0.25, end: 0.75 }), 'guidanceInterval'),
    some(fc.array(fc.record({ model: modelPin, weight: share, textWeight: share }), { minLength: 1, maxLength: 2 }), 'adapters'),
    some(fc.array(fc.record({ model: modelPin, word: fc.constant('ink') }), { minLength: 1, maxLength: 2 }), 'embeddings'),
    some(
      fc.array(
        fc.record({
          model: modelPin,
          picture: pin,
          resize: fc.constantFrom('crop', 'pad'),
          preprocessor: fc.constant({ name: 'canny', low: 10, high: 20 }),
          weight: share,
          start: fc.constant(0),
          end: share,
          mode: fc.constantFrom('balanced', 'prompt'),
        }),
        { minLength: 1, maxLength: 2 },
      ),
      'control',
    ),
    some(fc.array(pin, { minLength: 1, maxLength: 4 }), 'references'),
  )
  .map((all) => Object.assign({}, ...all) as object)
const request = fc
  .tuple(
    fc.record({
      model: fc.record({ id: fc.constantFrom('darkroom-tiny', 'style, v1:2 (b)=final', '1.5', 'a "b"', ' x '), bodyHash: hash }),
      prompt,
      negativePrompt: prompt,
      width: side,
      height: side,
      steps: fc.integer({ min: 1, max: 200 }),
      guidance: fc.integer({ min: 0, max: 500 }).map((tenths) => tenths / 10),
      seed: fc.maxSafeNat().filter((seed) => seed <= maxSeed),
    }),
    pair,
    fc.oneof(fc.constant({}), over, hires),
    some(detail, 'detail'),
    leading,
    some(fc.constant({ originalWidth: 512, cropTop: 8, negative: { targetWidth: 64 } }), 'sizes'),
  )
  .map((all) => ImageRequest.parse(Object.assign({}, ...all)))

describe('the text of a request', () => {
  it('is read back equal, whatever the request has', () => {
    fc.assert(
      fc.property(request, (made) => {
        const { input, unread, modelHash } = readInfotext(infotext(made))
        expect(unread).toEqual([])
        expect(modelHash).toBe(made.model.bodyHash.slice(0, 10))
        expect(withoutUndefined(input)).toEqual(withUsual(withoutUndefined(askedOf(made))))
      }),
      { numRuns: 500 },
    )
  })

  it('has the usual names', () => {
    const made = ImageRequest.parse({
      model: { id: 'sd, v1', bodyHash: 'ab'.repeat(32) },
      prompt: 'a star',
      negativePrompt: 'blur',
      width: 64,
      height: 96,
      steps: 20,
      guidance: 7.5,
      seed: 1,
      sampler: 'Euler a',
      schedule: 'Karras',
      hires: { width: 128, height: 192, upscaler: 'latent-nearest', steps: 10, strength: 0.6, sampler: 'DDIM', prompt: 'a star, large' },
    })
    expect(infotext(made)).toBe(
      [
        'a star',
        'Negative prompt: blur',
        'Steps: 20, Sampler: Euler a, Schedule type: Karras, CFG scale: 7.5, Seed: 1, Size: 64x96, Model hash: ababababab, Model: "sd, v1", Denoising strength: 0.6, Hires resize: 128x192, Hires steps: 10, Hires upscaler: Latent (nearest-exact), Hires sampler: DDIM, Hires prompt: "a star, large"',
      ].join('\n'),
    )
  })
})

describe('ControlNets', () => {
  const [bodyHash, sha256] = ['cd'.repeat(32), 'ef'.repeat(32)]
  const control = [
    {
      model: { id: 'edges, v1', bodyHash },
      picture: { sha256, width: 8, height: 8 },
      resize: 'pad',
      preprocessor: { name: 'canny', low: 50, high: 150 },
      weight: 0.8,
      start: 0,
      end: 0.6,
      mode: 'prompt',
    },
    {
      model: { id: 'depth', bodyHash },
      picture: { sha256, width: 8, height: 8 },
      resize: 'crop',
      weight: 1,
      start: 0.25,
      end: 1,
      mode: 'control',
    },
  ]
  const made = ImageRequest.parse({
    model: { id: 'm', bodyHash },
    prompt: 'a star',
    negativePrompt: '',
    width: 64,
    height: 64,
    steps: 4,
    guidance: 7,
    seed: 1,
    sampler: 'Euler',
    control,
  })

  it('have the names of the extension', () => {
    expect(infotext(made)).toContain(
      ', ControlNet 0: "Module: canny, Model: edges  v1 [cdcdcdcd], Weight: 0.8, Resize Mode: Resize and Fill, Threshold A: 50, Threshold B: 150, Guidance Start: 0, Guidance End: 0.6, Control Mode: My prompt is more important", ControlNet 1: "Module: none, Model: depth [cdcdcdcd], Weight: 1, Resize Mode: Crop and Resize, Guidance Start: 0.25, Guidance End: 1, Control Mode: ControlNet is more important", ControlNets: ',
    )
  })

  it('of another program are named, for their pictures are not', () => {
    const theirs = infotext(made).replace(/, ControlNets: .*$/, '')
    const { input, unread } = readInfotext(theirs)
    expect(input).not.toHaveProperty('control')
    expect(unread.map(({ name }) => name)).toEqual(['ControlNet 0', 'ControlNet 1'])
    expect(unread[0]?.why).toMatch(/does not name its picture/)
  })
})

/** What is said of the mask in nothing is as it usually is. */
function withUsual<Asked extends { mask?: object }>(asked: Asked): Asked {
  if (!asked.mask) return asked
  const usual = { invert: false, grow: 0, fill: 'original', area: 'whole', padding: 32 }
  const told = Object.entries(asked.mask).filter(
    ([name, value]) =>
      !(name in usual) ||
      (name === 'padding' && 'area' in asked.mask! && asked.mask.area === 'masked') ||
      usual[name as keyof typeof usual] !== value,
  )
  return { ...asked, mask: Object.fromEntries(told) }
}
/** An empty negative prompt is not written. */
const withoutUndefined = <T extends object>(value: T): T => {
  const copy = JSON.parse(JSON.stringify(value)) as T & { negativePrompt?: string }
  if (copy.negativePrompt === '') delete copy.negativePrompt
  return copy
}

describe('the texts of others', () => {
  it('of AUTOMATIC1111’s web UI: a second pass and what there is no setting for', () => {
    const text = `masterpiece, a (red:1.2) circle, <lora:x:0.8>
on black
Negative prompt: lowres, blur
Steps: 28, Sampler: DPM++ 2M SDE Karras, CFG scale: 6.5, Seed: 123456789, Size: 512x768, Model hash: 6ce0161689, Model: v1-5-pruned-emaonly, VAE hash: 735e4c3a44, VAE: vae-ft-mse.safetensors, Denoising strength: 0.55, Clip skip: 2, Hires upscale: 1.5, Hires steps: 12, Hires upscaler: Latent (nearest-exact), Lora hashes: "x: 0123456789ab", Face restoration: "GFPGAN, v1.4", Version: v1.9.4`
    const { input, unread, modelHash } = readInfotext(text)
    expect(input).toMatchObject({
      prompt: 'masterpiece, a (red:1.2) circle, <lora:x:0.8>\non black',
      negativePrompt: 'lowres, blur',
      steps: 28,
      sampler: 'DPM++ 2M SDE',
      schedule: 'Karras',
      guidance: 6.5,
      seed: 123456789,
      width: 512,
      height: 768,
      model: 'v1-5-pruned-emaonly',
      hires: { scale: 1.5, steps: 12, upscaler: 'latent-nearest', strength: 0.55 },
    })
    expect(input).not.toHaveProperty('strength')
    expect(modelHash).toBe('6ce0161689')
    expect(input).toMatchObject({ clipSkip: 2, promptAdapters: true })
    expect(unread).toEqual([
      { name: 'VAE', value: 'vae-ft-mse.safetensors', why: expect.stringMatching(/VAE of its model/) },
      { name: 'Face restoration', value: 'GFPGAN, v1.4', why: expect.stringMatching(/no such setting/) },
    ])
  })

  it('of a picture over another: the text does not name that one', () => {
    const { input, unread } = readInfotext(
      'x\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Denoising strength: 0.4, Mask blur: 4, Inpaint area: Only masked',
    )
    for (const field of ['strength', 'mask', 'picture']) expect(input).not.toHaveProperty(field)
    expect(unread).toEqual([
      { name: 'strength', value: '0.4', why: expect.stringMatching(/send that picture/) },
      { name: 'mask', value: '{"blur":4,"area":"masked"}', why: expect.stringMatching(/send that picture/) },
    ])
  })

  it('in which a setting is none that a request may have', () => {
    const { input, unread } = readInfotext(
      'x\nSteps: many, Sampler: Warp, Schedule type: Sideways, CFG scale: 7, Seed: -1, Size: 511x512, Hires upscaler: Latent (antialiased), Hires upscale: 2',
    )
    expect(input).toEqual({ prompt: 'x', guidance: 7, height: 512, hires: { scale: 2 } })
    const why = Object.fromEntries(unread.map(({ name, why: each }) => [name, each]))
    expect(why).toMatchObject({
      Steps: expect.stringMatching(/no steps/),
      Sampler: expect.stringMatching(/no sampler "Warp"; the nearest is/),
      'Schedule type': expect.stringMatching(/no schedule "Sideways"/),
      Seed: expect.stringMatching(/no seed/),
      Size: expect.stringMatching(/no width/),
      'Hires upscaler': expect.stringMatching(/no such upscaler/),
    })
  })

  it('without a line of settings are prompts', () => {
    expect(readInfotext('a red circle\nSteps: 20, Seed: 1').input).toEqual({ prompt: 'a red circle\nSteps: 20, Seed: 1' })
    expect(readInfotext('').input).toEqual({ prompt: '' })
  })

  it.each([
    ['colons', ':'.repeat(1_000_000)],
    ['commas', ','.repeat(1_000_000)],
    ['words', 'a '.repeat(500_000)],
    ['an open quotation', `Steps: 1, Seed: 1, Size: 8x8, x: "${'\\"'.repeat(400_000)}`],
    ['pairs', 'a: b, '.repeat(150_000)],
    ['negative prompts', 'Negative prompt: \n'.repeat(50_000)],
    ['zeros', '\0'.repeat(1_000_000)],
  ])('of a million letters are read at once: %s', (_, text) => {
    const started = performance.now()
    readInfotext(text)
    readInfotext(`x\n${text}`)
    expect(performance.now() - started).toBeLessThan(2000)
  })
})
