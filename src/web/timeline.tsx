/** The attempts of each step on one line of time, on which nothing is drawn where nothing happened. */
import type { Receipt, SessionState } from '../client/types.ts'
import { may } from './api.ts'
import { nameOf, point, stateOf } from './fork.tsx'
import { inTime } from './words.ts'

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
  [
    end !== 'completed' && ends[end ?? 'running'],
    resumedFrom && `went on from call ${resumedFrom.call}`,
    isWorkerTold && worker,
    error?.message,
  ]
    .filter(Boolean)
    .join(' · ')

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
    const span = spans.findLast(({ from }) => from <= instant) ?? spans[0]
    return span ? span.place + Math.min(instant, span.to) - span.from : 0
  }
  return { at, length: Math.max(1, place), cuts }
}

export function Timeline({ receipt, states }: { receipt: Receipt; states: readonly SessionState[] }) {
  const bars = receipt.steps.flatMap(({ step, attempts }) =>
    attempts.map((attempt, i): Bar => ({
      step,
      attempt,
      n: i + 1,
      from: Date.parse(attempt.startedAt),
      to: attempt.endedAt === null ? Date.now() : Date.parse(attempt.endedAt),
    })),
  )
  if (bars.length === 0) return null
  const { at, length, cuts } = lineOf(bars)
  const workers = new Set(bars.map(({ attempt }) => attempt.worker))
  const share = (place: number): string => `${(100 * place) / length}%`
  return (
    <section class="timeline" aria-labelledby="timeline-name">
      <h2 id="timeline-name">Timeline</h2>
      <ol>
        {bars.map(({ step, attempt, n, from, to }) => {
          const end = attempt.end ?? 'running'
          const state = n === 1 && may('submit') ? stateOf(step, states) : undefined
          return (
            <li key={attempt.attemptId} class={end}>
              <span class="step">
                {step.split('.')[1]?.replaceAll('_', ' ')}
                {n > 1 && <small> try {n}</small>}
              </span>
              <span class="track" aria-hidden="true">
                {cuts.map((cut) => (
                  <i key={cut.at} class="cut" style={{ left: share(cut.at) }} />
                ))}
                <i class="span" style={{ left: share(at(from)), width: share(Math.max(at(to) - at(from), length / 200)) }} />
              </span>
              <span class="took">{inTime((to - from) / 1000)}</span>
              {state && (
                <button class="plain" aria-label={`Fork from ${nameOf(state)}`} onClick={() => (point.value = state)}>
                  Fork
                </button>
              )}
              <span class="how">{howOf(attempt, workers.size > 1)}</span>
            </li>
          )
        })}
      </ol>
      {workers.size === 1 && <p class="hint">All on {bars[0]?.attempt.worker}.</p>}
      {cuts.length > 0 && <p class="hint">Nothing ran at the notches: {cuts.map(({ ms }) => inTime(ms / 1000)).join(', ')}.</p>}
      {receipt.notes.map(({ at: when, note }) => (
        <p key={when + note} class="hint">
          {note}
        </p>
      ))}
    </section>
  )
}
