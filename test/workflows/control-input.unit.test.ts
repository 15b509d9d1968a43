/** What a request may say of ControlNets, and what becomes of it. */
import { describe, expect, it } from 'vitest'
import { modelsOfControl } from '../../src/domains/inference/control.ts'
import type { Catalogue } from '../../src/domains/operation.ts'
import { askedOf } from '../../src/domains/postprocessing/texts/receipt.ts'
import { PureMachine } from '../../src/engine/transition.ts'
import { DarkroomError } from '../../src/errors.ts'
import { modelError } from '../../src/models/errors.ts'
import type { Listed } from '../../src/models/listing.ts'
import { allOfKind, ofKind } from '../../src/models/of-kind.ts'
import { blank, type Verdict } from '../../src/models/verdict.ts'
import { completeControl } from '../../src/workflows/built-in/control-input.ts'
import { imageGeneration } from '../../src/workflows/built-in/image-generation.ts'
import { imagePreprocess } from '../../src/workflows/built-in/image-preprocess.ts'
import { pinnedRequest, unpinned, withHash, type Pinned } from '../../src/workflows/built-in/pinning.ts'
import { Course } from '../support/course.ts'

const hash = (digit: string): string => digit.repeat(64)
const picture = hash('b')
const listed = (id: string, verdict: Partial<Verdict>, entry: Partial<Listed['entry']> = {}): Listed =>
  ({
    id,
    bodyHash: hash('c'),
    entry: { name: id, isFolder: true, verdict: { ...blank('diffusers'), kind: 'controlnet', ...verdict }, ...entry },
  }) as Listed
const models: Record<string, Listed> = {
  'an-sd1': listed('an-sd1', { kind: 'checkpoint', family: 'sd1' }),
  'an-sdxl': listed('an-sdxl', { kind: 'checkpoint', family: 'sdxl' }),
  'a-flux': listed('a-flux', { kind: 'checkpoint', family: 'flux1' }),
  'a-z': listed('a-z', { kind: 'checkpoint', family: 'z-image' }),
  'a-klein': listed('a-klein', { kind: 'checkpoint', family: 'flux2' }),
  'z-edges': listed('z-edges', { family: 'z-image', dialect: 'diffusers' }),
  'z-file': listed('z-file', { family: 'z-image', dialect: 'diffusers' }, { isFolder: false, made: {} as never }),
  'z/unknown': listed('z/unknown', { family: 'z-image', dialect: 'diffusers' }, { isFolder: false }),
  'flux-edges': listed('flux-edges', { family: 'flux1', figures: { contextSize: 4096 } }),
  'flux-union': listed('flux-union', { family: 'flux1', variants: ['union'], figures: { modes: 7 } }),
  'flux-paint': listed('flux-paint', { family: 'flux1', variants: ['inpainting'] }),
  'flux-file': listed('flux-file', { family: 'flux1' }, { isFolder: false, made: {} as never }),
  edges: listed('edges', { family: 'sd1', figures: { contextSize: 768 } }),
  unhashed: { ...listed('unhashed', { family: 'sd1' }), bodyHash: null },
  xl: listed('xl', { family: 'sdxl' }),
  union: listed('union', { family: 'sdxl', variants: ['union'], figures: { modes: 6 } }),
  pastel: listed('pastel', { kind: 'lora', family: 'sd1' }),
  low: listed('low', { family: 'sd1', algorithms: ['lora'] }),
  broken: listed('broken', {
    family: 'sd1',
    reason: { code: 'incomplete', field: '', message: 'It ends too early.', remedy: 'Fetch it again.' },
  }),
  sharp: listed('sharp', { kind: 'preprocessor', task: 'depth' }),
  names: { ...listed('names', { kind: 'preprocessor', task: 'segment' }), bodyHash: null },
  worn: listed('worn', {
    kind: 'preprocessor',
    reason: { code: 'architecture', field: '', message: 'Its class is none.', remedy: 'Take another.' },
  }),
  file: listed('file', { family: 'sd1' }, { isFolder: false }),
}
type Family = 'sd1' | 'sdxl' | 'flux1' | 'flux2' | 'z-image'
const wanted: string[] = []
let isWhole = true
const shelf = {
  read: () => Promise.resolve(),
  find: (id: string) => Promise.resolve(models[id] ? [models[id]] : []),
  list: () => Object.values(models),
  named: (id: string, field = 'input.model') =>
    models[id]
      ? Promise.resolve(models[id])
      : Promise.reject(modelError(isWhole ? 'unknown' : 'unlisted', `there is no model ${id}`, { field })),
  want: ({ id }: { id: string }) => Promise.resolve(void wanted.push(id)),
}
const catalogue = {
  named: shelf.named,
  ofKind: (...asked: Parameters<Catalogue['ofKind']>) => ofKind(shelf as never, ...asked),
  all: (...asked: Parameters<Catalogue['all']>) => allOfKind(shelf as never, ...asked),
  picture: (sha256: string) => Promise.resolve({ sha256, width: 40, height: 30, hasAlpha: false }),
}
const parsed = (control: unknown) => imageGeneration.input.parse({ prompt: 'p', control }) as Parameters<typeof completeControl>[0]
const completed = (control: unknown, id = 'an-sd1', family: Family = 'sd1') => completeControl(parsed(control), { id, family }, catalogue)
const one = { model: 'edges', picture }

