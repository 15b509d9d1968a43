/** What a request says of adapters and embeddings: completed, or refused by the field's name. */
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { modelError } from '../../src/models/errors.ts'
import type { DarkroomError } from '../../src/errors.ts'
import type { Listed } from '../../src/models/listing.ts'
import { blank, type Kind, type Verdict } from '../../src/models/verdict.ts'
import { adapterFields, completeBeside } from '../../src/workflows/built-in/adapter-input.ts'
import { readTags } from '../../src/workflows/built-in/adapter-tags.ts'
import { besideOf, pinnedRequest, unpinned, withHash, type Pinned } from '../../src/workflows/built-in/pinning.ts'

const hash = (digit: string): string => digit.repeat(64)
const form = z.strictObject(adapterFields)

const listed = (kind: Kind, id: string, bodyHash: string | null, verdict: Partial<Verdict> = {}, isFolder = false): Listed =>
  ({ id, bodyHash, entry: { isFolder, verdict: { ...blank('safetensors'), kind, ...verdict } } }) as unknown as Listed
const shelf = [
  listed('checkpoint', 'base', hash('b'), { family: 'sd1', figures: { contextSize: 768 } }),
  listed('lora', 'pastel', hash('1'), { family: 'sd1', algorithms: ['lora'], figures: { contextSize: 768 } }),
  listed('lora', 'new', null, { family: 'sd1', algorithms: ['locon'] }),
  listed('lora', 'untold', hash('3'), { algorithms: ['lokr'] }),
  listed('lora', 'xl', hash('4'), { family: 'sdxl', algorithms: ['lora'] }),
  listed('lora', 'narrow', hash('5'), { family: 'sd1', algorithms: ['lora'], figures: { contextSize: 96 } }),
  listed('lora', 'turned', hash('6'), { family: 'sd1', algorithms: ['boft'] }),
  listed('lora', 'packed', hash('7'), { format: 'peft', family: 'sd1' }, true),
  listed('embedding', 'negative/easy', hash('8'), { family: 'sd1', figures: { vectors: 8, hiddenSize: 768 } }),
  listed('embedding', 'long', hash('9'), { family: 'sd1', figures: { vectors: 90, hiddenSize: 768 } }),
  listed('embedding', 'wide', hash('a'), { figures: { vectors: 1, hiddenSize: 1024 } }),
]
const catalogue = {
  named: async (id: string) => shelf.find((each) => each.id === id) as Listed,
  ofKind: async (kind: Kind, id: string, field: string) => {
    const found = shelf.find((each) => each.id === id && each.entry.verdict.kind === kind)
    if (!found) throw modelError('unknown', `there is no ${kind} ${id}`, { field })
    return found
  },
}

type Said = z.input<typeof form> & { prompt?: string; negativePrompt?: string }
const complete = ({ prompt = 'a star', negativePrompt = '', ...said }: Said, family = 'sd1') =>
  completeBeside({ prompt, negativePrompt, ...form.parse(said) }, { id: 'base', family }, catalogue)
const refusal = async (...given: Parameters<typeof complete>): Promise<unknown> =>
  complete(...given).then(
    () => 'nothing was refused',
    (error: DarkroomError) => error.details?.['problems'] ?? { code: error.code, field: error.field },
  )

