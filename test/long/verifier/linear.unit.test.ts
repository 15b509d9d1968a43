/** The check of histories by itself: what has an order passes, each broken promise is found and shown in few lines. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { linearize, witnessOf, type Model, type Operation } from './linear.ts'
import { judgeHistories, spoil } from './linear-judge.ts'
import { operationsOf, sessionModel, type Answer, type Asked, type Recorded, type Seen } from './linear-model.ts'

const needed = 2
const model = sessionModel(needed)
const isOf = (history: readonly Recorded[]): string => linearize(operationsOf(history), model).is

let clients = 0
const line = (calledAt: number, answeredAt: number, asked: Asked, answer?: Answer): Recorded => {
  const heard = answer ? { answeredAt, answer } : { answeredAt: Infinity, answer: undefined }
  return { client: clients++ % 4, api: 'api-1', asked, calledAt, ...heard }
}
const view = (status: Seen['status'], version: number, ...said: string[]): Seen => ({ id: 'x', status, version, said })
const submit = (from: number, to: number, code = 202, seen = view('running', 1)): Recorded =>
  line(from, to, { do: 'submit' }, { code, seen })
const tell = (from: number, to: number, word: string, seen?: Seen): Recorded =>
  line(from, to, { do: 'signal', word }, { code: 200, ...(seen && { seen }) })
const control = (from: number, to: number, verb: 'pause' | 'resume' | 'cancel', seen?: Seen): Recorded =>
  line(from, to, { do: verb }, { code: 200, ...(seen && { seen }) })
const refused = (from: number, to: number, asked: Asked, ended: Seen['status']): Recorded => line(from, to, asked, { code: 409, ended })
const look = (from: number, to: number, status: Seen['status'], version: number, ...said: string[]): Recorded =>
  line(from, to, { do: 'get' }, { code: 200, seen: view(status, version, ...said) })
const lost = (from: number, asked: Asked): Recorded => line(from, 0, asked)

const begun = submit(0, 1)
/** Two signals were taken, and the session has succeeded. */
const done = [begun, tell(2, 3, 'a'), tell(4, 5, 'b'), look(6, 7, 'succeeded', 4, 'a', 'b')]

describe('a history that has an order', () => {
  it.each<[string, Recorded[]]>([
    ['as it came', done],
    ['when what overlaps came the other way round', [begun, tell(2, 5, 'a'), tell(3, 4, 'b'), look(6, 7, 'succeeded', 4, 'b', 'a')]],
    ['with one key sent twice at once', [begun, submit(0, 2, 200, view('paused', 1)), control(0.5, 3, 'pause')]],
    [
      'whose answer shows what another did since',
      [begun, control(2, 6, 'pause', view('running', 1)), control(3, 5, 'resume', view('running', 1))],
    ],
    ['with a pause that takes its time', [begun, ...done.slice(1, 3), control(6, 7, 'pause', view('pausing', 3)), look(8, 9, 'paused', 3)]],
    [
      'with a signal taken while it is paused',
      [begun, control(2, 3, 'pause'), tell(4, 5, 'a', view('paused', 1)), control(6, 7, 'resume'), look(8, 9, 'running', 2)],
    ],
    [
      'with a signal sent again after the end',
      [...done, tell(8, 9, 'a', view('succeeded', 4, 'a', 'b')), refused(8, 9, { do: 'signal', word: 'c' }, 'succeeded')],
    ],
    ['with a cancel sent again', [begun, control(2, 3, 'cancel', view('cancelled', 1)), control(4, 5, 'cancel', view('cancelled', 1))]],
  ])('%s', (_, history) => {
    expect(isOf(history)).toBe('linear')
  })

  it('where an answer was lost: it had its effect, late or at once, or never', () => {
    const unheard = lost(2, { do: 'signal', word: 'a' })
    const others = [tell(3, 4, 'b'), tell(5, 6, 'c')]
    for (const said of [
      ['a', 'b'],
      ['b', 'a'],
      ['b', 'c'],
    ]) {
      expect(isOf([begun, unheard, ...others, look(7, 8, 'succeeded', said.includes('c') ? 4 : 5, ...said)])).toBe('linear')
    }
    expect(isOf([begun, lost(2, { do: 'pause' }), look(3, 4, 'running', 1), look(50, 60, 'paused', 1)])).toBe('linear')
    expect(isOf([lost(0, { do: 'submit' }), submit(1, 2, 200)])).toBe('linear')
    expect(isOf([lost(0, { do: 'submit' }), submit(1, 2, 202)])).toBe('linear')
  })
})