/** Field and words of the refusal. */
async function refusal(control: unknown, id?: string, family?: Family): Promise<string> {
  const shape = imageGeneration.input.safeParse({ prompt: 'p', control })
  if (!shape.success) return shape.error.issues.map((issue) => `input.${issue.path.join('.')}: ${issue.message}`).join('; ')
  try {
    await completed(control, id, family)
  } catch (error) {
    if (error instanceof DarkroomError) return `${error.field}: ${error.message}`
    throw error
  }
  return 'nothing was refused'
}

describe('control', () => {
  it('left out adds nothing to the request', async () => {
    expect(await completeControl({}, { id: 'a-flux', family: 'flux1' }, catalogue)).toEqual({})
  })

  it('is filled in, pinned where it can be, and hashed where not', async () => {
    wanted.length = 0
    const { control } = await completed([
      one,
      { ...one, model: 'unhashed', preprocessor: { name: 'canny' }, weight: 0.5, end: 0.4, mode: 'prompt' },
    ])
    const pin = { sha256: picture, width: 40, height: 30 }
    expect(control).toEqual([
      { model: { id: 'edges', bodyHash: hash('c') }, picture: pin, resize: 'crop', weight: 1, start: 0, end: 1, mode: 'balanced' },
      {
        model: { id: 'unhashed', bodyHash: null },
        picture: pin,
        resize: 'crop',
        preprocessor: { name: 'canny', low: 100, high: 200 },
        weight: 0.5,
        start: 0,
        end: 0.4,
        mode: 'prompt',
      },
    ])
    expect(wanted).toEqual(['unhashed'])
  })

  it('of joints needs no picture, and a union a task', async () => {
    const people = [Array.from({ length: 18 }, (_, n) => (n === 3 ? null : [0.5, n / 18]))]
    const { control } = await completed([{ model: 'union', task: 'pose', preprocessor: { name: 'pose', people } }], 'an-sdxl', 'sdxl')
    expect(control).toEqual([
      {
        model: { id: 'union', bodyHash: hash('c') },
        preprocessor: { name: 'pose', people },
        task: 'pose',
        weight: 1,
        start: 0,
        end: 1,
        mode: 'balanced',
      },
    ])
  })

  it.each<[string, unknown, RegExp]>([
    ['a model that is not there', [{ ...one, model: 'none' }], /^input\.control\.0\.model: there is no controlnet "none"/],
    [
      'one of another family',
      [one, { ...one, model: 'xl' }],
      /^input\.control\.1\.model: .*xl is for Stable Diffusion XL, and an-sd1 is a model of Stable Diffusion 1/,
    ],
    ['what is no ControlNet', [{ ...one, model: 'pastel' }], /^input\.control\.0\.model: "pastel" is no controlnet but a lora/],
    ['a difference of low rank', [{ ...one, model: 'low' }], /^input\.control\.0\.model: .*difference of low rank/],
    ['a broken one', [{ ...one, model: 'broken' }], /^input\.control\.0\.model: .*cannot be used: It ends too early/],
    ['a file without its configuration', [{ ...one, model: 'file' }], /^input\.control\.0\.model: .*file is one file/],
    ['a task of one that has one', [{ ...one, task: 'pose' }], /^input\.control\.0\.task: .*must be left out: edges knows one task/],
    ['no picture', [{ model: 'edges' }], /^input\.control\.0\.picture: .*is missing/],
    ['a name for a picture', [{ ...one, picture: 'photo.png' }], /^input\.control\.0\.picture: must be the id of a picture/],
    ['a weight beyond 2', [{ ...one, weight: 2.1 }], /^input\.control\.0\.weight: must be at most 2/],
    ['a weight below 0', [{ ...one, weight: -0.1 }], /^input\.control\.0\.weight: must be at least 0/],
    ['a start below 0', [{ ...one, start: -0.1 }], /^input\.control\.0\.start: must be at least 0/],
    ['an end beyond 1', [{ ...one, end: 1.1 }], /^input\.control\.0\.end: must be at most 1/],
    ['a start at its end', [{ ...one, start: 0.5, end: 0.5 }], /^input\.control\.0\.start: must be less than `end`/],
    ['a mode that is none', [{ ...one, mode: 'guess' }], /^input\.control\.0\.mode: /],
    [
      'a preprocessor that there is not',
      [{ ...one, preprocessor: { name: 'hed' } }],
      /^input\.control\.0\.preprocessor(\.name)?: must be one of canny, .*depth, segment; .*hed, .* need networks .*without a `preprocessor`/,
    ],
    [
      'a network that is not there',
      [{ ...one, preprocessor: { name: 'depth', model: 'none' } }],
      /^input\.control\.0\.preprocessor\.model: there is no preprocessor "none"; usable are: sharp, names$/,
    ],
    [
      'what is no preprocessor',
      [{ ...one, preprocessor: { name: 'depth', model: 'edges' } }],
      /^input\.control\.0\.preprocessor\.model: "edges" is no preprocessor but a controlnet/,
    ],
    [
      'a network that sees something else',
      [{ ...one, preprocessor: { name: 'depth', model: 'names' } }],
      /^input\.control\.0\.preprocessor\.model: .*names sees classes of things, not depth: name one that does/,
    ],
    [
      'a network that cannot be used',
      [{ ...one, preprocessor: { name: 'depth', model: 'worn' } }],
      /^input\.control\.0\.preprocessor\.model: .*cannot be used: Its class is none/,
    ],
    [
      'a network where none sees',
      [{ ...one, preprocessor: { name: 'grey', model: 'sharp' } }],
      /^input\.control\.0\.preprocessor: .*model/,
    ],
    [
      'thresholds the wrong way about',
      [{ ...one, preprocessor: { name: 'canny', low: 9, high: 8 } }],
      /^input\.control\.0\.preprocessor\.low: must be at most `high`/,
    ],
    ['a setting of another preprocessor', [{ ...one, preprocessor: { name: 'grey', low: 9 } }], /^input\.control\.0\.preprocessor: .*low/],
    [
      '17 joints',
      [{ model: 'edges', preprocessor: { name: 'pose', people: [Array(17).fill(null)] } }],
      /^input\.control\.0\.preprocessor\.people\.0: must be 18 joints/,
    ],
    [
      'joints and a picture',
      [{ ...one, preprocessor: { name: 'pose', people: [Array(18).fill(null)] } }],
      /^input\.control\.0\.picture: .*must be left out/,
    ],
    ['none', [], /^input\.control: must name a ControlNet, or be left out/],
    ['nine', Array(9).fill(one), /^input\.control: must be at most 8/],
  ])('%s is refused by its field', async (_, control, words) => {
    expect(await refusal(control)).toMatch(words)
  })

  it('is refused for a model that is not steered, and a task that a union does not know', async () => {
    expect(await refusal([one], 'a-klein', 'flux2')).toMatch(
      /^input\.control: .*must be left out for a-klein \(FLUX\.2\): ControlNets steer Stable Diffusion 1, .* Qwen-Image, Z-Image here so far$/,
    )
    const union = { model: 'union', picture }
    expect(await refusal([union], 'an-sdxl', 'sdxl')).toMatch(/^input\.control\.0\.task: .*is missing: union knows several tasks/)
    expect(await refusal([{ ...union, task: 'tile' }], 'an-sdxl', 'sdxl')).toMatch(
      /^input\.control\.0\.task: .*must be one of pose, depth, soft, line, normal, segment/,
    )
  })
})

