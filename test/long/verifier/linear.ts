/**
 * Whether a history of concurrent operations can be put into one order: each operation takes effect at some moment
 * between its call and its answer, and each answer is what the model says in that order (Herlihy and Wing 1990). The
 * search is that of Wing and Gong, "Testing and verifying concurrent objects" (J. Parallel Distrib. Comput. 17, 1993):
 * of the operations that no other has ended before, one is tried after another. What was tried in vain, a set of
 * operations and the state behind it, is remembered (Lowe, "Testing for linearizability", Concurrency Computat. 29(4),
 * 2017); of operations whose answer was lost that set needs only to have as few.
 */

/** An operation as its client saw it; times by one clock. */
export interface Operation<Asked, Answer> {
  /** Its name in its history. */
  n: number
  asked: Asked
  calledAt: number
  /** Infinity of one whose answer nobody heard: it may have its effect at any time after its call, or never. */
  answeredAt: number
  /** undefined likewise. */
  answer: Answer | undefined
  /** The operation behind which it comes, where one request does two things in order. */
  after?: number | undefined
}

/** `State` is plain JSON: states are told apart by their text. */
export interface Model<State, Asked, Answer> {
  begin: State
  /**
   * Every state that the operation may leave with that answer, `undefined` for none, whatever happened by itself before
   * it. Empty: it cannot be so.
   */
  next: (state: State, asked: Asked, answer: Answer | undefined) => State[]
  /** It never changes anything, in no state. */
  isRead: (asked: Asked) => boolean
}

export interface Linearized<State, Asked, Answer> {
  /** `untold`: it has more orders than can be tried. */
  is: 'linear' | 'not' | 'untold'
  /** The order that explains them, those without effect left out; where there is none, the longest that was found. */
  order: Operation<Asked, Answer>[]
  /** The state behind it. */
  state: State
}

/** States that are looked at for one history at most. */
const mostStates = 100_000

export function linearize<State, Asked, Answer>(
  operations: readonly Operation<Asked, Answer>[],
  { begin, next, isRead }: Model<State, Asked, Answer>,
): Linearized<State, Asked, Answer> {
  // A look that nobody has heard of tells nothing.
  const sorted = operations.filter((each) => each.answer !== undefined || !isRead(each.asked)).toSorted((a, b) => a.calledAt - b.calledAt)
  // Those that nobody has heard of, by what they ask: of several that ask the same, the first comes first.
  const texts = sorted.map(({ answer, asked }) => (answer === undefined ? JSON.stringify(asked) : undefined))
  const kinds = [...new Set(texts.filter((text) => text !== undefined))]
  const kindOf = texts.map((text) => (text === undefined ? undefined : kinds.indexOf(text)))
  const place = new Map(sorted.map(({ n }, i) => [n, i]))
  // Behind one that may never have been, it comes by itself.
  const behind = sorted.map(({ after = -1 }) => {
    const i = place.get(after)
    return i === undefined || kindOf[i] !== undefined ? undefined : i
  })
  const isDone = sorted.map(() => false)
  /** Of each kind that nobody has heard of, how many have had their effect. */
  const used = kinds.map(() => 0)
  let left = kindOf.filter((kind) => kind === undefined).length
  const path: number[] = []
  let longest: { path: number[]; state: State } = { path: [], state: begin }
  /** By the answered ones that were done and the state behind them, what of the others was used. */
  const tried = new Map<string, number[][]>()
  let states = 0

  /** Those that may come next, heard ones first: each was called before any other that is left was answered. */
  const candidates = (): number[] => {
    const firstAnswer = Math.min(...sorted.map(({ answeredAt }, i) => (isDone[i] ? Infinity : answeredAt)))
    const seen = new Set<number>()
    const heard: number[] = []
    const unheard: number[] = []
    for (const [i, { calledAt }] of sorted.entries()) {
      if (calledAt > firstAnswer) break
      const [kind, first] = [kindOf[i], behind[i]]
      if (isDone[i] || (first !== undefined && !isDone[first]) || (kind !== undefined && seen.has(kind))) continue
      if (kind === undefined) heard.push(i)
      else {
        seen.add(kind)
        unheard.push(i)
      }
    }
    return [...heard, ...unheard]
  }
  /** With no more of the unheard ones used up it was in vain already. */
  const isTried = (at: string): boolean => {
    const key = `${isDone.map((is, i) => (is && kindOf[i] === undefined ? '1' : '0')).join('')} ${at}`
    const before = tried.get(key) ?? []
    if (before.some((less) => less.every((count, kind) => count <= (used[kind] ?? 0)))) return true
    tried.set(key, [...before, [...used]])
    return false
  }
  const search = (state: State): State | undefined => {
    if (path.length > longest.path.length) longest = { path: [...path], state }
    if (left === 0) return state
    const at = JSON.stringify(state)
    if (states > mostStates || isTried(at)) return undefined
    states++
    const go = (i: number, to: State): State | undefined => {
      const kind = kindOf[i]
      const count = (by: 1 | -1): void => {
        if (kind === undefined) left -= by
        else used[kind] = (used[kind] ?? 0) + by
        isDone[i] = by === 1
      }
      count(1)
      path.push(i)
      const found = search(to)
      if (found) return found
      path.pop()
      count(-1)
      return undefined
    }
    const choices = candidates().map((i) => {
      const { asked, answer } = sorted[i] as Operation<Asked, Answer>
      return { i, isLook: isRead(asked), to: next(state, asked, answer) }
    })
    // What only looks, and sees this very state, may as well look now: any order that has it later has it here too.
    const look = choices.find(({ isLook, to }) => isLook && to.some((each) => JSON.stringify(each) === at))
    if (look) return go(look.i, state)
    for (const { i, to } of choices) {
      for (const each of to) {
        // One that nobody heard of and that changes nothing may as well never have been.
        if (kindOf[i] !== undefined && JSON.stringify(each) === at) continue
        const found = go(i, each)
        if (found) return found
      }
    }
    return undefined
  }
  const found = search(begin)
  const is = found ? 'linear' : states > mostStates ? 'untold' : 'not'
  const { path: order, state } = found ? { path, state: found } : longest
  return { is, order: order.map((i) => sorted[i] as Operation<Asked, Answer>), state }
}

