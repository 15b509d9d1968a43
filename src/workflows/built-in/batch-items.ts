/** What a batch asks for, expanded: list × grid × texts × seeds. Pure but for the lines of wildcard files. */
import { fieldProblems, invalidFields, type FieldProblem } from '../../errors.ts'
import { BadTemplate, countOf, drawn, nth, Wildcards, type ReadLines } from './wildcards.ts'

export type Fields = Record<string, unknown>

/** How many items a batch has at most. */
export const maxItems = 10_000
/** Most characters of what all items have in common, and of what one has of its own, as JSON. */
export const maxItemLength = 3000

/** Fields that take seeds and choices, in workflows that have them. */
export const seedField = 'seed'
export const textFields = ['prompt', 'negativePrompt']

export interface Asked {
  /** What all items have in common. */
  input: Fields
  items?: readonly Fields[] | undefined
  grid?: Readonly<Record<string, readonly unknown[]>> | undefined
  seeds?: { from?: number | undefined; count: number } | undefined
  wildcards: 'off' | 'each' | 'all'
}

/** An item before it is JSON: what it has besides the base, and where that was asked for. */
export interface Cell {
  own: Fields
  /** The field of the batch's request that a field of the item comes from. */
  fieldOf: (path: string) => string
}

export interface Expansion {
  base: Fields
  cells: Cell[]
  /** How many values each dimension has that the batch goes over, the last one fastest. */
  axes: { field: string; count: number }[]
}

export interface ExpandOptions {
  /** Fields of the workflow; undefined where it takes any. */
  known: readonly string[] | undefined
  /** The end of a sentence that names the nearest of them. */
  nearest: (name: string, known: readonly string[]) => string
  /** A whole number below its argument, by chance. */
  draw: (below: number) => number
  read: (name: string, field: string) => ReturnType<ReadLines>
}

/** @throws DarkroomError `api.invalid` with every field at fault */
export async function expand(asked: Asked, { known, nearest, draw, read }: ExpandOptions): Promise<Expansion> {
  const { input, items = [{}], grid = {}, seeds, wildcards } = asked
  const axes = Object.entries(grid)
  const counts = [items.length, ...axes.map(([, values]) => values.length), seeds?.count ?? 1]
  refuse([...unknownFields(asked, known, nearest), ...saidTwice(asked, known)])
  const cellCount = counts.reduce((product, count) => product * count, 1)
  refuseMany(cellCount, counts)

  const hasSeed = known?.includes(seedField) ?? false
  const texts = wildcards === 'off' ? [] : textFields.filter((field) => known?.includes(field))
  const templates = new Wildcards((name) => read(name, 'input.wildcards'))
  const isSeedSaid = seedField in input || seedField in grid || items.some((item) => seedField in item)
  const first = seeds && (seeds.from ?? draw(2 ** 32 - seeds.count))
  const drawsEach = hasSeed && !seeds && !isSeedSaid && items.length > 1
  const base: Fields = { ...input, ...(hasSeed && !seeds && !isSeedSaid && !drawsEach && { [seedField]: draw(2 ** 32) }) }

  const cells: Cell[] = []
  let variantsAtMost = 1
  for (const [row, item] of items.entries()) {
    const fieldOf = originOf(row, asked)
    const ownSeed = drawsEach ? { [seedField]: draw(2 ** 32) } : {}
    for (const values of combinations(axes.map(([, of]) => of))) {
      const own: Fields = { ...item, ...ownSeed }
      for (const [i, [path]] of axes.entries()) put(own, base, path, values[i], `input.grid.${path}`)
      const chosen = await Promise.all(
        texts.flatMap((field) => {
          const text = field in own ? own[field] : base[field]
          return typeof text === 'string' ? [templateOf(templates, text, field, fieldOf(field))] : []
        }),
      )
      const choices = chosen.filter(({ template, text }) => template.length !== 1 || template[0] !== text)
      const variants = wildcards === 'all' ? choices.reduce((product, { template }) => product * countOf(template), 1) : 1
      variantsAtMost = Math.max(variantsAtMost, variants)
      refuseMany(cells.length + variants * (seeds?.count ?? 1), [...counts, variants])
      for (let n = 0; n < variants; n++) {
        for (let s = 0; s < (seeds?.count ?? 1); s++) {
          let left = n
          const said = choices.toReversed().map(({ field, template }): [string, string] => {
            if (wildcards !== 'all') return [field, drawn(template, draw)]
            const count = countOf(template)
            const text = nth(template, left % count)
            left = Math.floor(left / count)
            return [field, text]
          })
          cells.push({ own: { ...own, ...Object.fromEntries(said), ...(first !== undefined && { [seedField]: first + s }) }, fieldOf })
        }
      }
    }
  }
  refuse(tooLong(base, cells))
  const dimensions = [
    { field: 'items', count: items.length },
    ...axes.map(([field, { length: count }]) => ({ field, count })),
    { field: 'wildcards', count: variantsAtMost },
    { field: 'seeds', count: seeds?.count ?? 1 },
  ]
  return { base, cells, axes: dimensions.filter(({ count }) => count > 1) }
}

function refuse(problems: readonly FieldProblem[]): void {
  if (problems.length > 0) throw invalidFields(problems)
}