describe('control of a transformer', () => {
  it('acts in one way, and numbers the tasks of a union as its authors do', async () => {
    const { control } = await completed(
      [
        { model: 'flux-edges', picture },
        { model: 'flux-union', picture, task: 'low' },
      ],
      'a-flux',
      'flux1',
    )
    expect(control).toMatchObject([{ mode: 'balanced' }, { mode: 'balanced', task: 'low' }])
  })

  it.each<[string, object, RegExp]>([
    ['another mode', { model: 'flux-edges', mode: 'prompt' }, /^input\.control\.0\.mode: .*must be balanced for flux-edges/],
    ['one for UNets', { model: 'edges' }, /^input\.control\.0\.model: .*edges is for Stable Diffusion 1, and a-flux is a model of FLUX\.1/],
    [
      'a task that it does not know',
      { model: 'flux-union', task: 'normal' },
      /must be one of line, tile, depth, blur, pose, grey, low for flux-union/,
    ],
    ['one for inpainting', { model: 'flux-paint' }, /flux-paint is a ControlNet for inpainting/],
    ['a single file', { model: 'flux-file' }, /flux-file is one file/],
  ])('%s is refused by its field', async (_, said, words) => {
    expect(await refusal([{ picture, ...said }], 'a-flux', 'flux1')).toMatch(words)
  })

  it.each(['z-edges', 'z-file'])('of Z-Image is a folder or a file of a known configuration: %s', async (model) => {
    const { control } = await completed([{ model, picture }], 'a-z', 'z-image')
    expect(control).toMatchObject([{ model: { id: model }, mode: 'balanced' }])
  })

  it.each<[string, object, RegExp]>([
    ['another mode', { model: 'z-edges', mode: 'control' }, /^input\.control\.0\.mode: .*must be balanced for z-edges/],
    ['a task', { model: 'z-edges', task: 'line' }, /^input\.control\.0\.task: .*must be left out: z-edges knows one task/],
    ['one of FLUX.1', { model: 'flux-edges' }, /^input\.control\.0\.model: .*flux-edges is for FLUX\.1, and a-z is a model of Z-Image/],
    ['a file of no known configuration', { model: 'z/unknown' }, /put its config\.json into unknown\.configs beside it/],
  ])('of Z-Image with %s is refused by its field', async (_, said, words) => {
    expect(await refusal([{ picture, ...said }], 'a-z', 'z-image')).toMatch(words)
  })

  it('stands beside no reference pictures', async () => {
    const said = { ...parsed([{ model: 'flux-edges', picture }]), references: [picture] }
    await expect(completeControl(said, { id: 'a-flux', family: 'flux1' }, catalogue)).rejects.toMatchObject({ field: 'input.control' })
  })
})

