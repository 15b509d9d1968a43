import type { WireError } from '../errors.ts'
import type { Receipt, Session, SessionEvent, StepReceipt } from './session.ts'

type Attempt = StepReceipt['attempts'][number]

/** What happened on the way, read off the history: attempts, workers, checkpoints used, times. Pure. */
export function receiptOf(session: Session, history: SessionEvent[]): Receipt {
  const steps = new Map<string, StepReceipt>()
  const notes: Receipt['notes'] = []
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
    attempt.stats = (event['stats'] as Record<string, unknown> | undefined) ?? null
    const refused = attempt.stats?.['checkpoint_refused']
    if (typeof refused !== 'string') return
    attempt.resumedFrom = null
    notes.push({
      at: event.at,
      note: `worker ${attempt.worker} refused the checkpoint and began ${event.step} at call 0: ${refused}`,
    })
  }
  for (const event of history) {
    switch (event.type) {
      case 'step.started': {
        const step = steps.get(event.key ?? '') ?? { key: event.key ?? '', step: event.step ?? '', attempts: [] }
        const checkpoint = event['checkpoint'] as { call: number; sha256: string } | undefined
        step.attempts.push({
          attemptId: event.attemptId ?? '',
          worker: event.worker ?? '',
          device: textOf(event, 'device'),
          exactnessKey: textOf(event, 'exactnessKey') || null,
          startedAt: event.at,
          endedAt: null,
          end: null,
          resumedFrom: checkpoint ? { call: checkpoint.call, sha256: checkpoint.sha256 } : null,
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
      case 'session.succeeded':
      case 'session.failed':
      case 'session.cancelled':
      case 'timer.fired':
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

function textOf(event: SessionEvent, field: string): string {
  const value = event[field]
  return typeof value === 'string' ? value : ''
}
