/** The attempts of each step on one line of time, on which nothing is drawn where nothing happened. */
import type { Receipt } from '../../engine/session.ts'
import { el, hint, listed, ol, small, span, type Element, type Inside } from './markup.ts'

type Attempt = Receipt['steps'][number]['attempts'][number]
interface Bar {
  step: string
  attempt: Attempt
  n: number
  from: number
  to: number
}

/** A pause longer than this is drawn as long as this, ms. */
const longestGap = 1500

const ends: Record<string, string> = {
  completed: 'done',
  failed: 'failed',
  released: 'handed back',
  lost: 'its worker was lost',
  cancelled: 'cancelled',
  running: 'runs',
}

/** What is to be said of an attempt: nothing of one that went as it should, where all did. */
const howOf = ({ end, worker, resumedFrom, error }: Attempt, isWorkerTold: boolean): string =>
  listed(
    end !== 'completed' && ends[end ?? 'running'],
    resumedFrom && `went on from call ${resumedFrom.call}`,
    isWorkerTold && worker,
    error?.message,
  )

/** Places of the instants on a line where gaps are cut short. */
function lineOf(bars: readonly Bar[]): { at: (instant: number) => number; length: number; cuts: { at: number; ms: number }[] } {
  const spans: { from: number; to: number; place: number }[] = []
  const cuts: { at: number; ms: number }[] = []
  let place = 0
  for (const { from, to } of bars.toSorted((a, b) => a.from - b.from)) {
    const last = spans.at(-1)
    if (last && from <= last.to) {
      place += Math.max(0, to - last.to)
      last.to = Math.max(last.to, to)
      continue
    }
    const gap = last ? from - last.to : 0
    if (gap > longestGap) cuts.push({ at: place + longestGap / 2, ms: gap })
    place += Math.min(gap, longestGap)
    spans.push({ from, to, place })
    place += to - from
  }
  const at = (instant: number): number => {
    const found = spans.findLast(({ from }) => from <= instant) ?? spans[0]
    return found ? found.place + Math.min(instant, found.to) - found.from : 0
  }
  return { at, length: Math.max(1, place), cuts }
}

/** `forkOf`: the button that goes on from a step. */
export function timeline({ steps, notes }: Receipt, forkOf: (step: string) => Inside): Element | false {
  const now = Date.now()
  const bars = steps.flatMap(({ step, attempts }) =>
    attempts.map((attempt, i): Bar => ({ step, attempt, n: i + 1, from: attempt.startedAt, to: attempt.endedAt ?? now })),
  )
  if (bars.length === 0) return false
  const { at, length, cuts } = lineOf(bars)
  const workers = new Set(bars.map(({ attempt }) => attempt.worker))
  const share = (place: number): string => `${(100 * place) / length}%`
  return el(
    'section',
    { class: 'timeline', 'aria-labelledby': 'timeline-name' },
    el('h2', { id: 'timeline-name' }, 'Timeline'),
    ol(
      '',
      bars.map(({ step, attempt, n, from, to }) =>
        el(
          'li',
          { key: attempt.attemptId, class: attempt.end ?? 'running' },
          span('step', step.split('.')[1]?.replaceAll('_', ' '), n > 1 && small(` try ${n}`)),
          el(
            'span',
            { class: 'track', 'aria-hidden': 'true' },
            cuts.map((cut) => el('i', { key: cut.at, class: 'cut', style: { left: share(cut.at) } })),
            el('i', { class: 'span', style: { left: share(at(from)), width: share(Math.max(at(to) - at(from), length / 200)) } }),
          ),
          span('took', el('Span', { s: (to - from) / 1000 })),
          n === 1 && forkOf(step),
          span('how', howOf(attempt, workers.size > 1)),
        ),
      ),
    ),
    workers.size === 1 && hint(`All on ${bars[0]?.attempt.worker}.`),
    cuts.length > 0 &&
      hint(
        'Nothing ran at the notches: ',
        cuts.map(({ ms }, i) => [i > 0 && ', ', el('Span', { s: ms / 1000 })]),
        '.',
      ),
    notes.map(({ at: when, note }) => el('p', { key: `${when}${note}`, class: 'hint' }, note)),
  )
}