describe('a preprocessor that is a network', () => {
  const asked = (name: string, model?: string) => [{ ...one, preprocessor: { name, ...(model !== undefined && { model }) } }]
  const shelved = async (without: string[], more: Record<string, Listed>, run: () => Promise<void>): Promise<void> => {
    const before = { ...models }
    for (const id of without) delete models[id]
    Object.assign(models, more)
    try {
      await run()
    } finally {
      for (const id of Object.keys(models)) delete models[id]
      Object.assign(models, before)
    }
  }

  it('is named, or the only one that sees this; it is pinned where it can be, and hashed where not', async () => {
    wanted.length = 0
    expect((await completed(asked('depth', 'sharp'))).control).toMatchObject([
      { preprocessor: { name: 'depth', model: { id: 'sharp', bodyHash: hash('c') } } },
    ])
    expect((await completed(asked('segment'))).control).toMatchObject([
      { preprocessor: { name: 'segment', model: { id: 'names', bodyHash: null } } },
    ])
    expect(wanted).toEqual(['names'])
  })

  it('of several must be named', async () => {
    await shelved([], { other: listed('other', { kind: 'preprocessor', task: 'depth' }) }, async () => {
      expect(await refusal(asked('depth'))).toMatch(
        /^input\.control\.0\.preprocessor\.model: .*is missing: 2 preprocessors see depth; name one of sharp, other$/,
      )
    })
  })

  it('where there is none is refused with the folders to put one into, unless a host has not told yet', async () => {
    await shelved(['sharp'], {}, async () => {
      await expect(completed(asked('depth'))).rejects.toMatchObject({
        code: 'model.unknown',
        field: 'input.control.0.preprocessor.model',
        message: 'there is no preprocessor that sees depth',
        remedy: expect.stringMatching(
          /config\.json, model\.safetensors and preprocessor_config\.json, into preprocessors\/ or annotators\//,
        ) as string,
      })
    })
    await shelved(['sharp', 'names', 'worn'], {}, async () => {
      isWhole = false
      await expect(completed(asked('depth'))).rejects.toMatchObject({ code: 'model.unlisted' })
      isWhole = true
    })
  })

  it('is hashed and pinned by the session, and told with its receipt as a client would ask for it', async () => {
    const { control } = await completed(asked('segment'))
    const request = { prompt: 'p', model: 'an-sd1', modelHash: hash('a'), control } as unknown as Pinned['input']
    expect(unpinned({ input: request })).toEqual([{ id: 'names', bodyHash: null, kind: 'preprocessor' }])
    const pinned = pinnedRequest({ input: request, ...withHash({ input: request }, hash('d')) })
    expect(pinned.control).toMatchObject([{ preprocessor: { name: 'segment', model: { id: 'names', bodyHash: hash('d') } } }])
    expect(modelsOfControl(pinned.control)).toEqual([
      { id: 'edges', bodyHash: hash('c'), kind: 'controlnet' },
      { id: 'names', bodyHash: hash('d'), kind: 'preprocessor' },
    ])
    expect(askedOf(pinned)['control']).toMatchObject([{ model: 'edges', picture, preprocessor: { name: 'segment', model: 'names' } }])
  })

  it('alone makes a picture, hashed first where it is not known', async () => {
    const shape = imagePreprocess.input.parse({ picture, preprocessor: { name: 'segment' } })
    const input = await imagePreprocess.resolveInput(shape, catalogue as never)
    const course = new Course(new PureMachine(imagePreprocess.machine), input)
    expect(course.open('model.hash').input).toEqual({ model: { id: 'names', bodyHash: null, kind: 'preprocessor' } })
    course.ends('model.hash', { model: { id: 'names', bodyHash: hash('e') } })
    const request = { preprocessor: { name: 'segment', model: { id: 'names', bodyHash: hash('e') } }, width: 40, height: 30 }
    expect(course.open('inference.preprocess').input).toMatchObject(request)
    course.ends('inference.preprocess', { pixels: hash('f'), exactness: { key: 'k', facts: {} } })
    expect(course.open('postprocessing.keep').input).toMatchObject({ pixels: hash('f'), request, exactness: { key: 'k' } })
  })
})