const broken: [string, Recorded[], number][] = [
  ['a stale look', [begun, tell(2, 3, 'a', view('running', 2)), look(4, 5, 'running', 1)], 2],
  ['a look that goes back behind an earlier one', [begun, lost(2, { do: 'pause' }), look(3, 4, 'paused', 1), look(5, 6, 'running', 1)], 2],
  ['a cancel that is lost', [begun, control(2, 3, 'cancel'), look(4, 5, 'running', 1)], 2],
  ['a pause that is lost', [begun, control(2, 3, 'pause'), look(4, 5, 'running', 1)], 2],
  ['a resume that came before its pause', [begun, control(2, 3, 'pause'), control(4, 5, 'resume'), look(6, 7, 'paused', 1)], 3],
  ['a session that ends twice', [...done, refused(8, 9, { do: 'cancel' }, 'succeeded'), look(10, 11, 'cancelled', 3)], 2],
  ['an end that is taken back', [...done, look(8, 9, 'running', 3)], 2],
  ['two ids of one key', [begun, submit(2, 3, 200, { ...view('running', 1), id: 'y' })], 2],
  ['one key that makes two sessions', [begun, submit(2, 3, 202)], 2],
  ['an effect before it was asked for', [begun, look(2, 3, 'paused', 1), lost(4, { do: 'pause' })], 1],
  [
    'a lost answer that took effect twice',
    [begun, lost(2, { do: 'pause' }), look(3, 4, 'paused', 1), control(5, 6, 'resume'), look(7, 8, 'paused', 1)],
    3,
  ],
  [
    'a signal that was taken and is lost',
    [begun, tell(2, 3, 'a'), tell(4, 5, 'b'), tell(6, 7, 'c'), look(8, 9, 'succeeded', 4, 'a', 'c')],
    3,
  ],
  ['signals in another order than they were taken in', [...done.slice(0, 3), look(6, 7, 'succeeded', 4, 'b', 'a')], 3],
  ['a signal that counts twice', [begun, tell(2, 3, 'a'), tell(4, 5, 'a'), look(6, 7, 'succeeded', 4, 'a', 'a')], 1],
  ['a signal that is taken after the end', [begun, control(2, 3, 'cancel'), tell(4, 5, 'a')], 2],
  ['a refusal before the end', [begun, refused(2, 3, { do: 'pause' }, 'cancelled'), look(4, 5, 'running', 1)], 1],
  ['a refusal that names another end', [begun, control(2, 3, 'cancel'), refused(4, 5, { do: 'pause' }, 'succeeded')], 1],
  [
    'progress while it is paused',
    [begun, tell(2, 3, 'a', view('running', 2)), control(4, 5, 'pause'), tell(6, 7, 'b'), look(8, 9, 'paused', 3)],
    3,
  ],
  ['an end while it is paused', [begun, control(2, 3, 'pause'), tell(4, 5, 'a'), tell(6, 7, 'b'), look(8, 9, 'succeeded', 4, 'a', 'b')], 2],
  ['a pause that waits for nothing', [begun, control(2, 3, 'pause', view('pausing', 1))], 1],
]

describe('a history without an order', () => {
  it.each(broken)('%s', (_, history) => {
    expect(isOf(history)).toBe('not')
  })

  it.each(broken)('%s: is shown in as few lines as there can be', (_, history, lines) => {
    // What it stands among explains nothing of it.
    const among = [...history, ...Array.from({ length: 6 }, (__, i) => look(1.1 + i / 10, 1.11 + i / 10, 'running', 1))]
    const { core } = witnessOf(operationsOf(among), model)
    expect(linearize(core, model).is).toBe('not')
    expect(core).toHaveLength(lines)
  })
})

