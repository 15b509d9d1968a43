/** What a request for a larger picture may say, what becomes of it, and the steps that it asks for. */
import { describe, expect, it } from 'vitest'
import { PureMachine } from '../../src/engine/transition.ts'
import type { DarkroomError } from '../../src/errors.ts'
import type { Listed } from '../../src/models/listing.ts'
import { imageUpscale } from '../../src/workflows/built-in/image-upscale.ts'
import { Course } from '../support/course.ts'

const hash = (digit: string): string => digit.repeat(64)
const picture = { sha256: hash('b'), width: 40, height: 30 }
const factors: Record<string, number | undefined> = { x1: 1, x2: 2, x4: 4, odd: undefined }
const catalogueOf = (size = picture) => ({
  picture: () => Promise.resolve({ ...size, hasAlpha: true }),
  ofKind: (_kind: string, id: string) => {
    const factor = factors[id]
    return Promise.resolve({
      id,
      bodyHash: id === 'x4' ? null : hash('a'),
      entry: { verdict: { figures: { factor } } },
    } as unknown as Listed)
  },
})
const resolved = (asked: object, size = picture) =>
  imageUpscale.resolveInput(imageUpscale.input.parse({ picture: picture.sha256, ...asked }), catalogueOf(size) as never)
const refused = (asked: object, size = picture): Promise<{ field: string; message: string }[]> =>
  resolved(asked, size).then(
    () => [],
    (error: unknown) => (error as DarkroomError).details?.['problems'] as { field: string; message: string }[],
  )

describe('a request for a larger picture', () => {
  it.each([
    [{}, { upscaler: 'lanczos', width: 80, height: 60 }],
    [
      { upscaler: 'nearest', factor: 1 },
      { upscaler: 'nearest', width: 40, height: 30 },
    ],
    [
      { upscaler: 'x2', factor: 1.5 },
      { upscaler: { id: 'x2', bodyHash: hash('a') }, width: 60, height: 45 },
    ],
    [{ upscaler: 'x4' }, { upscaler: { id: 'x4', bodyHash: null }, width: 160, height: 120 }],
    [{ upscaler: 'x1' }, { upscaler: { id: 'x1', bodyHash: hash('a') }, width: 40, height: 30 }],
    [{ upscaler: 'odd' }, { upscaler: { id: 'odd', bodyHash: hash('a') }, width: 80, height: 60 }],
    [{ width: 100 }, { upscaler: 'lanczos', width: 100, height: 75 }],
    [{ height: 33 }, { upscaler: 'lanczos', width: 44, height: 33 }],
    [
      { width: 10, height: 90 },
      { upscaler: 'lanczos', width: 10, height: 90 },
    ],
    [
      { upscaler: 'x2', tile: 128 },
      { upscaler: { id: 'x2', bodyHash: hash('a') }, width: 80, height: 60, tile: 128 },
    ],
  ])('%j is made whole', async (asked, made) => {
    expect(await resolved(asked)).toEqual({ picture, ...made })
  })

  const large = { ...picture, width: 4096, height: 4096 }
  it('of 4096² pixels may be as large as 8192²', async () => {
    expect(await resolved({ upscaler: 'x2' }, large)).toMatchObject({ width: 8192, height: 8192 })
  })

  it.each([
    [{ factor: 2, width: 80 }, picture, 'input.factor', /beside a width or a height/],
    [{ tile: 64 }, picture, 'input.tile', /lanczos computes no tiles/],
    [{ factor: 2.1 }, large, 'input.factor', /8602 · 8602 = 73994404 pixels, and 67108864 are the most/],
    [{ height: 9000 }, large, 'input.height', /9000 · 9000/],
    [{ upscaler: 'x4', factor: 1.5 }, large, 'input.upscaler', /makes 268435456 pixels of it on the way/],
  ])('%j is refused by name', async (asked, size, field, words) => {
    expect(await refused(asked, size)).toEqual([{ field, message: expect.stringMatching(words) as string }])
  })
})

describe('image-upscale', () => {
  const machine = new PureMachine(imageUpscale.machine)
  const asked = { picture, upscaler: { id: 'x2', bodyHash: null }, width: 80, height: 60, tile: 128 }
  const exactness = { key: '01234567', facts: {} }
  const made = { pixels: hash('d'), width: 80, height: 60, hasAlpha: true, network: 'Compact', tile: null, exactness }
  const kept = (course: Course) => course.open('postprocessing.keep').input
  const begun = (): Course => new Course(machine, asked).ends('model.hash', { model: { id: 'x2', bodyHash: hash('a') } })

  it('pins the network, enlarges, and keeps a file that says what its pixels follow from', () => {
    const open = new Course(machine, asked)
    expect(open.open('model.hash').input).toEqual({ model: { id: 'x2', bodyHash: null, kind: 'upscaler' } })
    const course = begun()
    const upscaler = { id: 'x2', bodyHash: hash('a') }
    expect(course.open('postprocessing.upscale').input).toEqual({ ...asked, upscaler })
    const upscale = { upscaler, width: 80, height: 60, network: 'Compact' }
    expect(kept(course.ends('postprocessing.upscale', made))).toEqual({
      pixels: hash('d'),
      width: 80,
      height: 60,
      hasAlpha: true,
      of: picture,
      done: { upscale },
      exactness,
      keep: true,
    })
    expect(kept(begun().ends('postprocessing.upscale', { ...made, tile: 128 }))).toMatchObject({
      done: { upscale: { ...upscale, tile: 128 } },
    })
  })

  it('enlarges again when the pixels are gone, and not for ever', () => {
    const course = begun()
    for (let times = 0; times < 5; times++) course.ends('postprocessing.upscale', made).fails('postprocessing.keep', 'artifact.missing')
    course.ends('postprocessing.upscale', made).fails('postprocessing.keep', 'artifact.missing')
    expect(() => course.open('postprocessing.upscale')).toThrow(/is not open/)
  })
})
