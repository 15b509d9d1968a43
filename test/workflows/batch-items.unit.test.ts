import { describe, expect, it } from 'vitest'
import { expand, type Asked, type Fields } from '../../src/workflows/built-in/batch-items.ts'
import { suggestion } from '../../src/workflows/check.ts'

const known = ['prompt', 'negativePrompt', 'steps', 'guidance', 'seed', 'hires', 'adapters']
const colors = ['red', 'green', 'blue']

/** Draws are the numbers 100, 101, … as far as they are below what is asked for. */
async function expanded(asked: Partial<Asked>, fields: readonly string[] | undefined = known) {
  let n = 100
  return expand(
    { input: {}, wildcards: 'each', ...asked },
    { known: fields, nearest: suggestion, draw: (below) => n++ % below, read: () => Promise.resolve(colors) },
  )
}
const items = async (asked: Partial<Asked>, fields?: readonly string[]): Promise<Fields[]> => {
  const { base, cells } = await expanded(asked, fields)
  return cells.map(({ own }) => ({ ...base, ...own }))
}

describe('a batch is expanded', () => {
  it('from a list, each with a seed of its own', async () => {
    expect(await items({ input: { steps: 4 }, items: [{ prompt: 'a' }, { prompt: 'b', steps: 8, seed: 1 }] })).toEqual([
      { steps: 4, prompt: 'a' },
      { steps: 8, prompt: 'b', seed: 1 },
    ])
    expect(await items({ items: [{ prompt: 'a' }, { prompt: 'b' }] })).toEqual([
      { prompt: 'a', seed: 100 },
      { prompt: 'b', seed: 101 },
    ])
  })

  it('from a grid, the last field fastest, with one seed for all', async () => {
    const { axes } = await expanded({ grid: { steps: [4, 8], guidance: [1, 5, 7] } })
    expect(axes).toEqual([
      { field: 'steps', count: 2 },
      { field: 'guidance', count: 3 },
    ])
    expect(await items({ grid: { steps: [4, 8], guidance: [1, 5, 7] } })).toEqual([
      { seed: 100, steps: 4, guidance: 1 },
      { seed: 100, steps: 4, guidance: 5 },
      { seed: 100, steps: 4, guidance: 7 },
      { seed: 100, steps: 8, guidance: 1 },
      { seed: 100, steps: 8, guidance: 5 },
      { seed: 100, steps: 8, guidance: 7 },
    ])
  })

  it('over fields that lie in others, which it does not share with other items', async () => {
    const input = { hires: { scale: 2, steps: 4 }, adapters: [{ model: 'a', weight: 1 }], seed: 1 }
    const found = await items({ input, grid: { 'hires.scale': [1.5, 2], 'adapters.0.weight': [0.2, 0.8] } })
    expect(found.map(({ hires, adapters }) => [(hires as Fields)['scale'], (adapters as Fields[])[0]?.['weight']])).toEqual([
      [1.5, 0.2],
      [1.5, 0.8],
      [2, 0.2],
      [2, 0.8],
    ])
    expect(found[0]).toEqual({ hires: { scale: 1.5, steps: 4 }, adapters: [{ model: 'a', weight: 0.2 }], seed: 1 })
    expect(input.hires.scale).toBe(2)
  })

  it('by seeds in a row, from one that is said or drawn', async () => {
    expect((await items({ seeds: { from: 7, count: 3 } })).map(({ seed }) => seed)).toEqual([7, 8, 9])
    expect((await items({ seeds: { count: 2 } })).map(({ seed }) => seed)).toEqual([100, 101])
  })

  it('by choices in its prompts: one each, all, or none', async () => {
    const input = { prompt: '{red|blue} __c__', negativePrompt: 'plain', seed: 1 }
    expect((await items({ input, wildcards: 'off' })).map(({ prompt }) => prompt)).toEqual(['{red|blue} __c__'])
    expect((await items({ input, wildcards: 'all' })).map(({ prompt }) => prompt)).toEqual([
      ...colors.map((color) => `red ${color}`),
      ...colors.map((color) => `blue ${color}`),
    ])
    const each = await items({ input: { prompt: '{red|blue}' }, seeds: { from: 1, count: 4 } })
    expect(each.map(({ prompt }) => prompt)).toEqual(['red', 'blue', 'red', 'blue'])
  })

  it('of all of these at once, lists slowest and seeds fastest', async () => {
    const { cells, axes } = await expanded({
      items: [{ prompt: '{a|b}' }, { prompt: '{c|d}' }],
      grid: { steps: [1, 2] },
      wildcards: 'all',
      seeds: { from: 1, count: 2 },
    })
    expect(axes.map(({ count }) => count)).toEqual([2, 2, 2, 2])
    expect(cells.slice(0, 5).map(({ own }) => own)).toEqual([
      { prompt: 'a', steps: 1, seed: 1 },
      { prompt: 'a', steps: 1, seed: 2 },
      { prompt: 'b', steps: 1, seed: 1 },
      { prompt: 'b', steps: 1, seed: 2 },
      { prompt: 'a', steps: 2, seed: 1 },
    ])
    expect(cells).toHaveLength(16)
  })

  it('of a workflow without seeds and prompts as it stands', async () => {
    expect(await items({ items: [{ text: '{a|b}' }] }, ['text'])).toEqual([{ text: '{a|b}' }])
  })
})

