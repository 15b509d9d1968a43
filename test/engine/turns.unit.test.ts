import { describe, expect, it } from 'vitest'
import { modelWord, Nearness, noModel } from '../../src/engine/nearness.ts'
import { Slots, type Holder, type SlotWorker } from '../../src/engine/slots.ts'
import { Turns, type Line } from '../../src/engine/turns.ts'
import { queues } from '../../src/keys.ts'

const line = (key: string, priority: number, waited: number[], queue = 'gpu.01234567'): Line => ({
  name: `${queue} ${priority} ${key} -`,
  shard: 0,
  queue,
  priority,
  key,
  group: null,
  model: '-',
  length: waited.length,
  head: waited.map((waitedMs, i) => ({ stepKey: `${key}${priority}-${i}`, order: -waitedMs, waitedMs })),
})

const fresh = { floor: 0, byKey: new Map<string, number>() }
const equal = { ageingMs: 600_000, weightOf: () => 1 }

/** The first `n` that are let in. */
function order(turns: Turns, n = Infinity): string[] {
  const chosen: string[] = []
  for (let choice = turns.next(() => true); choice; choice = chosen.length < n ? turns.next(() => true) : undefined)
    chosen.push(choice.waiter.stepKey)
  return chosen
}

const many = (n: number): number[] => Array.from({ length: n }, (_, i) => 1000 + n - i)

describe('who is let in next', () => {
  it('the highest priority, then who waits longest', () => {
    expect(order(new Turns([line('a', 3, [50, 10]), line('a', 7, [5])], fresh, equal))).toEqual(['a7-0', 'a3-0', 'a3-1'])
  })

  it('a priority rises with waiting, to 9 at most: among equals who came first', () => {
    const old = line('a', 0, [10 * 600_000])
    expect(order(new Turns([line('a', 9, [5]), old], fresh, equal))).toEqual(['a0-0', 'a9-0'])
    const risesBy = (ms: number): string[] => order(new Turns([line('a', 5, [5]), line('a', 0, [ms])], fresh, equal))
    expect(risesBy(5 * 600_000 - 1)).toEqual(['a5-0', 'a0-0'])
    expect(risesBy(5 * 600_000)).toEqual(['a0-0', 'a5-0'])
  })

  it('a key with one session comes second at the latest, whatever another has waiting', () => {
    const served = { floor: 500, byKey: new Map([['a', 501]]) }
    expect(order(new Turns([line('a', 5, many(100)), line('b', 5, [1])], served, equal), 2)).toContain('b5-0')
  })

  it.each([
    [1, 1],
    [3, 1],
    [5, 2],
    [0.5, 0.25],
  ])('keys of weights %d and %d are served in that proportion', (a, b) => {
    const rules = { ...equal, weightOf: (key: string) => (key === 'a' ? a : b) }
    const chosen = order(new Turns([line('a', 5, many(1000)), line('b', 5, many(1000))], fresh, rules), 700)
    const ofA = chosen.filter((step) => step.startsWith('a')).length / chosen.length
    expect(Math.abs(ofA - a / (a + b))).toBeLessThan(0.01)
  })

  it('who had nothing waiting has saved nothing up', () => {
    const idle = { floor: 0, byKey: new Map([['a', 1000]]) }
    const turns = new Turns([line('a', 5, many(100))], idle, equal)
    const first = turns.next(() => true)
    expect(first).toMatchObject({ share: 1001, floor: 1000 })
    const later = new Turns([line('a', 5, many(100)), line('b', 5, many(100))], { floor: 1000, byKey: new Map([['a', 1001]]) }, equal)
    expect(order(later, 20).filter((step) => step.startsWith('b'))).toHaveLength(10)
  })

  it('a share that the floor has overtaken is kept no longer', () => {
    const shares = {
      floor: 0,
      byKey: new Map([
        ['a', 8],
        ['gone', 3],
      ]),
    }
    expect(new Turns([line('a', 5, [1])], shares, equal).next(() => true)).toMatchObject({ floor: 8, overtaken: ['gone'] })
  })

  it('a line that may not let in keeps nobody back behind it', () => {
    const turns = new Turns([line('a', 9, [10], 'gpu.full'), line('a', 0, [1])], fresh, equal)
    expect(turns.next(({ queue }) => queue !== 'gpu.full')?.waiter.stepKey).toBe('a0-0')
    expect(turns.next(({ queue }) => queue !== 'gpu.full')).toBe(undefined)
  })
})

const worker = (id: string, exactnessKey = '01234567', shelf = 's', gpu = 1): SlotWorker => ({
  id,
  lanes: { gpu, host: 4 },
  exactnessKey,
  shelf,
  device: { id: `cpu-${id}`, kind: 'cpu', name: '', index: 0, totalBytes: null },
})
const held = (...holders: string[]): Holder[] =>
  holders.map((holder, i) => ({ stepKey: `s${i}.1.0`, holder, key: 'local', group: null, model: noModel, priority: 0, state: '-' }))
const ofClass = queues.gpuClass('01234567')
const ofA = queues.gpuDevice('cpu-a')

/** How many more fit into that queue. */
function room(slots: Slots, queue: string): number {
  let n = 0
  for (; slots.fits(queue) && n < 100; n++) slots.enter(queue)
  return n
}