describe('image-preprocess', () => {
  const resolved = async (input: unknown): Promise<unknown> => {
    const shape = imagePreprocess.input.safeParse(input)
    if (!shape.success) return shape.error.issues.map(({ path }) => path.join('.'))
    try {
      return await imagePreprocess.resolveInput(shape.data, catalogue as never)
    } catch (error) {
      return (error as DarkroomError).field
    }
  }
  const joints = { name: 'pose', people: [Array(18).fill(null)] }

  it('makes a picture of its own size, or of the size that is asked for', async () => {
    const pin = { sha256: picture, width: 40, height: 30 }
    expect(await resolved({ picture, preprocessor: { name: 'grey' } })).toEqual({
      picture: pin,
      preprocessor: { name: 'grey' },
      width: 40,
      height: 30,
    })
    expect(await resolved({ picture, preprocessor: { name: 'tile' }, width: 64, height: 64 })).toEqual({
      picture: pin,
      resize: 'crop',
      preprocessor: { name: 'tile', factor: 8 },
      width: 64,
      height: 64,
    })
    expect(await resolved({ preprocessor: joints, width: 64, height: 96 })).toEqual({ preprocessor: joints, width: 64, height: 96 })
  })

  it.each<[string, unknown, string | string[]]>([
    ['no picture', { preprocessor: { name: 'grey' } }, 'input.picture'],
    ['one side', { picture, preprocessor: { name: 'grey' }, height: 64 }, 'input.width'],
    ['a resize without a size', { picture, preprocessor: { name: 'grey' }, resize: 'pad' }, 'input.resize'],
    ['joints without a size', { preprocessor: joints }, 'input.width'],
    ['joints and a picture', { picture, preprocessor: joints, width: 64, height: 64 }, 'input.picture'],
    ['no preprocessor', { picture }, ['preprocessor']],
    ['a side of 4097', { picture, preprocessor: { name: 'grey' }, width: 4097, height: 64 }, ['width']],
  ])('%s is refused by its field', async (_, input, field) => expect(await resolved(input)).toEqual(field))
})