export interface Witness<State, Asked, Answer> {
  /** No order explains these, whatever else has happened. The last one is the first that cannot be explained. */
  core: Operation<Asked, Answer>[]
  /** What else was asked: whether and whenever it took effect, it explains nothing. */
  besides: Asked[]
  /** How far an order of the core goes. */
  best: Linearized<State, Asked, Answer>
}

/**
 * The shortest history one can read of one that has no order. Each cut keeps what follows from the whole: a beginning
 * of a history that has an order has one itself; so has one without some of its looks; and an answer that is forgotten,
 * or an operation that may have been called at any time before, only makes more orders possible.
 */
export function witnessOf<State, Asked, Answer>(
  operations: readonly Operation<Asked, Answer>[],
  model: Model<State, Asked, Answer>,
): Witness<State, Asked, Answer> {
  type Operations = Operation<Asked, Answer>[]
  const fails = (list: Operations): boolean => linearize(list, model).is === 'not'
  const forgotten = (each: Operations[number]): Operations[number] => ({ ...each, answeredAt: Infinity, answer: undefined })
  const until = (at: number): Operations =>
    operations.filter(({ calledAt }) => calledAt <= at).map((each) => (each.answeredAt <= at ? each : forgotten(each)))

  const ends = operations.flatMap(({ answer, answeredAt }) => (answer === undefined ? [] : [answeredAt])).toSorted((a, b) => a - b)
  let [low, high] = [0, ends.length - 1]
  while (low < high) {
    const middle = Math.floor((low + high) / 2)
    if (fails(until(ends[middle] as number))) high = middle
    else low = middle + 1
  }
  let core = until(ends[low] as number).filter(({ asked, answer }) => answer !== undefined || !model.isRead(asked))
  const tryOn = (changed: (each: Operations[number]) => Operations): void => {
    for (const each of core.toSorted((a, b) => b.answeredAt - a.answeredAt)) {
      const shorter = core.flatMap((other) => (other === each ? changed(each) : [other]))
      if (fails(shorter)) core = shorter
    }
  }
  tryOn((each) => (model.isRead(each.asked) ? [] : [each]))
  tryOn((each) => (model.isRead(each.asked) ? [each] : [forgotten(each)]))
  tryOn((each) => (each.answer === undefined ? [{ ...each, calledAt: -Infinity }] : [each]))
  const besides = core.filter(({ calledAt }) => calledAt === -Infinity).map(({ asked }) => asked)
  const best = linearize(core, model)
  core = core.filter(({ calledAt }) => calledAt !== -Infinity).toSorted((a, b) => a.answeredAt - b.answeredAt || a.calledAt - b.calledAt)
  return { core, besides, best }
}