describe('a batch is refused', () => {
  const thousand = Array.from({ length: 1000 }, (_, i) => i)
  it.each<[string, Partial<Asked>, string, RegExp]>([
    [
      'a grid of 10^9',
      { grid: { steps: thousand, guidance: thousand, seed: thousand } },
      'input',
      /1,000,000,000 items \(1,000 · 1,000 · 1,000\), and 10,000 are the most/,
    ],
    ['a grid beyond any number', { grid: Object.fromEntries(known.map((field) => [field, thousand])) }, 'input', /items/],
    ['choices beyond any number', { input: { prompt: '{a|b}'.repeat(100), seed: 1 }, wildcards: 'all' }, 'input', /more than 10\^30 items/],
    ['too many by seeds alone', { items: [{}, {}], seeds: { count: 9999 } }, 'input', /19,998 items/],
    ['an unknown field of the grid', { grid: { step: [1] } }, 'input.grid.step', /no such field; did you mean steps\?/],
    ['an unknown field of all', { input: { promt: 'x' } }, 'input.input.promt', /did you mean prompt\?/],
    ['an unknown field of one', { items: [{}, { gidance: 1 }] }, 'input.items.1.gidance', /did you mean guidance\?/],
    ['a field nothing is near to', { input: { colour: 1 } }, 'input.input.colour', /^[^?]*no such field$/],
    ['a place that is not there', { grid: { 'hires.scale': [1] } }, 'input.grid.hires.scale', /needs hires in `input`/],
    [
      'an entry that is not there',
      { input: { adapters: [] }, grid: { 'adapters.0.weight': [1] } },
      'input.grid.adapters.0.weight',
      /needs adapters in `input`/,
    ],
    [
      'a field and a part of it',
      { input: { hires: {} }, grid: { hires: [{}], 'hires.scale': [1] } },
      'input.grid.hires.scale',
      /lies in hires/,
    ],
    ['a field of the grid and of an item', { items: [{ steps: 1 }], grid: { steps: [2] } }, 'input.grid.steps', /said in `items`, too/],
    ['seeds and a seed', { input: { seed: 1 }, seeds: { count: 2 } }, 'input.seeds', /leave one of them out/],
    ['seeds beyond the last one', { seeds: { from: Number.MAX_SAFE_INTEGER, count: 2 } }, 'input.seeds', /would be beyond/],
    ['a brace of all items', { input: { prompt: '{a' } }, 'input.input.prompt', /never closed; write \\\{/],
    ['a brace of one item', { items: [{}, { prompt: 'a}' }] }, 'input.items.1.prompt', /closes nothing/],
    ['a brace of the grid', { grid: { prompt: ['a', '{'] } }, 'input.grid.prompt', /never closed/],
    ['a base that is too long', { input: { prompt: 'x'.repeat(3000) } }, 'input.input', /3000 are the most/],
    ['an item that is too long', { items: [{}, { prompt: 'x'.repeat(3000) }] }, 'input', /item 1 would take more than 3000/],
  ])('%s', async (_, asked, field, words) => {
    await expect(expanded(asked)).rejects.toMatchObject({ code: 'api.invalid', field, message: expect.stringMatching(words) })
  })

  it('with seeds for a workflow that has none', async () => {
    await expect(expanded({ seeds: { count: 2 } }, ['text'])).rejects.toThrow(/for workflows with a seed/)
  })
})
