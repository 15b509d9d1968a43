import { describe, expect, it } from 'vitest'
import { root } from '../src/config.ts'
import { checkWidth, commentsOf, proseOf } from './support/prose.ts'

describe('the prose', () => {
  it('is no wider than a reader’s screen', () => expect(checkWidth(root)).toEqual([]))

  it('of a page is what a writer wraps: no code, no table, nothing that a program writes, no lone link', () => {
    const page = [
      'A sentence.',
      '    code',
      '| a | table |',
      '```',
      'more code',
      '```',
      '- [a link](https://x)',
      'See [a link](https://x) here.',
      '<!-- matrix: written by a program -->',
      'a row of it',
      '<!-- end of matrix -->',
      '- an item',
    ]
    expect(proseOf(page.join('\n')).map(([number]) => number)).toEqual([1, 8, 12])
  })

  it.each([
    [
      'a.ts',
      ['/** One.', ' * Two.', ' * | a | row |', ' */', 'const a = 1 // not alone', '  // Three.', '/* four */', 'f(/a*/)'],
      [1, 2, 4, 6, 7],
    ],
    ['a.lua', ['-- One', 'local a = 1 -- not alone', '  -- two'], [1, 3]],
    ['a.py', ['"""One line."""', 'a = 1', '# two', 'def f():', '    """Three', '    four', '    """', '    return "x"'], [1, 3, 5, 6, 7]],
  ])('of %s is its comments', (file, lines, numbers) => {
    expect(commentsOf(file, lines.join('\n')).map(([number]) => number)).toEqual(numbers)
  })
})
