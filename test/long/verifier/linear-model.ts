/**
 * What HTTP promises of one session, as a state machine: submit under one idempotency key, pause, resume, cancel,
 * signal and look. The session waits for `needed` signals, then runs one step, then succeeds.
 *
 * | from | by itself | to |
 * | --- | --- | --- |
 * | running | a signal that was taken is applied (`version` + 1) | running |
 * | pausing | the attempt of its step has ended | paused |
 * | running, `needed` signals applied | its step has ended (`version` + 1) | succeeded |
 *
 * A signal is taken in whatever open state, and counts once by its event id. While a session pauses or is paused
 * nothing is applied. A pause leaves it pausing only where an attempt may run, and so only once `needed` signals were
 * applied.
 */
import type { Status } from '../../../src/engine/session.ts'
import type { Model, Operation } from './linear.ts'

/** `word` names a signal, and is its event id and its data. */
type Act = { do: 'pause' | 'resume' | 'cancel' } | { do: 'signal'; word: string }
/** What clients ask; `see` is what a request that did something has seen itself. */
export type Asked = { do: 'submit' } | Act | { do: 'get' } | { do: 'see' }

/** A session as an answer shows it. */
export interface Seen {
  id: string
  status: Status
  version: number
  /** The words that it has heard, in order; none before it has succeeded. */
  said: string[]
}

export interface Answer {
  /** Of HTTP. */
  code: number
  /** What the session has ended as, which a refusal names. */
  ended?: Status | undefined
  seen?: Seen | undefined
}

/** A request as its client recorded it, times in ms of the one clock of the process that records. */
export interface Recorded {
  client: number
  api: string
  asked: Asked
  calledAt: number
  /** Infinity of one whose answer nobody heard. */
  answeredAt: number
  answer: Answer | undefined
}

export interface SessionState {
  is: 'absent' | Exclude<Status, 'queued' | 'failed'>
  /** null until an answer has told it. */
  id: string | null
  /** Words that were taken, in order. */
  heard: string[]
  /** How many of them were applied. */
  applied: number
}

/**
 * The operations of a history. An answer shows the session as it was read after the request had its effect, with others
 * perhaps in between: so such a request is two operations, one behind the other.
 */
export function operationsOf(history: readonly Recorded[]): Operation<Asked, Answer>[] {
  return history.flatMap(({ asked, calledAt, answeredAt, answer }, i): Operation<Asked, Answer>[] => {
    const whole = { n: 2 * i, asked, calledAt, answeredAt, answer }
    if (asked.do === 'get' || !answer?.seen) return [whole]
    const { seen, ...told } = answer
    return [
      { ...whole, answer: told },
      { n: 2 * i + 1, asked: { do: 'see' }, calledAt, answeredAt, answer: { code: 200, seen }, after: 2 * i },
    ]
  })
}

export const sessionModel = (needed: number): Model<SessionState, Asked, Answer> => ({
  begin: { is: 'absent', id: null, heard: [], applied: 0 },
  next: (state, asked, answer) => reachable(state, needed).flatMap((each) => after(each, asked, answer, needed)),
  isRead: (asked) => asked.do === 'get' || asked.do === 'see',
})

/** The state, and all that may come of it by itself. */
function reachable(state: SessionState, needed: number): SessionState[] {
  const { is, heard, applied } = state
  if (is === 'pausing') return [state, { ...state, is: 'paused' }]
  if (is !== 'running') return [state]
  const later = Array.from({ length: heard.length - applied + 1 }, (_, more) => ({ ...state, applied: applied + more }))
  const ends = later.filter((each) => each.applied >= needed).map((each) => ({ ...each, is: 'succeeded' as const }))
  return [...later, ...ends]
}

const isOpen = ({ is }: SessionState): boolean => is === 'running' || is === 'pausing' || is === 'paused'

/** Without anything that happens by itself. */
function after(state: SessionState, asked: Asked, answer: Answer | undefined, needed: number): SessionState[] {
  if (asked.do === 'submit') {
    const made: SessionState = state.is === 'absent' ? { ...state, is: 'running' } : state
    return answer === undefined || answer.code === (state.is === 'absent' ? 202 : 200) ? [made] : []
  }
  if (state.is === 'absent') return []
  if (asked.do === 'get' || asked.do === 'see') return answer === undefined ? [state] : seenIn(state, answer, needed)
  if (isOpen(state)) return answer === undefined || answer.code === 200 ? changedBy(asked, state, needed) : []
  if (answer === undefined) return [state]
  // What it has taken before its end it may be told again after it; and what is cancelled, it has cancelled.
  const isRepeat = asked.do === 'signal' ? state.heard.includes(asked.word) : asked.do === 'cancel' && state.is === 'cancelled'
  const isSo = isRepeat ? answer.code === 200 : answer.code === 409 && answer.ended === state.is
  return isSo ? [state] : []
}

/** What an open session becomes. */
function changedBy(asked: Act, state: SessionState, needed: number): SessionState[] {
  const { is, heard, applied } = state
  switch (asked.do) {
    case 'cancel':
      return [{ ...state, is: 'cancelled' }]
    case 'signal':
      return [heard.includes(asked.word) ? state : { ...state, heard: [...heard, asked.word] }]
    case 'resume':
      return [{ ...state, is: 'running' }]
    case 'pause':
      if (is !== 'running') return [state]
      return [{ ...state, is: 'paused' }, ...(applied >= needed ? [{ ...state, is: 'pausing' as const }] : [])]
  }
}

/** The state with the id that was seen, where it may look so. */
function seenIn(state: SessionState, { code, seen }: Answer, needed: number): SessionState[] {
  if (code !== 200 || !seen) return []
  const { is, id, heard, applied } = state
  const said = is === 'succeeded' ? heard.slice(0, needed) : []
  const version = 1 + applied + (is === 'succeeded' ? 1 : 0)
  const isSo = seen.status === is && seen.version === version && seen.said.join(' ') === said.join(' ') && (id === null || seen.id === id)
  return isSo ? [{ ...state, id: seen.id }] : []
}
