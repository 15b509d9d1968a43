/**
 * The offset allocator and the planner, driven through native/test/heap_driver.cpp and compared with what must hold.
 */
import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { testFolder } from '../../setup/native/build.mjs'

let driver: ChildProcessWithoutNullStreams
let answers: AsyncIterator<string>

beforeAll(() => {
  driver = spawn(join(testFolder(), 'heap_driver'))
  answers = createInterface({ input: driver.stdout })[Symbol.asyncIterator]()
})
afterAll(() => driver.kill())

async function ask(...words: (string | number)[]): Promise<string> {
  driver.stdin.write(`${words.join(' ')}\n`)
  const { value, done } = await answers.next()
  if (done) throw new Error(`the driver ended at: ${words.join(' ')}`)
  return String(value)
}

interface Range {
  offset: number
  size: number
}
interface State {
  used: number
  largestFree: number
  ranges: Range[]
  holes: Range[]
}

async function state(heap: number): Promise<State> {
  const [figures = '', ranges = '', holes = ''] = (await ask('state', heap)).split(';')
  const [used = 0, largestFree = 0] = figures.trim().split(' ').map(Number)
  const list = (text: string): Range[] =>
    [...text.matchAll(/(\d+):(\d+)/g)].map(([, offset, size]) => ({ offset: Number(offset), size: Number(size) }))
  return { used, largestFree, ranges: list(ranges), holes: list(holes) }
}

const granule = 64
const rounded = (bytes: number): number => Math.ceil(bytes / granule) * granule
const sum = (ranges: Range[]): number => ranges.reduce((total, { size }) => total + size, 0)

/** Ranges and holes cover the heap exactly, without an overlap, and no two holes touch. */
function expectWhole({ used, largestFree, ranges, holes }: State, capacity: number): void {
  const pieces = [...ranges.map((range) => ({ ...range, isHole: false })), ...holes.map((hole) => ({ ...hole, isHole: true }))]
  let end = 0
  let wasHole = false
  for (const { offset, size, isHole } of pieces.toSorted((a, b) => a.offset - b.offset)) {
    expect(offset).toBe(end)
    expect(size % granule === 0 && size > 0).toBe(true)
    expect(isHole && wasHole).toBe(false)
    end = offset + size
    wasHole = isHole
  }
  expect(end).toBe(capacity)
  expect(used).toBe(sum(ranges))
  expect(largestFree).toBe(Math.max(0, ...holes.map(({ size }) => size)))
}

const command = fc.oneof(
  { weight: 5, arbitrary: fc.record({ type: fc.constant('take' as const), bytes: fc.integer({ min: 0, max: 1500 }) }) },
  { weight: 4, arbitrary: fc.record({ type: fc.constant('give' as const), which: fc.nat() }) },
  {
    weight: 2,
    arbitrary: fc.record({ type: fc.constant('at' as const), offset: fc.nat({ max: 5000 }), bytes: fc.integer({ min: 0, max: 700 }) }),
  },
  { weight: 1, arbitrary: fc.record({ type: fc.constant('give-wrong' as const), offset: fc.nat({ max: 5000 }) }) },
)

describe('the offset allocator', () => {
  it('deals out ranges that never overlap, takes the best fit, and joins what comes back', async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 64 }), fc.array(command, { maxLength: 60 }), async (granules, commands) => {
        await ask('reset')
        const capacity = granules * granule
        await ask('heap', capacity, granule)
        for (const each of commands) {
          const before = await state(0)
          if (each.type === 'take') {
            const answer = await ask('take', 0, each.bytes)
            const size = rounded(each.bytes)
            const fitting = each.bytes === 0 ? [] : before.holes.filter((hole) => hole.size >= size)
            const best = fitting.toSorted((a, b) => a.size - b.size || a.offset - b.offset)[0]
            expect(answer).toBe(best ? String(best.offset) : 'none')
          } else if (each.type === 'at') {
            const size = rounded(each.bytes)
            const isFree = before.holes.some((hole) => hole.offset <= each.offset && each.offset + size <= hole.offset + hole.size)
            const may = each.bytes > 0 && each.offset % granule === 0 && isFree
            expect(await ask('at', 0, each.offset, each.bytes)).toBe(may ? 'yes' : 'no')
          } else if (each.type === 'give') {
            const range = before.ranges[each.which % Math.max(1, before.ranges.length)]
            if (!range) continue
            expect(await ask('give', 0, range.offset)).toBe('ok')
            expect(await ask('give', 0, range.offset)).toBe('DR_BAD_HANDLE')
          } else {
            const isRange = before.ranges.some(({ offset }) => offset === each.offset)
            expect(await ask('give', 0, each.offset)).toBe(isRange ? 'ok' : 'DR_BAD_HANDLE')
            if (!isRange) expect(await state(0)).toEqual(before)
          }
          expectWhole(await state(0), capacity)
        }
      }),
      { numRuns: 200 },
    )
  })

  it.each([
    [0, 64],
    [64, 0],
    [100, 64],
  ])('is never made with a capacity of %d and a granule of %d', async (capacity, size) => {
    expect(await ask('heap', capacity, size)).toBe('DR_INVALID')
  })

  it('has no room for more bytes than there are', async () => {
    await ask('reset')
    await ask('heap', 4096, granule)
    for (const bytes of ['4097', '18446744073709551615', '18446744073709551600']) expect(await ask('take', 0, bytes)).toBe('none')
    expect(await ask('at', 0, 64, '18446744073709551615')).toBe('no')
    expect((await state(0)).used).toBe(0)
  })
})

