/** The verdict over recorded histories: those that no order explains, in words, and whether they show anything. */
import { linearize, witnessOf, type Operation } from './linear.ts'
import { operationsOf, sessionModel, type Answer, type Asked, type Recorded } from './linear-model.ts'

/** Of the requests that were answered, this share must have been answered beside another of the same session. */
const leastBeside = 0.25
/** Share of the histories that may have more orders than can be tried: they show nothing. */
const mostUntold = 0.05
/** Histories that are shown whole. */
const shownWhole = 3

export interface LinearVerdict {
  problems: string[]
  /** Why the histories show nothing; empty when they show something. */
  voids: string[]
  requests: number
  unheard: number
  /** Requests that were answered while another one of their session was, which was answered too. */
  beside: number
  untold: number
  /** Copies of histories in which two answers were exchanged, and those in which that was found. */
  spoiled: number
  foundSpoiled: number
}

/** `needed`: signals that each session waits for. */
export function judgeHistories(histories: ReadonlyMap<string, readonly Recorded[]>, needed: number): LinearVerdict {
  const model = sessionModel(needed)
  const all = [...histories.values()].flat()
  const verdict: LinearVerdict = {
    problems: [],
    voids: [],
    requests: all.length,
    unheard: all.filter(({ answer }) => answer === undefined).length,
    beside: [...histories.values()].reduce((sum, history) => sum + besideOf(history), 0),
    untold: 0,
    spoiled: 0,
    foundSpoiled: 0,
  }
  for (const [key, history] of histories) {
    const { is } = linearize(operationsOf(history), model)
    if (is === 'untold') verdict.untold++
    if (is === 'not') verdict.problems.push(wordsOf(key, history, needed, verdict.problems.length < shownWhole))
    const spoiled = is === 'linear' ? spoil(history) : undefined
    if (!spoiled) continue
    verdict.spoiled++
    if (linearize(operationsOf(spoiled), model).is === 'not') verdict.foundSpoiled++
  }
  const { beside, requests, unheard, untold, spoiled, foundSpoiled } = verdict
  if (beside < leastBeside * (requests - unheard) || beside === 0)
    verdict.voids.push(
      `${beside} of ${requests - unheard} answered requests were answered beside another, at least ${leastBeside * 100} % must`,
    )
  if (untold > mostUntold * histories.size) verdict.voids.push(`${untold} of ${histories.size} sessions have more orders than can be tried`)
  if (foundSpoiled < spoiled) verdict.voids.push(`of ${spoiled} histories with two answers exchanged ${foundSpoiled} were found`)
  return verdict
}

function besideOf(history: readonly Recorded[]): number {
  const heard = history.filter(({ answer }) => answer !== undefined)
  const isBeside = (one: Recorded): boolean =>
    heard.some((other) => other !== one && other.calledAt < one.answeredAt && one.calledAt < other.answeredAt)
  return heard.filter(isBeside).length
}

/**
 * The history with the answers of two looks exchanged, one of which was over before the other began, and which saw
 * different versions: so the session goes back. undefined where there are no such two.
 */
export function spoil(history: readonly Recorded[]): Recorded[] | undefined {
  const looks = history.filter(({ asked, answer }) => asked.do === 'get' && answer?.seen)
  for (const one of looks) {
    const other = looks.find((each) => each.calledAt > one.answeredAt && each.answer?.seen?.version !== one.answer?.seen?.version)
    if (!other) continue
    return history.map((each) => {
      if (each === one) return { ...each, answer: other.answer }
      return each === other ? { ...each, answer: one.answer } : each
    })
  }
  return undefined
}

// ---- in words ----

/** The shortest history that has no order, with how far an order goes; `isWhole`: then all of it too. */
function wordsOf(key: string, history: readonly Recorded[], needed: number, isWhole: boolean): string {
  const { core, besides, best } = witnessOf(operationsOf(history), sessionModel(needed))
  const start = Math.min(...history.map(({ calledAt }) => calledAt))
  const times = history.flatMap(({ calledAt, answeredAt }) => (answeredAt === Infinity ? [calledAt] : [answeredAt]))
  const width = String(Math.round(Math.max(...times) - start)).length
  const time = (at: number): string => (at === Infinity ? '…' : String(Math.round(at - start))).padStart(width)
  const line = (
    by: Recorded,
    { calledAt, answeredAt, asked, answer }: Pick<Operation<Asked, Answer>, 'calledAt' | 'answeredAt' | 'asked' | 'answer'>,
  ): string => `    ${time(calledAt)} to ${time(answeredAt)} ms  client ${by.client}, ${by.api}: ${inWords(asked, answer)}`
  const lines = core.map((each) => line(history[Math.floor(each.n / 2)] as Recorded, each))
  const texts = besides.map((asked) => inWords(asked))
  const others = [...new Set(texts)].map((text) => {
    const { length } = texts.filter((each) => each === text)
    return length > 1 ? `${length} × ${text}` : text
  })
  return [
    `${key}: no order explains these of its ${history.length} requests:`,
    ...lines,
    ...(others.length > 0 ? [`    whether and whenever these had an effect too: ${others.join(', ')}`] : []),
    `    the longest order: ${best.order.map(({ asked, answer }) => inWords(asked, answer)).join('; ')}`,
    `    then it is ${JSON.stringify(best.state)}`,
    ...(isWhole ? ['  all of it:', ...history.map((each) => line(each, each))] : []),
  ].join('\n')
}

function inWords(asked: Asked, answer?: Answer): string {
  const what = asked.do === 'signal' ? `signal ${asked.word}` : asked.do === 'see' ? 'its answer' : asked.do
  if (!answer) return what
  const { code, ended, seen } = answer
  const said = seen && seen.said.length > 0 ? `, said ${seen.said.join(' ')}` : ''
  const sight = seen ? ` ${seen.status}, version ${seen.version}${said}` : ''
  return `${what} → ${code}${ended === undefined ? '' : ` has ${ended}`}${sight}`
}