describe('slots', () => {
  it('are two a worker: what runs and what comes next', () => {
    expect(room(new Slots([worker('a')], []), ofClass)).toBe(2)
    expect(room(new Slots([worker('a')], held('a')), ofClass)).toBe(1)
    expect(room(new Slots([worker('a')], held('a', ofClass)), ofClass)).toBe(0)
    expect(room(new Slots([worker('a'), worker('b')], held('a')), ofClass)).toBe(3)
  })

  it('are none where no worker takes from the queue; those of a worker that is gone count for nobody', () => {
    expect(room(new Slots([], []), ofClass)).toBe(0)
    expect(room(new Slots([worker('a', '89abcdef')], []), ofClass)).toBe(0)
    expect(room(new Slots([worker('a')], held('gone', 'gone', 'gone')), ofClass)).toBe(2)
  })

  it('what is bound to one worker takes its place there, and what is not goes to the other', () => {
    const both = [worker('a'), worker('b')]
    expect(room(new Slots(both, held('b', 'b', 'b')), ofA)).toBe(2)
    expect(room(new Slots(both, held(ofClass, ofClass)), ofA)).toBe(2)
    expect(room(new Slots(both, held('a', ofA)), ofClass)).toBe(2)
    expect(room(new Slots(both, held('a', ofA)), ofA)).toBe(0)
  })
})

describe('slots of a device that two sessions share', () => {
  const shared = worker('a', '01234567', 's', 2)

  it('are those of both that run, and one for what comes next', () => {
    expect(room(new Slots([shared], held('a')), ofA)).toBe(2)
    expect(room(new Slots([shared], held('a', 'a')), ofA)).toBe(1)
    expect(room(new Slots([shared], held('a', 'a', ofA)), ofA)).toBe(0)
  })

  it('what comes by a queue of several comes next, and then nothing goes along with what runs', () => {
    expect(room(new Slots([shared], held('a')), ofClass)).toBe(1)
    expect(room(new Slots([shared], held('a', 'a')), ofClass)).toBe(1)
    expect(room(new Slots([shared], held('a', 'a', ofClass)), ofClass)).toBe(0)
    expect(room(new Slots([shared], held('a', ofClass)), ofA)).toBe(0)
    expect(room(new Slots([shared], held('a', 'a', ofClass)), ofA)).toBe(0)
  })
})

describe('a session whose model is on a device', () => {
  const of = (model: string, ...waited: number[]): Line => ({
    ...line('a', 5, waited),
    model,
    name: `a ${model}`,
    head: line(model, 5, waited).head,
  })
  const worker = (id: string, ...resident: string[]) =>
    ({ id, exactnessKey: '01234567', shelf: 's', device: { id: `0123-cpu-${id}` }, resident }) as unknown as ConstructorParameters<
      typeof Nearness
    >[0][number]
  const any = (): boolean => true
  const [one, two] = [modelWord([{ id: 'one' }]), modelWord([{ id: 'two' }])]

  it('goes before one of its level that waits longer, and not before a higher level or a lesser share', () => {
    const turns = new Turns([of(one, 50), of(two, 10)], fresh, equal)
    expect(turns.next(any, ({ model }) => model === two)).toMatchObject({ waiter: { stepKey: `${two}5-0` }, passes: true })
    expect(turns.next(any, ({ model }) => model === two)).toMatchObject({ waiter: { stepKey: `${one}5-0` }, passes: false })
    const higher = new Turns([{ ...of(one, 10), priority: 6 }, of(two, 50)], fresh, equal)
    expect(higher.next(any, ({ model }) => model === two)?.line.model).toBe(one)
    const other = new Turns([line('b', 5, [10]), of(two, 50)], { floor: 0, byKey: new Map([['a', 1]]) }, equal)
    expect(other.next(any, ({ model }) => model === two)?.line.key).toBe('b')
  })

  it('is near a worker that has it, or draws with it, or will next; without a model it is near none', () => {
    const workers = [worker('v', 'one'), worker('w', 'two')]
    const near = new Nearness(workers, [])
    const queue = queues.gpuClass('01234567')
    expect(near.of({ queue, model: two }, any)).toBe(queues.gpuDevice('0123-cpu-w'))
    expect(near.of({ queue, model: two }, (own) => own !== queues.gpuDevice('0123-cpu-w'))).toBeUndefined()
    expect(near.of({ queue, model: modelWord([]) }, any)).toBeUndefined()
    expect(near.of({ queue: queues.gpuClass('89abcdef'), model: two }, any)).toBeUndefined()
    const beside = (...holders: [holder: string, model: string][]) =>
      new Nearness(
        workers,
        holders.map(([holder, model]) => ({ holder, model })),
      )
    // What was published is some seconds old.
    expect(beside(['v', two]).of({ queue, model: two }, any)).toBe(queues.gpuDevice('0123-cpu-v'))
    expect(beside(['w', one]).of({ queue, model: two }, any)).toBeUndefined()
    expect([beside(['v', two]).isIdle('w'), beside(['w', noModel]).isIdle('w')]).toEqual([true, false])
    // What comes next will be there before it takes another.
    expect(beside(['w', two], [queues.gpuDevice('0123-cpu-w'), one]).of({ queue, model: two }, any)).toBeUndefined()
    expect(beside(['w', noModel], [queue, one]).of({ queue, model: two }, any)).toBe(queues.gpuDevice('0123-cpu-w'))
    expect([near.only(queue), near.only(queues.gpuDevice('0123-cpu-v'))]).toEqual([undefined, 'v'])
  })

  it('is known by its own model, not by what is used beside it', () => {
    expect(modelWord([{ id: 'a LoRA', kind: 'lora' }, { id: 'one' }])).toBe(one)
    expect(one).toMatch(/^[0-9a-f]{10}$/)
  })
})
