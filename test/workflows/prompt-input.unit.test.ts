/** What a request says of its texts and what they lead: completed, or refused by the field's name. */
import { describe, expect, it } from 'vitest'
import type { DarkroomError } from '../../src/errors.ts'
import type { Family } from '../../src/models/families.ts'
import { completePrompt, promptFields, readingOf, seedsOf } from '../../src/workflows/built-in/prompt-input.ts'
import { z } from 'zod'

const recommended = { width: 512, height: 512, steps: 20, guidance: 7, sampler: 'DDIM' }
const modelOf = (family: Family, guidance?: 'free' | 'input') => ({
  id: 'm',
  family,
  recommended,
  ...(guidance && { limits: { multiple: 16, samplers: ['Euler'], guidance, fromText: true as const } }),
})
const form = z.strictObject(promptFields)
const drawn = { draw: () => 41 }

function complete(
  said: z.input<typeof form> & { prompt?: string; negativePrompt?: string; count?: number; guidance?: number; steps?: number },
  model = modelOf('sd1'),
) {
  const { prompt = 'a star', negativePrompt = '', count = 1, guidance, steps, ...fields } = said
  return completePrompt({ prompt, negativePrompt, count, guidance, steps, ...form.parse(fields) }, model, drawn)
}

const refused = (...given: Parameters<typeof complete>): unknown => {
  try {
    return complete(...given)
  } catch (error) {
    return (error as DarkroomError).details?.['problems'] ?? error
  }
}

describe('what is not said', () => {
  it.each(['a star', 'at 10:30) sharp]', 'a \\ b', 'break BREAKING', ''])(
    'stays absent, and so the request is the one it was: %j',
    (prompt) => expect(complete({ prompt, negativePrompt: prompt })).toEqual({}),
  )

  it.each(['a (red) star', '[a]', 'a BREAK b', String.raw`\(a\)`, String.raw`a \\ b`, '(a'])(
    'is a1111 for a text that has it: %j',
    (prompt) => {
      expect(complete({ prompt })).toEqual({ promptSyntax: 'a1111' })
      expect(complete({ negativePrompt: prompt }, modelOf('sdxl'))).toEqual({ promptSyntax: 'a1111' })
      expect(complete({ prompt, promptSyntax: 'plain' })).toEqual({})
      expect(complete({ prompt }, modelOf('flux1', 'input'))).toEqual({})
    },
  )

  it('is not told to the text encoder', () => {
    const texts = { prompt: 'a', guidance: 7, negativePrompt: 'b' }
    expect(readingOf({ ...texts })).toEqual(texts)
    expect(readingOf({ ...texts, promptSyntax: 'comfy', clipSkip: 2 })).toEqual({ ...texts, promptSyntax: 'comfy', clipSkip: 2 })
  })
})

describe('a variation', () => {
  it('has a seed that is drawn, and none where it is nothing', () => {
    expect(complete({ variation: { strength: 0.2 } })).toEqual({ variation: { seed: 41, strength: 0.2 } })
    expect(complete({ variation: { strength: 0.2, seed: 0 } })).toEqual({ variation: { seed: 0, strength: 0.2 } })
    expect(complete({ variation: { strength: 0, seed: 5 } })).toEqual({})
  })

  it('counts on from image to image, instead of the seed', () => {
    expect([0, 1, 2].map((image) => seedsOf({ seed: 7 }, image).seed)).toEqual([7, 8, 9])
    const variation = { seed: 3, strength: 0.5 }
    expect([0, 1].map((image) => seedsOf({ seed: 7, variation }, image))).toEqual([
      { seed: 7, variation: { seed: 3, strength: 0.5 } },
      { seed: 7, variation: { seed: 4, strength: 0.5 } },
    ])
  })
})

describe('guidance', () => {
  it('has an interval whose ends are filled in', () =>
    expect(complete({ guidanceInterval: { end: 0.5 }, guidanceRescale: 0.7 })).toEqual({
      guidanceInterval: { start: 0, end: 0.5 },
      guidanceRescale: 0.7,
    }))
})

it.each<[Parameters<typeof complete>, string, RegExp]>([
  [[{ guidance: 1, guidanceRescale: 0.5 }], 'guidanceRescale', /guidance 1 is none: raise `guidance` above 1/],
  [[{ guidance: 0, guidanceInterval: {} }], 'guidanceInterval', /guidance 0 is none/],
  [[{ guidanceInterval: { start: 0.5, end: 0.5 } }], 'guidanceInterval.end', /must be more than start, 0\.5/],
  [[{ guidanceInterval: { start: 0.9, end: 0.1 } }], 'guidanceInterval.end', /must be more than start/],
  [[{ steps: 8, guidanceInterval: { start: 0.4, end: 0.45 } }], 'guidanceInterval', /from 0\.4 to 0\.45 of 8 steps is less than one/],
  [[{ count: 3, variation: { seed: Number.MAX_SAFE_INTEGER - 1, strength: 0.1 } }], 'variation.seed', /beyond 2\^53 - 1/],
  [[{ prompt: 'a (ratio of 1920:1080) star' }], 'prompt', /weight 1080; .* from -10 to 10: write \\\( and \\\) .* "plain"/],
  [[{ negativePrompt: '((a:2) b:-11)' }], 'negativePrompt', /weight -11/],
  [[{ promptSyntax: 'a1111' }, modelOf('flux1', 'input')], 'promptSyntax', /plain or left out for m \(FLUX\.1\), which hears no weights/],
  [[{ clipSkip: 2 }, modelOf('z-image', 'free')], 'clipSkip', /must be left out for m \(Z-Image\)/],
  [[{ guidanceRescale: 0.5 }, modelOf('sd3', 'free')], 'guidanceRescale', /must be left out for m \(Stable Diffusion 3\)/],
  [[{ guidanceInterval: { end: 0.5 } }, modelOf('flux1', 'input')], 'guidanceInterval', /takes guidance as an input/],
])('%j is refused', (given, field, message) =>
  expect(refused(...given)).toEqual([{ field: `input.${field}`, message: expect.stringMatching(message) as string }]),
)

it.each([
  [{ prompt: 'at (10:30) \\(1920:1080\\) 1920:1080)', promptSyntax: 'plain' as const }],
  [{ prompt: 'a \\(1920:1080\\) 1920:1080) (b:10)' }],
  [{ guidanceInterval: { end: 0.5 } }],
])('%j is not', (said) => expect(() => complete(said)).not.toThrow())

it('an interval is taken by every family that is guided against a negative prompt', () =>
  expect(complete({ guidanceInterval: { end: 0.5 } }, modelOf('sd3', 'free'))).toEqual({ guidanceInterval: { start: 0, end: 0.5 } }))