function refuseMany(count: number, factors: readonly number[]): void {
  if (count <= maxItems) return
  const said = factors.filter((factor) => factor > 1).map((factor) => factor.toLocaleString('en'))
  const total = count > 1e15 ? `more than 10^${Math.floor(Math.log10(Math.min(count, Number.MAX_VALUE)))}` : count.toLocaleString('en')
  refuse([
    {
      field: 'input',
      message: `would be ${total} items${said.length > 1 ? ` (${said.join(' · ')})` : ''}, and ${maxItems.toLocaleString('en')} are the most: split it into several batches`,
    },
  ])
}

/** Fields that the workflow does not have, wherever they are named. */
function unknownFields(
  { input, items = [], grid = {} }: Asked,
  known: readonly string[] | undefined,
  nearest: ExpandOptions['nearest'],
): FieldProblem[] {
  if (!known) return []
  const top = (path: string): string => path.split('.')[0] ?? ''
  const look = (names: readonly string[], at: string): FieldProblem[] =>
    names
      .filter((name) => !known.includes(top(name)))
      .map((name) => ({ field: `${at}.${name}`, message: `there is no such field${nearest(top(name), known)}` }))
  return [
    ...look(Object.keys(input), 'input.input'),
    ...items.flatMap((item, i) => look(Object.keys(item), `input.items.${i}`)),
    ...look(Object.keys(grid), 'input.grid'),
  ]
}

/** What two places would say of one field. */
function saidTwice({ input, items = [], grid = {}, seeds }: Asked, known: readonly string[] | undefined): FieldProblem[] {
  const problems: FieldProblem[] = []
  const paths = Object.keys(grid)
  for (const path of paths) {
    const within = paths.find((other) => other.startsWith(`${path}.`))
    if (within !== undefined) problems.push({ field: `input.grid.${within}`, message: `lies in ${path}, which the grid goes over, too` })
    if (items.some((item) => path in item)) problems.push({ field: `input.grid.${path}`, message: 'is said in `items`, too' })
  }
  if (!seeds) return problems
  if (known && !known.includes(seedField)) problems.push({ field: 'input.seeds', message: 'are for workflows with a seed' })
  if (seedField in grid || items.some((item) => seedField in item) || seedField in input)
    problems.push({ field: 'input.seeds', message: 'are said, and so is a seed: leave one of them out' })
  if ((seeds.from ?? 0) > Number.MAX_SAFE_INTEGER - (seeds.count - 1))
    problems.push({ field: 'input.seeds', message: `the last one would be beyond ${Number.MAX_SAFE_INTEGER}` })
  return problems
}

/** Every choice of one value each, the last one fastest. */
function* combinations(dimensions: readonly (readonly unknown[])[]): Generator<unknown[]> {
  const total = dimensions.reduce((product, { length }) => product * length, 1)
  for (let n = 0; n < total; n++) {
    let left = n
    yield dimensions.toReversed().reduce<unknown[]>((values, dimension) => {
      values.unshift(dimension[left % dimension.length])
      left = Math.floor(left / dimension.length)
      return values
    }, [])
  }
}

/** Puts a value at a path; what lies on the way is the item's own from then on. */
function put(own: Fields, base: Fields, path: string, value: unknown, field: string): void {
  const [top = '', ...below] = path.split('.')
  if (below.length === 0) {
    own[top] = value
    return
  }
  own[top] = structuredClone(top in own ? own[top] : base[top])
  let at = own[top] as Record<string, unknown> | undefined
  for (const [i, name] of below.entries()) {
    const isThere = typeof at === 'object' && at !== null && (!Array.isArray(at) || Object.hasOwn(at, name))
    if (!isThere) refuse([{ field, message: `needs ${[top, ...below.slice(0, i)].join('.')} in \`input\`, to lie in` }])
    if (i === below.length - 1 && at) at[name] = value
    else at = at?.[name] as Record<string, unknown> | undefined
  }
}

async function templateOf(templates: Wildcards, text: string, field: string, at: string) {
  const template = await templates.template(text).catch((error: unknown) => {
    if (!(error instanceof BadTemplate)) throw error
    const message = `${error.message}; write \\{ for a brace that is meant as one, or say wildcards: off`
    throw invalidFields([{ field: at, message }])
  })
  return { field, text, template }
}

/** Where in the batch's request a field of the items of this row was said. */
function originOf(row: number, { items, grid = {} }: Asked): Cell['fieldOf'] {
  return (path) => {
    const [top = ''] = path.split('.')
    const axis = Object.keys(grid).find((name) => name.split('.')[0] === top)
    if (axis !== undefined) return `input.grid.${axis}`
    return items?.[row] && top in items[row] ? `input.items.${row}.${path}` : `input.input.${path}`
  }
}

function tooLong(base: Fields, cells: readonly Cell[]): FieldProblem[] {
  const length = JSON.stringify(base).length
  if (length > maxItemLength)
    return [{ field: 'input.input', message: `takes ${length} characters as JSON, and ${maxItemLength} are the most` }]
  const at = cells.findIndex(({ own }) => JSON.stringify(own).length > maxItemLength)
  if (at === -1) return []
  return [
    {
      field: 'input',
      message: `item ${at} would take more than ${maxItemLength} characters of its own: say what items share in \`input\``,
    },
  ]
}

/** zod's issues with an item, by the fields of the batch's request. */
export const problemsOf = (issues: Parameters<typeof fieldProblems>[0], { fieldOf }: Cell): FieldProblem[] =>
  fieldProblems(issues, '').map(({ field, message }) => ({ field: field === '' ? 'input.input' : fieldOf(field), message }))
