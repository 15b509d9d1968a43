/** What a request may say of the pictures that an edit is shown. */
import { describe, expect, it } from 'vitest'
import { completeReferences, sizedLike } from '../../src/workflows/built-in/reference-input.ts'

const id = (letter: string): string => letter.repeat(64)
const catalogue = (width = 640, height = 480) => ({ picture: async (sha256: string) => ({ sha256, width, height, hasAlpha: true }) })
const klein = { id: 'klein', limits: { references: 4, multiple: 16 } }
const problemsOf = async (...given: Parameters<typeof completeReferences>): Promise<unknown> =>
  completeReferences(...given).then(
    () => null,
    (error: unknown) => error,
  )

describe('reference pictures', () => {
  it('are pinned in their order, the same one twice too', async () => {
    expect(await completeReferences({ references: [id('b'), id('a'), id('b')] }, klein, catalogue())).toEqual({
      references: ['b', 'a', 'b'].map((letter) => ({ sha256: id(letter), width: 640, height: 480 })),
    })
    expect(await completeReferences({}, klein, catalogue())).toEqual({})
  })

  it.each<[string, number, number, RegExp]>([
    ['a single pixel', 1, 1, /input\.references\.0.*has 1 × 1 pixels: both sides must be at least 64/],
    ['a narrow one', 600, 63, /has 600 × 63 pixels: both sides must be at least 64/],
    ['a long one', 1025, 128, /has 1025 × 128 pixels: no side may be over 8 times the other/],
  ])('of %s are refused by their size', async (_, width, height, words) => {
    const error = await problemsOf({ references: [id('a')] }, klein, catalogue(width, height))
    expect(error).toMatchObject({ code: 'api.invalid' })
    expect(JSON.stringify(error) + String((error as Error).message)).toMatch(words)
  })

  it.each<[string, { width?: number; height?: number }, { width: number; height: number }]>([
    ['no side', {}, { width: 1184, height: 880 }],
    ['its width', { width: 512 }, { width: 1024, height: 1024 }],
    ['both sides', { width: 512, height: 512 }, { width: 1024, height: 1024 }],
  ])('give the size of a request that says %s', (_, given, size) => {
    const model = { recommended: { width: 1024, height: 1024, steps: 4, guidance: 1, sampler: 'Euler' }, limits: { multiple: 16 } }
    const references = [{ sha256: id('a'), width: 640, height: 480 }]
    expect(sizedLike(model, { references }, given).recommended).toMatchObject(size)
    expect(sizedLike(model, {}, {})).toBe(model)
  })
})
