import type { WireError } from '../errors.ts'
import type { Receipt, Session, SessionEvent, StepReceipt } from './session.ts'

type Attempt = StepReceipt['attempts'][number]
/** What of a text was read, as a step that encodes it says in its `stats`. */
type Tokens = { read: number; dropped: number; droppedText: string }
type Start = NonNullable<Attempt['resumedFrom']>

/** What happened on the way, read off the history: attempts, workers, checkpoints used, times. Pure. */
export function receiptOf(session: Session, history: SessionEvent[]): Receipt {
  const steps = new Map<string, StepReceipt>()
  const notes: Receipt['notes'] = []
  /** What each attempt was given to go on from, newest first. */
  const given = new Map<string, Start[]>()
  const open = (event: SessionEvent): Attempt | undefined => {
    const attempt = steps.get(event.key ?? '')?.attempts.at(-1)
    return attempt?.attemptId === event.attemptId || event.attemptId === undefined ? attempt : undefined
  }
  const close = (event: SessionEvent, end: Attempt['end']): void => {
    const attempt = open(event)
    if (!attempt || (attempt.end !== null && attempt.end !== 'lost')) return
    attempt.end = end
    attempt.endedAt = event.at
    attempt.error = (event['error'] as WireError | undefined) ?? null
    attempt.stats = statsOf(event)
    // The newest may have been broken: the child says where it really began.
    const began = attempt.stats?.['resumedFrom']
    if (typeof began === 'number') attempt.resumedFrom = given.get(attempt.attemptId)?.find(({ call }) => call === began) ?? null
    for (const [name, { read, dropped, droppedText }] of Object.entries((attempt.stats?.['tokens'] ?? {}) as Record<string, Tokens>)) {
      if (dropped === 0) continue
      const text = droppedText.length > 200 ? `${droppedText.slice(0, 200)}…` : droppedText
      notes.push({
        at: event.at,
        note: `${event.step} read ${read} of ${read + dropped} tokens of ${name}; it did not read ${JSON.stringify(text)}`,
      })
    }
    const refused = attempt.stats?.['checkpointRefused']
    if (typeof refused !== 'string') return
    notes.push({
      at: event.at,
      note: `worker ${attempt.worker} refused the checkpoint and began ${event.step} at call 0: ${refused}`,
    })
  }
  for (const event of history) {
    switch (event.type) {
      case 'step.started': {
        const step = steps.get(event.key ?? '') ?? { key: event.key ?? '', step: event.step ?? '', attempts: [] }
        const starts = [event['checkpoint'], event['checkpointBefore']]
          .filter((checkpoint) => checkpoint !== undefined)
          .map((checkpoint) => ({ call: (checkpoint as Start).call, sha256: (checkpoint as Start).sha256 }))
        given.set(event.attemptId ?? '', starts)
        step.attempts.push({
          attemptId: event.attemptId ?? '',
          worker: event.worker ?? '',
          device: textOf(event, 'device'),
          exactnessKey: textOf(event, 'exactnessKey') || null,
          startedAt: event.at,
          endedAt: null,
          end: null,
          resumedFrom: starts[0] ?? null,
          stats: null,
          error: null,
        })
        steps.set(step.key, step)
        break
      }
      case 'step.completed':
        close(event, 'completed')
        break
      case 'step.failed':
      case 'step.retrying':
        close(event, 'failed')
        break
      case 'step.released':
        close(event, 'released')
        notes.push({ at: event.at, note: `worker ${event.worker} gave ${event.step} back: ${textOf(event, 'reason')}` })
        break
      case 'step.recovered':
        close(event, 'lost')
        notes.push({ at: event.at, note: `worker ${event.worker} was lost while it ran ${event.step}; the step goes on elsewhere` })
        break
      case 'step.noted':
      case 'session.moved':
        notes.push({ at: event.at, note: textOf(event, 'note') })
        break
      // What happens to the session as a whole stands in its own fields.
      case 'session.created':
      case 'session.pausing':
      case 'session.paused':
      case 'session.resumed':
      case 'session.reordered':
      case 'session.changed':
      case 'session.succeeded':
      case 'session.failed':
      case 'session.cancelled':
      case 'timer.fired':
      case 'child.ended':
      case 'items.ended':
      case 'signal.received':
        break
    }
  }
  if (session.endedAt !== null) {
    for (const attempt of [...steps.values()].flatMap((step) => step.attempts)) {
      if (attempt.end !== null) continue
      attempt.end = 'cancelled'
      attempt.endedAt = session.endedAt
    }
  }
  const { id, workflow, status, input, exactnessKey, createdAt, startedAt, endedAt } = session
  return { session: id, workflow, status, input, exactnessKey, createdAt, startedAt, endedAt, steps: [...steps.values()], notes }
}

/** Sessions of earlier versions recorded them in the child's own snake_case. */
function statsOf(event: SessionEvent): Record<string, unknown> | null {
  const camel = (name: string): string => name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase())
  const entries = Object.entries((event['stats'] as Record<string, unknown> | undefined) ?? {})
  return event['stats'] === undefined ? null : Object.fromEntries(entries.map(([name, value]) => [camel(name), value]))
}

function textOf(event: SessionEvent, field: string): string {
  const value = event[field]
  return typeof value === 'string' ? value : ''
}
