import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { wildcardLines } from '../../src/engine/wildcards.ts'
import { countOf, drawn, nth, Wildcards } from '../../src/workflows/built-in/wildcards.ts'

const files: Record<string, string[]> = {
  colors: ['red', 'green', 'blue'],
  'animals/birds': ['{small|large} owl', '__colors__ finch'],
  loop: ['a __again__'],
  again: ['b __loop__'],
  broken: ['fine', 'half {open'],
}
const read = (name: string): Promise<string[]> => Promise.resolve(files[name] ?? [])
const all = async (text: string): Promise<string[]> => {
  const template = await new Wildcards(read).template(text)
  return Array.from({ length: countOf(template) }, (_, n) => nth(template, n))
}

describe('a text with choices', () => {
  it.each([
    ['a red circle', ['a red circle']],
    ['a {red|blue} {circle|square}', ['a red circle', 'a red square', 'a blue circle', 'a blue square']],
    ['{a|{b|c}}', ['a', 'b', 'c']],
    ['{|very }big', ['big', 'very big']],
    ['{only}', ['only']],
    ['a | b', ['a | b']],
    ['__colors__ x', ['red x', 'green x', 'blue x']],
    ['__animals/birds__', ['small owl', 'large owl', 'red finch', 'green finch', 'blue finch']],
    ['{__colors__|none}', ['red', 'green', 'blue', 'none']],
    [String.raw`\{a|b\} \__colors__`, ['{a|b} __colors__']],
    [String.raw`miku \(vocaloid\), a_b, snake__`, [String.raw`miku \(vocaloid\), a_b, snake__`]],
  ])('%s', async (text, expected) => {
    expect(await all(text)).toEqual(expected)
  })

  it('draws one of them, as its draws say', async () => {
    const template = await new Wildcards(read).template('a {red|__animals/birds__}')
    expect(drawn(template, (below) => below - 1)).toBe('a blue finch')
    expect(drawn(template, () => 0)).toBe('a red')
  })

  it.each([
    ['a {red', /character 3 that is never closed/],
    ['a red}', /character 6 that closes nothing/],
    ['{'.repeat(40) + '}'.repeat(40), /more than 16 deep/],
    ['__loop__', /names itself: loop → again → loop/],
    ['__again__ __loop__', /names itself/],
    ['__broken__', /line "half \{open" of the wildcard file broken has a `\{` at character 6/],
  ])('is refused by what is wrong with it: %s', async (text, words) => {
    await expect(all(text)).rejects.toThrow(words)
  })

  it('is counted without being written out', async () => {
    expect(countOf(await new Wildcards(read).template('{a|b}'.repeat(200)))).toBe(2 ** 200)
  })
})

describe('files of wildcards', () => {
  let folder: string
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'darkroom-wildcards-'))
    mkdirSync(join(folder, 'own', 'animals'), { recursive: true })
    writeFileSync(join(folder, 'secret.txt'), 'key')
    writeFileSync(join(folder, 'own', 'colors.txt'), '# colours\nred\r\n\n  blue  \n')
    writeFileSync(join(folder, 'own', 'animals', 'birds.txt'), 'owl')
    writeFileSync(join(folder, 'own', 'empty.txt'), '# nothing\n\n')
    writeFileSync(join(folder, 'own', 'large.txt'), 'x'.repeat(1024 * 1024 + 1))
    symlinkSync(join(folder, 'secret.txt'), join(folder, 'own', 'leads-out.txt'))
    mkdirSync(join(folder, 'own', 'folder.txt'))
  })
  afterAll(() => rmSync(folder, { recursive: true, force: true }))
  const lines = (name: string): Promise<string[]> => wildcardLines(join(folder, 'own'), name, 'input.wildcards')

  it('are lines that say something, in folders too', async () => {
    expect(await lines('colors')).toEqual(['red', 'blue'])
    expect(await lines('animals/birds')).toEqual(['owl'])
  })

  it.each([
    ['../secret', /must be a path inside the folder/],
    ['animals/../../secret', /must be a path inside the folder/],
    ['/etc/passwd', /must be a path inside the folder/],
    ['animals\\birds', /must be a path inside the folder/],
    ['colors\0', /must be a path inside the folder/],
    ['leads-out', /is not in the folder/],
    ['none', /is not in the folder/],
    ['folder', /is not in the folder/],
    ['empty', /says nothing/],
    ['large', /1048577 bytes/],
  ])('are refused: %s', async (name, words) => {
    await expect(lines(name)).rejects.toMatchObject({
      code: 'api.invalid',
      field: 'input.wildcards',
      message: expect.stringMatching(words),
    })
  })

  it('are none without a folder', async () => {
    await expect(wildcardLines(null, 'colors', 'input.wildcards')).rejects.toThrow(/DARKROOM_WILDCARDS/)
  })
})
