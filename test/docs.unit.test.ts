/** What is not tested is not true: the documentation against the code. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { describe, expect, it } from 'vitest'
import { root, settings } from '../src/config.ts'
import { breaking, catalogue, matrix, shown, written } from './support/reliability.ts'
import { scenarios } from './support/scenarios.ts'

const read = (file: string): string => readFileSync(join(root, file), 'utf8')
const documents = [
  'README.md',
  'CHANGELOG.md',
  ...readdirSync(join(root, 'docs'))
    .filter((file) => file.endsWith('.md'))
    .map((file) => `docs/${file}`),
]

describe('the documentation', () => {
  it('lists every setting with its meaning, and no other', () => {
    const rows = [...read('docs/operations.md').matchAll(/^\| `([A-Z_]+)` \| [^|]+ \| (.+) \|$/gm)].map(([, name, meaning]) => ({
      name,
      meaning,
    }))
    expect(rows).toEqual(settings)
  })

  it.each(documents)('%s links to files that exist', (file) => {
    const links = [...read(file).matchAll(/\]\((?!https?:|#)([^)#]+)/g)].map(([, link = '']) => resolve(root, dirname(file), link))
    expect(links.filter((link) => !existsSync(link))).toEqual([])
  })

  it.each(documents)('%s names scripts that package.json has', (file) => {
    const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> }
    const named = [...read(file).matchAll(/npm run ([\w:]+)/g)].map(([, name = '']) => name)
    expect(named.filter((name) => !(name in scripts))).toEqual([])
  })

  it('has a reliability matrix that is written from the tests, and leaves none out that breaks something', () => {
    // After a change of tests: node --import tsx test/support/reliability.ts
    expect(written('matrix')).toBe(matrix().trim())
    expect(breaking.filter((file) => !shown.includes(file))).toEqual([])
  })

  it('has a catalogue of scenarios whose proofs are tests that exist', () => {
    expect(written('catalogue')).toBe(catalogue().trim())
    const names = scenarios.map(({ name }) => name)
    expect(names.filter((name, i) => names.indexOf(name) !== i)).toEqual([])
  })

  it('maps files of the architecture that exist', () => {
    const named = [
      ...read('docs/architecture.md').matchAll(/\b((?:src|host|redis|python|setup|test)\/[\w./-]+\.(?:ts|lua|py|mjs))\b/g),
    ].map(([, file = '']) => file)
    expect(named.length).toBeGreaterThan(8)
    expect(named.filter((file) => !existsSync(join(root, file)))).toEqual([])
  })
})