describe('adapters of the form', () => {
  it('are absent where none is said, and pinned in their order where some are', async () => {
    expect(await complete({})).toEqual({ prompt: 'a star', negativePrompt: '' })
    expect(await complete({ adapters: [] })).toEqual({ prompt: 'a star', negativePrompt: '' })
    expect(
      await complete({
        adapters: [{ model: 'new', weight: -0.5, textWeight: 1 }, { model: 'pastel' }, { model: 'untold', weight: 2, textWeight: 2 }],
      }),
    ).toEqual({
      prompt: 'a star',
      negativePrompt: '',
      adapters: [
        { model: { id: 'new', bodyHash: null }, weight: -0.5, textWeight: 1 },
        { model: { id: 'pastel', bodyHash: hash('1') }, weight: 1 },
        { model: { id: 'untold', bodyHash: hash('3') }, weight: 2 },
      ],
    })
  })

  it.each<[string, Said['adapters'], string]>([
    ['of another family', [{ model: 'xl' }], 'xl is an adapter for Stable Diffusion XL, and base is a model of Stable Diffusion 1'],
    [
      'of another width',
      [{ model: 'narrow' }],
      'narrow is an adapter for models whose texts are vectors of 96, and those of model base are of 768',
    ],
    [
      'by another algorithm',
      [{ model: 'turned' }],
      'turned is made by boft, which is not drawn with; those that are: lora, locon, dora, loha, lokr, diff, norm',
    ],
    ['in a folder', [{ model: 'packed' }], 'packed is kept as peft in a folder: put its safetensors file itself into a model folder'],
  ])('%s are refused by name', async (_, adapters, message) =>
    expect(await refusal({ adapters })).toEqual([{ field: 'input.adapters.0.model', message }]),
  )

  it('are refused when there is none, when it comes twice, outside of the weights, and when there are too many', async () => {
    expect(await refusal({ adapters: [{ model: 'pastel' }, { model: 'base' }] })).toEqual({
      code: 'model.unknown',
      field: 'input.adapters.1.model',
    })
    expect(await refusal({ adapters: [{ model: 'pastel' }, { model: 'pastel', weight: 0.5 }] })).toEqual([
      { field: 'input.adapters.1', message: 'names adapter pastel a second time: name it once, with the sum of the weights' },
    ])
    const many = Array.from({ length: 9 }, (_, at) => ({ model: `m${at}` }))
    expect(form.safeParse({ adapters: many }).error?.issues).toMatchObject([{ path: ['adapters'], message: 'must be at most 8 adapters' }])
    for (const weight of [10.1, -10.1, NaN])
      expect(form.safeParse({ adapters: [{ model: 'pastel', weight }] }).error?.issues[0]).toMatchObject({
        path: ['adapters', 0, 'weight'],
      })
    const tags = many.map(({ model }) => `<lora:${model}>`).join('')
    expect(await refusal({ prompt: tags, promptAdapters: true })).toEqual([
      { field: 'input.prompt', message: 'names 9 adapters with those of `adapters`; at most 8 are taken' },
    ])
  })
})

describe('adapters in a prompt', () => {
  it.each<[string, string, object[]]>([
    ['a star <lora:pastel>', 'a star', [{ name: 'pastel', weight: 1 }]],
    ['<lora:pastel:0.8>a star', 'a star', [{ name: 'pastel', weight: 0.8 }]],
    [
      'a <lora:a b/c:-.5> star, <lyco:x:2>red',
      'a  star, red',
      [
        { name: 'a b/c', weight: -0.5 },
        { name: 'x', weight: 2 },
      ],
    ],
    ['<lora:x:0.5:0.8> a', 'a', [{ name: 'x', weight: 0.8, textWeight: 0.5 }]],
    ['<lora:x:te=0.5> a', 'a', [{ name: 'x', weight: 0.5 }]],
    ['<lora:x:0.7:unet=1> a', 'a', [{ name: 'x', weight: 1, textWeight: 0.7 }]],
    ['a < b > c', 'a < b > c', []],
  ])('%j', (prompt, text, tags) => expect(readTags(prompt)).toEqual({ text, tags, problems: [] }))

  it.each([
    ['<lora:x:strong>', '<lora:x:strong> has a weight that is no number'],
    ['<lora::1>', '<lora::1> names no adapter'],
    ['<lora:x:1:1:64>', '<lora:x:1:1:64> asks for a rank of its own, which is not done: leave that number out'],
    ['<hypernet:x:1>', '<hypernet:x:1> is none that is heard: only <lora:name:weight> is'],
  ])('%j is refused', async (prompt, message) =>
    expect(await refusal({ prompt, promptAdapters: true })).toEqual([{ field: 'input.prompt', message }]),
  )

  it('are letters unless the request allows them', async () => {
    const prompt = 'a star <lora:pastel:0.8>'
    expect(await complete({ prompt })).toEqual({ prompt, negativePrompt: '' })
    expect(await complete({ prompt, promptAdapters: true })).toEqual({
      prompt: 'a star',
      negativePrompt: '',
      adapters: [{ model: { id: 'pastel', bodyHash: hash('1') }, weight: 0.8 }],
    })
    expect(await refusal({ prompt: '<lora:xl:1> a', promptAdapters: true })).toEqual([
      { field: 'input.prompt', message: 'xl is an adapter for Stable Diffusion XL, and base is a model of Stable Diffusion 1' },
    ])
    expect(await refusal({ prompt: '<lora:pastel:11> a', promptAdapters: true })).toEqual([
      { field: 'input.prompt', message: 'the weight of pastel must be from -10 to 10' },
    ])
    expect(await refusal({ prompt, adapters: [{ model: 'pastel' }], promptAdapters: true })).toMatchObject([{ field: 'input.prompt' }])
    expect(await refusal({ negativePrompt: '<lora:pastel:1>', promptAdapters: true })).toEqual([
      { field: 'input.negativePrompt', message: 'names adapter pastel: name it in `prompt`, it changes the whole picture' },
    ])
  })
})

