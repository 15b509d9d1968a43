/** A test a row: what a row of the tables asks for, and no more, is what that row says. None stands behind another. */
import { describe, expect, it } from 'vitest'
import { detect } from '../../src/models/detect.ts'
import type { Header, Tensor } from '../../src/models/header.ts'
import { controlRows, ipRows, t2iRows } from '../../src/models/rules/adapters.ts'
import { denoisers, denoiserVariants } from '../../src/models/rules/denoisers.ts'
import { classifierRows, textEncoderRows, vaeRows, visionRows } from '../../src/models/rules/encoders.ts'
import { any, type Pattern, type Row } from '../../src/models/rules/match.ts'

type Patterns = Readonly<Record<string, Pattern>>

/** A dimension that may be anything, and that no row asks for. */
const odd = 7
const tensor = (pattern: Pattern): Tensor => {
  const shape = pattern.length === 0 ? [odd] : pattern.map((size) => (size === any ? odd : size))
  const count = shape.reduce((product, size) => product * size, 1)
  return { type: 'F16', shape, count, bytes: 2 * count }
}
/** One tensor more than the rows ask for: a file of one alone may be an embedding. */
const header = (patterns: Patterns): Header => ({
  tensors: new Map([...Object.entries(patterns), ['of no row', [odd]] as const].map(([name, pattern]) => [name, tensor(pattern)])),
  metadata: new Map(),
})
const titled = (row: Row): [string, Row] => {
  const { kind, family, variants = [], dialect, encoder, architecture, has } = row
  return [[kind, family, ...variants, dialect, encoder, architecture, `by ${Object.keys(has)[0]}`].filter(Boolean).join(' '), row]
}

describe.each([
  ['networks that draw', denoisers],
  ['ControlNets', controlRows],
  ['T2I adapters', t2iRows],
  ['IP-Adapters', ipRows],
  ['text encoders', textEncoderRows],
  ['vision towers', visionRows],
  ['VAEs', vaeRows],
  ['classifiers', classifierRows],
])('%s', (_, rows) => {
  it.each(rows.map(titled))('%s', (_title, { kind, family, variants = [], dialect, encoder, architecture, has }) => {
    const verdict = detect(header(has), 'safetensors')
    expect(verdict.reason).toBeUndefined()
    expect(verdict).toMatchObject({
      kind,
      ...(dialect && { dialect }),
      ...(encoder && { encoder }),
      ...(architecture !== undefined && { architecture }),
    })
    expect(verdict.family).toBe(family)
    expect(verdict.variants).toEqual(expect.arrayContaining([...variants]))
  })
})

describe('variants', () => {
  /** What both ask for; undefined where they ask for different shapes. */
  function both(one: Patterns, other: Patterns): Patterns | undefined {
    const all: Record<string, Pattern> = { ...one }
    for (const [name, pattern] of Object.entries(other)) {
      const known = all[name]
      const sizes =
        known && known.length > 0 && pattern.length > 0 ? pattern.map((size, i) => (size === any ? (known[i] ?? any) : size)) : undefined
      if (sizes && known?.some((size, i) => size !== any && size !== (sizes[i] ?? any))) return undefined
      all[name] = sizes ?? (pattern.length > 0 ? pattern : (known ?? pattern))
    }
    return all
  }

  it.each(denoiserVariants.map((row) => [`${row.family} ${row.variant} by ${Object.keys(row.has ?? {})[0] ?? 'nothing'}`, row] as const))(
    '%s',
    (_title, { family, variant, has = {}, lacks = [] }) => {
      const told = denoisers
        .filter((row) => row.family === family && !lacks.some((name) => name in row.has))
        .map((row) => both(row.has, has))
        .filter((patterns) => patterns !== undefined)
        .map((patterns) => detect(header(patterns), 'safetensors'))
        .filter((verdict) => verdict.family === family)
      expect(told.some(({ variants }) => variants.includes(variant))).toBe(true)
    },
  )
})