// ---- against all orders there are ----

/** All orders of a list. */
function* ordersOf<T>(list: readonly T[]): Generator<T[]> {
  if (list.length === 0) yield []
  for (const [i, each] of list.entries()) for (const rest of ordersOf(list.toSpliced(i, 1))) yield [each, ...rest]
}

/** Every choice of what was not heard of, in every order. */
function isLinearByForce<State, A, B>(operations: readonly Operation<A, B>[], { begin, next }: Model<State, A, B>): boolean {
  const unheard = operations.filter(({ answer }) => answer === undefined)
  for (let choice = 0; choice < 2 ** unheard.length; choice++) {
    const there = operations.filter((each) => each.answer !== undefined || (choice >> unheard.indexOf(each)) % 2 === 1)
    for (const order of ordersOf(there)) {
      const isInTime = order.every(({ calledAt, after }, i) =>
        order.slice(i + 1).every((later) => later.answeredAt >= calledAt && (later.n !== after || later.answer === undefined)),
      )
      if (!isInTime) continue
      const ends = order.reduce<State[]>((states, { asked, answer }) => states.flatMap((state) => next(state, asked, answer)), [begin])
      if (ends.length > 0) return true
    }
  }
  return false
}

interface Drawn {
  asked: Asked
  /** When it has its effect, how long before that it was called, and how long after that it was answered. */
  at: number
  before: number
  after: number
  isHeard: boolean
  /** What happens by itself before it: nothing, or so much of what may. */
  moves: number
}

const drawn: fc.Arbitrary<Drawn> = fc.record({
  asked: fc.oneof(
    fc.constantFrom<Asked>({ do: 'submit' }, { do: 'pause' }, { do: 'resume' }, { do: 'cancel' }, { do: 'get' }, { do: 'get' }),
    fc.constantFrom('a', 'b', 'c').map((word): Asked => ({ do: 'signal', word })),
  ),
  at: fc.nat(60),
  before: fc.nat(20),
  after: fc.nat(20),
  isHeard: fc.boolean(),
  moves: fc.nat(3),
})

/**
 * What clients record of a session that is really there: not by the model, but as the engine goes about it. Whoever has
 * a request of the list sees the session as it is at that moment.
 */
function recordedOf(list: readonly Drawn[]): Recorded[] {
  let status: Seen['status'] = 'running'
  let version = 1
  let inbox: string[] = []
  let heard: string[] = []
  const taken = new Set<string>()
  let isRunning = false
  const isOver = (): boolean => status === 'succeeded' || status === 'cancelled'
  const seen = (): Seen => view(status, version, ...(status === 'succeeded' ? heard.slice(0, needed) : []))
  const goOn = (): void => {
    const [word] = inbox
    if (status === 'pausing') [status, isRunning] = ['paused', false]
    else if (status !== 'running') return
    else if (word !== undefined) [inbox, heard, version] = [inbox.slice(1), [...heard, word], version + 1]
    else if (heard.length >= needed && !isRunning) isRunning = true
    else if (isRunning) [status, version] = ['succeeded', version + 1]
  }
  const act = (asked: Asked): Answer => {
    if (asked.do === 'submit') return { code: 200, seen: seen() }
    if (asked.do === 'get') return { code: 200, seen: seen() }
    if (isOver()) {
      const isRepeat = asked.do === 'signal' ? taken.has(asked.word) : asked.do === 'cancel' && status === 'cancelled'
      return isRepeat ? { code: 200, seen: seen() } : { code: 409, ended: status }
    }
    if (asked.do === 'cancel') status = 'cancelled'
    if (asked.do === 'resume') status = 'running'
    if (asked.do === 'pause' && status === 'running') status = isRunning ? 'pausing' : 'paused'
    if (asked.do === 'signal' && !taken.has(asked.word)) {
      taken.add(asked.word)
      inbox = [...inbox, asked.word]
    }
    return { code: 200, seen: seen() }
  }
  const recorded = list
    .toSorted((a, b) => a.at - b.at)
    .map(({ asked, at, before, after, isHeard, moves }): Recorded => {
      for (let i = 0; i < moves; i++) goOn()
      const answer = act(asked)
      return line(100 + at - before, 100 + at + after, asked, isHeard ? answer : undefined)
    })
  return [{ ...begun }, ...recorded]
}

