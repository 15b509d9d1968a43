/**
 * A session that has ended as spans of OpenTelemetry: one of it, and below that one of each attempt. They are read off
 * its records, so no process that died in between takes a span with it. Pure.
 */
import { spanIdOf, traceOf } from '../trace.ts'
import { receiptOf } from './receipt.ts'
import type { Session, SessionEvent, StepReceipt } from './session.ts'

type Value = { stringValue: string } | { intValue: string } | { doubleValue: number }
interface Attribute {
  key: string
  value: Value
}

/** A span as OTLP/JSON has it (opentelemetry-proto 1.x, `Span`): ids in hexadecimal, times in nanoseconds as text. */
export interface Span {
  traceId: string
  spanId: string
  parentSpanId?: string
  name: string
  /** 1 internal, 2 server: the session is what a request has caused. */
  kind: 1 | 2
  startTimeUnixNano: string
  endTimeUnixNano: string
  attributes: Attribute[]
  events: { timeUnixNano: string; name: string; attributes: Attribute[] }[]
  links: { traceId: string; spanId: string; attributes: Attribute[] }[]
  /** 1 ok, 2 error. */
  status: { code: 1 | 2; message?: string }
}

const nano = (ms: number): string => `${Math.round(ms)}000000`

function attributesOf(values: Record<string, string | number | null | undefined>): Attribute[] {
  return Object.entries(values).flatMap(([key, value]): Attribute[] => {
    if (value === null || value === undefined || value === '') return []
    if (typeof value === 'string') return [{ key, value: { stringValue: value } }]
    return [{ key, value: Number.isInteger(value) ? { intValue: String(value) } : { doubleValue: value } }]
  })
}

/** What of its history is told as events of the session's span. */
const told: ReadonlySet<SessionEvent['type']> = new Set([
  'session.pausing',
  'session.paused',
  'session.resumed',
  'session.moved',
  'session.reordered',
  'step.recovered',
  'step.released',
  'step.retrying',
])

/** @param session one that has ended @param history all of it */
export function spansOf(session: Session, history: SessionEvent[]): Span[] {
  const { id, workflow, status, createdAt, startedAt, error, parent, retryOf, forkOf, keyId } = session
  const endedAt = session.endedAt ?? createdAt
  const trace = traceOf(id, session.trace)
  const own = spanIdOf(id)
  const { model } = session.input as { model?: { id?: unknown } }
  const others = [
    [retryOf, 'retry'],
    [forkOf?.session, 'fork'],
  ] as const
  const whole: Span = {
    traceId: trace.id,
    spanId: own,
    ...(trace.parent !== null && { parentSpanId: trace.parent }),
    name: workflow,
    kind: parent === null ? 2 : 1,
    startTimeUnixNano: nano(createdAt),
    endTimeUnixNano: nano(endedAt),
    attributes: attributesOf({
      'darkroom.session': id,
      'darkroom.status': status,
      'darkroom.model': typeof model?.id === 'string' ? model.id : null,
      'darkroom.key': keyId,
      'darkroom.parent': parent,
      'darkroom.waited_s': startedAt === null ? null : (startedAt - createdAt) / 1000,
    }),
    events: history
      .filter(({ type }) => told.has(type))
      .map(({ at, type, step, worker, note, reason }) => ({
        timeUnixNano: nano(at),
        name: type,
        attributes: attributesOf({
          'darkroom.step': step,
          'darkroom.worker': worker,
          'darkroom.note': typeof note === 'string' ? note : null,
          'darkroom.reason': typeof reason === 'string' ? reason : null,
        }),
      })),
    // Another trace, of which only the session is known: its first span has the id that every one derives.
    links: others.flatMap(([other, how]) =>
      other ? [{ traceId: traceOf(other, undefined).id, spanId: spanIdOf(other), attributes: attributesOf({ 'darkroom.how': how }) }] : [],
    ),
    status: status === 'failed' ? { code: 2, message: error?.message ?? '' } : { code: 1 },
  }
  const { steps } = receiptOf(session, history)
  return [whole, ...steps.flatMap(({ step, key, attempts }) => attempts.map((attempt, i) => spanOf(whole, step, key, attempt, i + 1)))]
}

function spanOf(whole: Span, step: string, key: string, attempt: StepReceipt['attempts'][number], n: number): Span {
  const { attemptId, worker, device, startedAt, endedAt, end, resumedFrom, error } = attempt
  const isFault = end === 'failed' || end === 'lost'
  return {
    traceId: whole.traceId,
    spanId: spanIdOf(attemptId),
    parentSpanId: whole.spanId,
    name: step,
    kind: 1,
    startTimeUnixNano: nano(startedAt),
    endTimeUnixNano: endedAt === null ? whole.endTimeUnixNano : nano(endedAt),
    attributes: attributesOf({
      'darkroom.step': key,
      'darkroom.attempt': n,
      'darkroom.attempt_id': attemptId,
      'darkroom.end': end,
      'darkroom.worker': worker,
      'darkroom.device': device,
      'darkroom.resumed_from_call': resumedFrom?.call,
      'darkroom.error': error?.code,
    }),
    events: [],
    links: [],
    status: isFault ? { code: 2, message: error?.message ?? 'its worker was lost' } : { code: 1 },
  }
}