interface Scene {
  heaps: { granules: number; takes: number[]; gives: number[] }[]
  pins: number
  budget: number
}

const scene = (size: fc.Arbitrary<number>): fc.Arbitrary<Scene> =>
  fc.record({
    heaps: fc.array(
      fc.record({
        granules: fc.integer({ min: 4, max: 40 }),
        takes: fc.array(size, { maxLength: 20 }),
        gives: fc.array(fc.nat(), { maxLength: 12 }),
      }),
      { minLength: 1, maxLength: 4 },
    ),
    pins: fc.nat({ max: 4 }),
    budget: fc.oneof(fc.constant(1e9), fc.nat({ max: 60 * granule })),
  })

async function arrange({ heaps }: Scene): Promise<State[]> {
  await ask('reset')
  const states: State[] = []
  for (const [heap, { granules, takes, gives }] of heaps.entries()) {
    await ask('heap', granules * granule, granule)
    for (const bytes of takes) await ask('take', heap, bytes)
    for (const which of gives) {
      const { ranges } = await state(heap)
      const range = ranges[which % Math.max(1, ranges.length)]
      if (range) await ask('give', heap, range.offset)
    }
    states.push(await state(heap))
  }
  return states
}

/** Carries out a plan with the allocator itself, which refuses a target that is not free. @returns what was moved */
async function carryOut(plan: string, pinned: Set<string>): Promise<number> {
  let moved = 0
  for (const [, from, at, to, target, bytes] of plan.matchAll(/(\d+):(\d+)>(\d+):(\d+)=(\d+)/g)) {
    expect(pinned.has(`${from}:${at}`)).toBe(false)
    const source = (await state(Number(from))).ranges.find(({ offset }) => offset === Number(at))
    expect(source?.size).toBe(Number(bytes))
    expect(await ask('at', to!, target!, bytes!)).toBe('yes') // free, so it overlaps nothing, its own source neither
    expect(await ask('give', from!, at!)).toBe('ok')
    moved += Number(bytes)
  }
  return moved
}

describe('the defragmentation planner', () => {
  it('plans moves that can be made in their order, leave pinned ranges alone, keep the budget and never make it worse', async () => {
    await fc.assert(
      fc.asyncProperty(scene(fc.integer({ min: 1, max: 9 * granule })), async (given) => {
        const before = await arrange(given)
        const all = before.flatMap(({ ranges }, heap) => ranges.map(({ offset }) => `${heap}:${offset}`))
        const pinned = new Set(all.filter((_, index) => given.pins > 0 && index % (given.pins + 1) === 0))
        const fragmented = Number(await ask('fragmentation'))
        const plan = await ask('plan', given.budget, ...pinned)
        expect(await carryOut(plan, pinned)).toBeLessThanOrEqual(given.budget)
        const after: State[] = []
        for (const heap of before.keys()) after.push(await state(heap))
        for (const [heap, each] of after.entries()) expectWhole(each, given.heaps[heap]!.granules * granule)
        const sizes = (states: State[]): number[] =>
          states.flatMap(({ ranges }) => ranges.map(({ size }) => size)).toSorted((a, b) => a - b)
        expect(sizes(after)).toEqual(sizes(before))
        const inUse = (states: State[]): number => states.filter(({ used }) => used > 0).length
        expect(inUse(after)).toBeLessThanOrEqual(inUse(before))
        expect(Number(await ask('fragmentation'))).toBeLessThanOrEqual(fragmented + 1e-5)
      }),
      { numRuns: 300 },
    )
  })

  it('leaves one hole in every heap when all ranges are small and free to move', async () => {
    await fc.assert(
      fc.asyncProperty(scene(fc.constant(granule)), async (given) => {
        const before = await arrange(given)
        await carryOut(await ask('plan', 1e9), new Set())
        for (const heap of before.keys()) expect((await state(heap)).holes.length).toBeLessThanOrEqual(1)
        expect(await ask('plan', 1e9)).toBe('')
      }),
      { numRuns: 100 },
    )
  })

  it('empties a heap whose ranges fit into the others', async () => {
    await ask('reset')
    await ask('heap', 640, granule)
    await ask('heap', 640, granule)
    for (const [heap, count] of [
      [0, 8],
      [1, 2],
    ] as const)
      for (let i = 0; i < count; i++) await ask('take', heap, granule)
    await carryOut(await ask('plan', 1e9), new Set())
    expect([(await state(0)).used, (await state(1)).used]).toEqual([640, 0])
  })

  it('goes around by another hole when the gap is smaller than the range', async () => {
    await ask('reset')
    await ask('heap', 640, granule)
    await ask('take', 0, granule)
    await ask('take', 0, 3 * granule)
    await ask('give', 0, 0)
    const plan = await ask('plan', 1e9)
    expect(plan.trim().split(' ')).toHaveLength(2)
    await carryOut(plan, new Set())
    expect((await state(0)).ranges).toEqual([{ offset: 0, size: 192 }])
  })
})