describe('the search', () => {
  it('says of small histories, true ones and ones with a lie, what a try of all orders says', () => {
    const lie = fc.record({ of: fc.nat(), by: fc.nat(), version: fc.integer({ min: -1, max: 1 }) })
    let [linear, not] = [0, 0]
    fc.assert(
      fc.property(fc.array(drawn, { minLength: 2, maxLength: 5 }), fc.option(lie), (list, told) => {
        const history = recordedOf(list)
        const [one, other] = [told && history[told.of % history.length], told && history[told.by % history.length]]
        if (told && one?.answer && other?.answer?.seen)
          one.answer = { ...other.answer, seen: { ...other.answer.seen, version: other.answer.seen.version + told.version } }
        const operations = operationsOf(history)
        fc.pre(operations.length <= 7)
        const isLinear = isLinearByForce(operations, model)
        if (isLinear) linear++
        else not++
        expect(linearize(operations, model).is).toBe(isLinear ? 'linear' : 'not')
        if (isLinear) return
        const { core, best } = witnessOf(operations, model)
        expect(isLinearByForce(core, model)).toBe(false)
        expect(best.is).toBe('not')
      }),
      { numRuns: 400 },
    )
    expect(Math.min(linear, not)).toBeGreaterThan(40)
  })

  it('is done soon with many answers that were lost, of a history without an order too', () => {
    const asked: Asked[] = [
      { do: 'pause' },
      { do: 'resume' },
      { do: 'cancel' },
      ...['a', 'b', 'c'].map((word): Asked => ({ do: 'signal', word })),
    ]
    const unheard = Array.from({ length: 60 }, (_, i) => lost(2 + i / 10, asked[i % asked.length] as Asked))
    const seen = Array.from({ length: 10 }, (_, i) => look(10 + i, 12 + i, i % 2 === 0 ? 'paused' : 'running', 1))
    expect(isOf([begun, ...unheard, ...seen])).toBe('linear')
    expect(isOf([begun, ...unheard, ...seen, look(30, 31, 'running', 3), look(32, 33, 'running', 2)])).toBe('not')
  })

  it('finds an order of whatever really happened', () => {
    fc.assert(
      fc.property(fc.array(drawn, { maxLength: 30 }), (list) => {
        expect(isOf(recordedOf(list))).toBe('linear')
      }),
      { numRuns: 500 },
    )
  })
})

describe('the verdict', () => {
  it('finds two answers that were exchanged, and says so in words', () => {
    const history = [begun, look(1, 3, 'running', 1), tell(2, 4, 'a'), look(5, 6, 'running', 2), look(5, 7, 'running', 2)]
    const good = judgeHistories(new Map([['k', history]]), needed)
    expect(good).toMatchObject({ problems: [], voids: [], spoiled: 1, foundSpoiled: 1 })
    const bad = judgeHistories(new Map([['k', spoil(history) ?? []]]), needed)
    expect(bad.problems).toHaveLength(1)
    expect(bad.problems[0]).toMatch(/^k: no order explains these of its 5 requests:\n/)
    expect(bad.problems[0]).toMatch(/get → 200 running, version 2\n/)
  })

  it('is void where nothing was answered beside anything else', () => {
    expect(judgeHistories(new Map([['k', done]]), needed).voids).toEqual([expect.stringContaining('0 of 4 answered requests')])
    expect(judgeHistories(new Map(), needed).voids).toHaveLength(1)
  })
})
