/** CLIP's vocabulary, of the merges that it is made from. */
import { gzipSync } from 'node:zlib'
import { expect, it } from 'vitest'
import { vocabularyOf, wordsOf } from '../../setup/clip.mjs'

it('has the ids that CLIP was trained with', () => {
  const words = wordsOf(['i n', 't h', 'a n'])
  expect(words).toHaveLength(2 * 256 + 3 + 2)
  expect(['!', 'a', '\u0120', '!</w>', 'a</w>', 'in', 'th', '<|startoftext|>', '<|endoftext|>'].map((word) => words.indexOf(word))).toEqual(
    [0, 64, 220, 256, 320, 512, 513, 515, 516],
  )
  expect(new Set(words).size).toBe(words.length)
})

it('is refused when its merges are not the published ones', () => {
  const all = Array.from({ length: 49_000 }, (_, i) => `a${i} b`)
  for (const lines of [['i n', 't h'], all])
    expect(() => vocabularyOf(gzipSync(['title', ...lines].join('\n')))).toThrow(
      /its merges are not the published ones \(SHA-256 [0-9a-f]{64}, expected 9fd691f7c8039210/,
    )
})