describe('embeddings', () => {
  const easy = { model: { id: 'negative/easy', bodyHash: hash('8') }, word: 'easy' }

  it('are words of either text, by their file or their whole name', async () => {
    expect(await complete({ negativePrompt: 'Easy, bad', embeddings: ['negative/easy'] })).toEqual({
      prompt: 'a star',
      negativePrompt: 'Easy, bad',
      embeddings: [easy],
    })
    expect(await complete({ prompt: 'a (embedding:negative/easy:1.2)', promptAdapters: true })).toEqual({
      prompt: 'a (negative/easy:1.2)',
      negativePrompt: '',
      embeddings: [{ ...easy, word: 'negative/easy' }],
    })
  })

  it.each<[string, Said, string]>([
    [
      'that stand nowhere',
      { embeddings: ['negative/easy'] },
      'negative/easy stands neither in `prompt` nor in `negativePrompt`: write its name where it is to be heard',
    ],
    [
      'within a word',
      { prompt: 'uneasy', embeddings: ['negative/easy'] },
      'negative/easy stands neither in `prompt` nor in `negativePrompt`: write its name where it is to be heard',
    ],
    [
      'with too many places',
      { prompt: 'long', embeddings: ['long'] },
      'long takes 90 places of a prompt, and a text encoder reads 75 at once',
    ],
    [
      'of another width',
      { prompt: 'wide', embeddings: ['wide'] },
      'wide has vectors of 1024 numbers, and those of the text encoder of model base have 768',
    ],
  ])('%s are refused by name', async (_, said, message) => expect(await refusal(said)).toEqual([{ field: 'input.embeddings.0', message }]))

  it('are refused for a family that hears none, and one that there is not', async () => {
    expect(await refusal({ prompt: 'easy', embeddings: ['negative/easy'] }, 'flux1')).toMatchObject([{ field: 'input.embeddings.0' }])
    expect(await refusal({ prompt: 'embedding:none', promptAdapters: true })).toEqual({ code: 'model.unknown', field: 'input.prompt' })
    expect(await refusal({ prompt: 'easy', embeddings: ['negative/easy'] }, 'sdxl')).toEqual([
      { field: 'input.embeddings.0', message: 'negative/easy is an embedding for sd1, and model base is sd1' },
    ])
  })
})

describe('pins', () => {
  const input = {
    model: 'base',
    modelHash: null,
    prompt: 'a',
    adapters: [
      { model: { id: 'pastel', bodyHash: hash('1') }, weight: 1 },
      { model: { id: 'same', bodyHash: null }, weight: 0.5 },
    ],
    embeddings: [{ model: { id: 'same', bodyHash: null }, word: 'same' }],
  } as unknown as Pinned['input']

  it('are taken in order until every model has one', () => {
    let context: Pinned = { input }
    const asked: unknown[] = []
    for (const digit of ['c', 'd', 'e']) {
      asked.push(unpinned(context)[0])
      context = { ...context, ...withHash(context, hash(digit)) }
    }
    expect(asked).toEqual([
      { id: 'base', bodyHash: null },
      { id: 'same', bodyHash: null, kind: 'lora' },
      { id: 'same', bodyHash: null, kind: 'embedding' },
    ])
    expect(unpinned(context)).toEqual([])
    expect(pinnedRequest(context)).toEqual({
      model: { id: 'base', bodyHash: hash('c') },
      prompt: 'a',
      adapters: [
        { model: { id: 'pastel', bodyHash: hash('1') }, weight: 1 },
        { model: { id: 'same', bodyHash: hash('d') }, weight: 0.5 },
      ],
      embeddings: [{ model: { id: 'same', bodyHash: hash('e') }, word: 'same' }],
    })
  })

  it('are of the model alone where nothing is beside it', () => {
    const { adapters: _, embeddings: _e, ...alone } = input
    expect(besideOf({ ...alone } as Pinned['input'])).toEqual([])
    expect(unpinned({ input: { ...alone, modelHash: hash('c') } })).toEqual([])
    expect(Object.keys(pinnedRequest({ input: { ...alone, modelHash: hash('c') } }))).toEqual(['model', 'prompt'])
  })
})
