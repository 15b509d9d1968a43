/** The steps that a request of `image-generation` becomes, with a picture to begin from and without. */
import { describe, expect, it } from 'vitest'
import { PureMachine, type Document } from '../../src/engine/transition.ts'
import { imageGeneration } from '../../src/workflows/built-in/image-generation.ts'
import { Course } from '../support/course.ts'

const machine = new PureMachine(imageGeneration.machine)
const hash = (digit: string): string => digit.repeat(64)
const plain = {
  model: 'm',
  modelHash: hash('a'),
  prompt: 'p',
  negativePrompt: '',
  width: 64,
  height: 64,
  steps: 8,
  guidance: 3,
  seed: 7,
  sampler: 'DDIM',
  count: 2,
  pin: 'class',
}
const picture = { sha256: hash('b'), width: 40, height: 30 }
const mask = { source: 'alpha', invert: false, grow: 0, blur: 4, fill: 'original', area: 'whole', padding: 32 }
const exactness = { key: '01234567', facts: {} }

const begun = (input: object): Course => new Course(machine, input).ends('inference.encode', { conditioning: hash('c') })
const denoised = { latents: hash('e'), exactness }

describe('image-generation', () => {
  it('asks for no more than before where there is no picture, also in a session from before there were any', () => {
    const fresh = new Course(machine, plain)
    const old = JSON.parse(JSON.stringify(fresh.document)) as Document & { context: { pictureLatents?: unknown } }
    delete old.context.pictureLatents
    for (const course of [fresh, new Course(machine, plain, old)]) {
      course.ends('inference.encode', { conditioning: hash('c') })
      const { input } = course.open('inference.denoise')
      const { modelHash: _, count: _count, pin: _pin, ...rest } = plain
      expect(input).toEqual({ ...rest, model: { id: 'm', bodyHash: hash('a') }, conditioning: hash('c') })
      course.ends('inference.denoise', denoised)
      expect(Object.keys(course.open('inference.decode').input)).toEqual(['model', 'width', 'height', 'latents'])
    }
  })

  it('begins with what draws; a session whose model an earlier version was still to look for goes on', () => {
    const fresh = new Course(machine, plain)
    const effects = { 'step/resolve': { suffix: '1.0', step: 'model.resolve', input: { model: { id: 'm', bodyHash: hash('a') } } } }
    const old: Document = { ...fresh.document, value: 'resolving', effects }
    const { input } = fresh.open('inference.encode')
    expect(new Course(machine, plain, old).ends('model.resolve', {}).open('inference.encode').input).toEqual(input)
  })

  it('encodes a picture once for all images, and hands its latents to each', () => {
    const course = begun({ ...plain, picture, strength: 0.5, resize: 'crop' })
    expect(course.open('inference.encode_picture').input).toEqual({
      model: { id: 'm', bodyHash: hash('a') },
      width: 64,
      height: 64,
      picture,
      resize: 'crop',
    })
    course.ends('inference.encode_picture', { pictureLatents: hash('d') })
    for (const seed of [7, 8]) {
      const { input } = course.open('inference.denoise')
      expect(input).toMatchObject({ seed, picture, strength: 0.5, resize: 'crop', pictureLatents: hash('d') })
      course.ends('inference.denoise', denoised)
      expect(course.open('inference.decode').input).not.toHaveProperty('picture')
      course.ends('inference.decode', { pixels: hash('f'), width: 64, height: 64 })
    }
  })

  it('gives a masked picture to what pastes it back', () => {
    const course = begun({ ...plain, picture, strength: 0.5, resize: 'crop', mask })
    course.ends('inference.encode_picture', { pictureLatents: hash('d') }).ends('inference.denoise', denoised)
    expect(course.open('inference.decode').input).toMatchObject({ picture, resize: 'crop', mask, latents: hash('e') })
  })

  it('makes the latents of a picture again when they are gone', () => {
    const course = begun({ ...plain, picture, strength: 0.5, resize: 'crop' }).ends('inference.encode_picture', {
      pictureLatents: hash('d'),
    })
    course.fails('inference.denoise', 'artifact.missing').ends('inference.encode', { conditioning: hash('c') })
    course.ends('inference.encode_picture', { pictureLatents: hash('9') })
    expect(course.open('inference.denoise').input).toMatchObject({ pictureLatents: hash('9') })
  })

  const hires = { width: 128, height: 128, upscaler: 'latent', steps: 6, strength: 0.5 }

  it('pins the upscaler of a second pass before anything is drawn, and hands it on', () => {
    const open = new Course(machine, { ...plain, hires: { ...hires, upscaler: { id: 'up', bodyHash: null } } })
    expect(open.open('model.hash').input).toEqual({ model: { id: 'up', bodyHash: null, kind: 'upscaler' } })
    open.ends('model.hash', { model: { id: 'up', bodyHash: hash('f') } }).ends('inference.encode', { conditioning: hash('c') })
    open.ends('inference.denoise', denoised)
    expect(open.open('inference.enlarge').input).toMatchObject({ upscaler: { id: 'up', bodyHash: hash('f') } })
  })

  it('draws twice where a second pass is asked for: what the first drew, larger', () => {
    const course = begun({ ...plain, schedule: 'Karras', hires: { ...hires, sampler: 'Euler', prompt: 'p, large' } })
    expect(course.open('inference.denoise').input).not.toHaveProperty('hires')
    course.ends('inference.denoise', denoised)
    expect(course.open('inference.enlarge').input).toEqual({
      model: { id: 'm', bodyHash: hash('a') },
      from: { width: 64, height: 64 },
      width: 128,
      height: 128,
      upscaler: 'latent',
      latents: hash('e'),
    })
    course.ends('inference.enlarge', { pictureLatents: hash('1') })
    const { input } = course.open('inference.denoise')
    // Twelve steps, of which half are drawn; with a prompt of its own the conditioning of the other is none.
    expect(input).toMatchObject({
      width: 128,
      height: 128,
      steps: 12,
      strength: 0.5,
      sampler: 'Euler',
      prompt: 'p, large',
      enlarged: true,
    })
    expect(input).toMatchObject({ pictureLatents: hash('1'), conditioning: null, seed: 7 })
    for (const field of ['schedule', 'hires', 'upscaler']) expect(input).not.toHaveProperty(field)
    course.ends('inference.denoise', { ...denoised, latents: hash('2') })
    expect(course.open('inference.decode').input).toMatchObject({ width: 128, height: 128, latents: hash('2') })
    course.ends('inference.decode', { pixels: hash('f'), width: 128, height: 128 })
    expect(course.open('postprocessing.save').input).toMatchObject({ width: 128, request: { seed: 7, hires: { steps: 6 } } })
    // The next image begins small again.
    expect(course.open('inference.denoise').input).toMatchObject({ seed: 8, width: 64, steps: 8 })
  })

  it('hears the conditioning of the first pass where the second has the same texts', () => {
    const course = begun({ ...plain, hires })
      .ends('inference.denoise', denoised)
      .ends('inference.enlarge', { pictureLatents: hash('1') })
    expect(course.open('inference.denoise').input).toMatchObject({ conditioning: hash('c'), sampler: 'DDIM' })
  })

  it('draws each region over what was drawn before it', () => {
    const box = { left: 8, top: 16, width: 24, height: 24 }
    const detail = [
      { source: box, strength: 0.5, width: 64, height: 64, padding: 8, blur: 4, prompt: 'an eye' },
      { source: picture, strength: 0.25, width: 96, height: 96, padding: 0, blur: 2 },
    ]
    const course = begun({ ...plain, count: 1, detail }).ends('inference.denoise', denoised)
    const first = { sha256: hash('f'), width: 64, height: 64 }
    course.ends('inference.decode', { pixels: first.sha256, width: 64, height: 64 })
    const mask = { source: box, invert: false, grow: 0, blur: 4, fill: 'original', area: 'masked', padding: 8 }
    const region = { model: { id: 'm', bodyHash: hash('a') }, width: 64, height: 64, picture: first, mask, drawn: true }
    expect(course.open('inference.encode_picture').input).toEqual(region)
    course.ends('inference.encode_picture', { pictureLatents: hash('1') })
    expect(course.open('inference.denoise').input).toMatchObject({
      picture: first,
      mask,
      strength: 0.5,
      prompt: 'an eye',
      conditioning: null,
    })
    expect(course.open('inference.denoise').input).not.toHaveProperty('detail')
    course.ends('inference.denoise', { ...denoised, latents: hash('2') })
    expect(course.open('inference.decode').input).toEqual({ ...region, latents: hash('2') })
    const second = { sha256: hash('9'), width: 64, height: 64 }
    course.ends('inference.decode', { pixels: second.sha256, width: 64, height: 64 })
    expect(course.open('inference.encode_picture').input).toMatchObject({
      picture: second,
      width: 96,
      mask: { source: picture, area: 'masked' },
    })
    course.ends('inference.encode_picture', { pictureLatents: hash('3') }).ends('inference.denoise', denoised)
    course.ends('inference.decode', { pixels: hash('8'), width: 64, height: 64 })
    expect(course.open('postprocessing.save').input).toMatchObject({ pixels: hash('8'), request: { detail } })
  })

  it.each(['inference.enlarge', 'inference.encode_picture'])('draws an image again whose tensors are gone in %s', (step) => {
    const detail = [{ source: picture, strength: 0.5, width: 64, height: 64, padding: 8, blur: 4 }]
    const course = begun({ ...plain, hires, detail }).ends('inference.denoise', denoised)
    if (step !== 'inference.enlarge') {
      course.ends('inference.enlarge', { pictureLatents: hash('1') }).ends('inference.denoise', denoised)
      course.ends('inference.decode', { pixels: hash('f'), width: 128, height: 128 })
    }
    course.fails(step, 'artifact.missing').ends('inference.encode', { conditioning: hash('c') })
    expect(course.open('inference.denoise').input).toMatchObject({ seed: 7, width: 64 })
    course.ends('inference.denoise', denoised)
    expect(course.open('inference.enlarge').input).toMatchObject({ latents: hash('e') })
  })

  it('goes on in sessions from before there were second passes and regions', () => {
    const fresh = begun({ ...plain, count: 1 }).ends('inference.denoise', denoised)
    const old = JSON.parse(JSON.stringify(fresh.document)) as Document & { context: Record<string, unknown> }
    for (const field of ['enlarged', 'drawn', 'region']) delete old.context[field]
    const course = new Course(machine, plain, old).ends('inference.decode', { pixels: hash('f'), width: 64, height: 64 })
    expect(course.open('postprocessing.save').input).toMatchObject({ pixels: hash('f'), width: 64, workflow: 'image-generation@1' })
  })

  it('is never less far than it was', () => {
    const detail = [{ source: picture, strength: 0.5, width: 64, height: 64, padding: 8, blur: 4 }]
    const course = begun({ ...plain, count: 1, hires, detail })
    const order: [string, object][] = [
      ['inference.denoise', denoised],
      ['inference.enlarge', { pictureLatents: hash('1') }],
      ['inference.denoise', denoised],
      ['inference.decode', { pixels: hash('f'), width: 128, height: 128 }],
      ['inference.encode_picture', { pictureLatents: hash('3') }],
      ['inference.denoise', denoised],
      ['inference.decode', { pixels: hash('8'), width: 128, height: 128 }],
    ]
    const fractions = order.flatMap(([step, output]) => {
      const far = [0, 0.5, 1].map((part) => imageGeneration.progress(course.document.context, step, part).fraction)
      course.ends(step, output)
      return far
    })
    expect(fractions).toEqual(fractions.toSorted((a, b) => a - b))
    expect(fractions[0]).toBeCloseTo(0.03)
    expect(fractions.at(-1)).toBeCloseTo(0.93)
    // The first pass is a small part of the whole: 64² · 8 of 64² · 8 + 128² · 6 + 64² · 4.
    expect(fractions[2]).toBeCloseTo(0.03 + (0.9 * 8) / (8 + 24 + 4))
  })

  it('pins the model and each ControlNet that nobody has hashed, one after the other, before it draws', () => {
    const acts = { picture, resize: 'crop', weight: 1, start: 0, end: 1, mode: 'balanced' }
    const of = (id: string, bodyHash: string | null) => ({ ...acts, model: { id, bodyHash } })
    const control = [of('edges', null), of('depth', hash('d')), of('m', null), of('edges', null)]
    const course = new Course(machine, { ...plain, modelHash: null, control })
    const hashed = (id: string, digit: string, kind?: string): void => {
      expect(course.open('model.hash').input).toEqual({ model: { id, bodyHash: null, ...(kind && { kind }) } })
      course.ends('model.hash', { model: { id, bodyHash: hash(digit) } })
    }
    hashed('m', 'a')
    hashed('edges', '1', 'controlnet')
    hashed('m', '2', 'controlnet')
    course.ends('inference.encode', { conditioning: hash('c') })
    expect(course.open('inference.denoise').input).toMatchObject({
      model: { id: 'm', bodyHash: hash('a') },
      control: [of('edges', hash('1')), of('depth', hash('d')), of('m', hash('2')), of('edges', hash('1'))],
    })
  })

  it('enlarges an image behind its save, on the device, by a network that it has pinned, while the next is drawn', () => {
    const upscaler = { id: 'x2', bodyHash: null }
    const postprocess = [
      { does: { upscale: { upscaler, width: 128, height: 128, tile: 64 } }, keep: true },
      { does: { enhance: { grain: { strength: 0.1 } } }, keep: false },
    ]
    const course = new Course(machine, { ...plain, postprocess })
    expect(course.open('model.hash').input).toEqual({ model: { id: 'x2', bodyHash: null, kind: 'upscaler' } })
    course.ends('model.hash', { model: { id: 'x2', bodyHash: hash('7') } }).ends('inference.encode', { conditioning: hash('c') })
    expect(course.open('inference.denoise').input).not.toHaveProperty('postprocess')
    course.ends('inference.denoise', denoised).ends('inference.decode', { pixels: hash('f'), width: 64, height: 64 })
    const [drawn, large, last] = ['1', '2', '3'].map((digit) => {
      const side = digit === '1' ? 64 : 128
      return { sha256: hash(digit), mediaType: 'image/png', width: side, height: side, bytes: 9 }
    })
    course.ends('postprocessing.save', { ...drawn, seed: 7 })
    const pinned = { id: 'x2', bodyHash: hash('7') }
    const small = { sha256: hash('1'), width: 64, height: 64 }
    expect(course.open('postprocessing.upscale').input).toEqual({ picture: small, upscaler: pinned, width: 128, height: 128, tile: 64 })
    expect(course.open('inference.denoise').input).toMatchObject({ seed: 8 })
    course.ends('postprocessing.upscale', {
      pixels: hash('4'),
      width: 128,
      height: 128,
      hasAlpha: false,
      network: 'ESRGAN',
      tile: 64,
      exactness,
    })
    const done = { upscale: { upscaler: pinned, width: 128, height: 128, network: 'ESRGAN', tile: 64 } }
    expect(course.open('postprocessing.keep').input).toMatchObject({ of: small, done, exactness, keep: true, pixels: hash('4') })
    course.ends('postprocessing.keep', large)
    expect(course.open('postprocessing.enhance').input).toMatchObject({
      picture: { sha256: hash('2'), width: 128, height: 128 },
      enhance: { grain: { strength: 0.1, seed: 7 } },
      keep: true,
    })
    course.ends('postprocessing.enhance', { images: [last], before: {}, after: {} })
    expect((course.document.context as { images: unknown[] }).images[0]).toMatchObject({
      ...last,
      seed: 7,
      stages: [
        { step: 'draw', picture: drawn },
        { step: 'upscale', picture: large },
        { step: 'enhance', before: {}, after: {} },
      ],
    })
  })

  it('draws an image again whose enlarged pixels are gone', () => {
    const postprocess = [{ does: { upscale: { upscaler: 'lanczos', width: 128, height: 128 } }, keep: false }]
    const course = begun({ ...plain, count: 1, postprocess })
    course.ends('inference.denoise', denoised).ends('inference.decode', { pixels: hash('f'), width: 64, height: 64 })
    course.ends('postprocessing.save', { sha256: hash('1'), mediaType: 'image/png', width: 64, height: 64, bytes: 9, seed: 7 })
    course.ends('postprocessing.upscale', {
      pixels: hash('4'),
      width: 128,
      height: 128,
      hasAlpha: false,
      network: null,
      tile: null,
      exactness,
    })
    course.fails('postprocessing.keep', 'artifact.missing')
    expect(course.open('inference.encode').input).toMatchObject({ prompt: 'p' })
  })

  it('looks at its model alone where every ControlNet is pinned', () => {
    const control = [
      { model: { id: 'edges', bodyHash: hash('1') }, picture, resize: 'crop', weight: 1, start: 0, end: 1, mode: 'balanced' },
    ]
    const course = begun({ ...plain, control })
    expect(course.open('inference.denoise').input).toMatchObject({ control })
  })
})
