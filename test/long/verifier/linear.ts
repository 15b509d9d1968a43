/**
 * Whether a history of concurrent operations can be put into one order: each operation takes effect at some moment
 * between its call and its answer, and each answer is what the model says in that order (Herlihy and Wing 1990). The
 * search is that of Wing and Gong, "Testing and verifying concurrent objects" (J. Parallel Distrib. Comput. 17, 1993):
 * of the operations that no other has ended before, one is tried after another. What was tried in vain, a set of
 * operations and the state behind it, is remembered (Lowe, "Testing for linearizability", Concurrency Computat. 29(4),
 * 2017).
 */

/** An operation as its client saw it; times by one clock. */
export interface Operation<Asked, Answer> {
  asked: Asked
  calledAt: number
  /** Infinity of one whose answer nobody heard: it may have its effect at any time, or never. */
  answeredAt: number
  /** undefined likewise. */
  answer: Answer | undefined
}

export interface Model<State, Asked, Answer> {
  begin: State
  /** Every state that the operation may leave with that answer, `undefined` for none. Empty: it cannot be so. */
  next: (state: State, asked: Asked, answer: Answer | undefined) => State[]
}

/** States that are looked at for one history at most. */
const mostStates = 200_000

/**
 * The operations in an order that explains them, those without effect left out; or, where there is none, the longest
 * order that was found. `untold`: it has more orders than can be tried.
 */
export function linearize<State, Asked, Answer>(
  operations: readonly Operation<Asked, Answer>[],
  { begin, next }: Model<State, Asked, Answer>,
): { is: 'linear' | 'not' | 'untold'; order: Operation<Asked, Answer>[] } {
  const sorted = operations.toSorted((a, b) => a.calledAt - b.calledAt)
  const isUnheard = ({ answeredAt }: Operation<Asked, Answer>): boolean => answeredAt === Infinity
  const tried = new Set<string>()
  let longest: number[] = []
  const isDone = (done: readonly number[]): boolean => sorted.every((operation, i) => isUnheard(operation) || done.includes(i))
  const search = (done: number[], state: State): number[] | undefined => {
    if (isDone(done)) return done
    const at = JSON.stringify(state)
    const key = `${done.toSorted((a, b) => a - b).join()} ${at}`
    if (tried.has(key)) return undefined
    tried.add(key)
    if (tried.size > mostStates) return undefined
    if (done.length > longest.length) longest = done
    const left = sorted.flatMap((operation, i) => (done.includes(i) ? [] : [{ operation, i }]))
    const firstAnswer = Math.min(...left.map(({ operation }) => operation.answeredAt))
    for (const { operation, i } of left) {
      if (operation.calledAt > firstAnswer) break
      for (const after of next(state, operation.asked, operation.answer)) {
        // One that nobody heard of and that would change nothing may as well never have happened.
        if (isUnheard(operation) && JSON.stringify(after) === at) continue
        const found = search([...done, i], after)
        if (found) return found
      }
    }
    return undefined
  }
  const found = search([], begin)
  const is = found ? 'linear' : tried.size > mostStates ? 'untold' : 'not'
  return { is, order: (found ?? longest).map((i) => sorted[i] as Operation<Asked, Answer>) }
}

// ---- one session ----

/** What clients ask of a session that waits for signals; `word` names a signal, and is its event id and its data. */
export type Asked = { do: 'submit' } | { do: 'pause' | 'resume' | 'cancel' } | { do: 'signal'; word: string } | { do: 'get' }

export interface Answer {
  /** Of HTTP. */
  code: number
  /** What a `get` has seen; `said`: the words that the ended session has heard, in order. */
  status?: string
  said?: string[]
}

interface SessionState {
  is: 'absent' | 'open' | 'succeeded' | 'cancelled'
  isPaused: boolean
  /** Words that were taken, in order; one that comes again counts once. */
  heard: string[]
}

/**
 * A session that succeeds, some time after it has taken so many signals, while it is not paused. What it takes while it
 * is paused it hears when it goes on.
 */
export const sessionModel = (needed: number): Model<SessionState, Asked, Answer> => ({
  begin: { is: 'absent', isPaused: false, heard: [] },
  next(state, asked, answer) {
    const mayEnd = state.is === 'open' && !state.isPaused && state.heard.length >= needed
    const states = mayEnd ? [state, { ...state, is: 'succeeded' as const }] : [state]
    return states.flatMap((each) => after(each, asked, answer, needed))
  },
})

/** Without anything that happens by itself. */
function after(state: SessionState, asked: Asked, answer: Answer | undefined, needed: number): SessionState[] {
  const only = (isSo: boolean, changed: SessionState): SessionState[] => (isSo ? [changed] : [])
  const { is, heard } = state
  if (asked.do === 'submit') {
    const made = is === 'absent' ? { ...state, is: 'open' as const } : state
    if (answer === undefined) return [made]
    return only(answer.code === (is === 'absent' ? 202 : 200), made)
  }
  if (is === 'absent') return []
  if (asked.do === 'get') return only(answer === undefined || isSeen(state, answer, needed), state)
  const isOpen = is === 'open'
  const changed = isOpen ? changedBy(asked, state) : state
  // What it has taken before its end it may be told again after it.
  const isRepeat = asked.do === 'signal' && heard.includes(asked.word)
  return only(answer === undefined || answer.code === (isOpen || isRepeat ? 200 : 409), changed)
}

function changedBy(asked: Exclude<Asked, { do: 'submit' | 'get' }>, state: SessionState): SessionState {
  if (asked.do === 'cancel') return { ...state, is: 'cancelled' }
  if (asked.do !== 'signal') return { ...state, isPaused: asked.do === 'pause' }
  return state.heard.includes(asked.word) ? state : { ...state, heard: [...state.heard, asked.word] }
}

function isSeen({ is, isPaused, heard }: SessionState, { code, status = '', said = [] }: Answer, needed: number): boolean {
  if (code !== 200) return false
  if (is === 'succeeded') return status === is && said.join() === heard.slice(0, needed).join()
  if (is === 'cancelled') return status === is
  return (isPaused ? ['pausing', 'paused'] : ['queued', 'running']).includes(status)
}
