/** Sessions as HTTP shows them: times as ISO 8601 text, links to artifacts. */
import { z } from 'zod'
import type { WireError } from '../../errors.ts'
import {
  eventTypes,
  statuses,
  Signal,
  SubmitOptions,
  type Progress,
  type Receipt,
  type Session,
  type SessionEvent,
} from '../../engine/session.ts'
import { ArtifactLink, withLinks } from '../artifacts/views.ts'
import { iso, isoOrNull, orNull, Time } from '../view.ts'

const Anything = z.record(z.string(), z.unknown())

export const ErrorView = z
  .strictObject({
    code: z.string(),
    class: z.enum(['transient', 'resource', 'permanent', 'cancelled']),
    message: z.string(),
    remedy: z.string(),
    field: z.string().optional(),
    details: Anything.optional(),
  })
  .meta({ id: 'Error' })

export const ProgressView = z
  .strictObject({
    fraction: z.number().min(0).max(1),
    step: z.string(),
    stage: z.string(),
    call: z.int().optional(),
    calls: z.int().optional(),
    rate: z.number().optional().meta({ description: 'calls a second' }),
    etaS: z.number().optional().meta({ description: 'seconds left' }),
    checkpoint: z.int().optional().meta({ description: 'call of the last recorded checkpoint' }),
    image: z.int().optional(),
    images: z.int().optional(),
  })
  .meta({ id: 'Progress' })

export const SessionView = z
  .strictObject({
    id: z.string(),
    workflow: z.string().meta({ example: 'image-generation@1' }),
    status: z.enum(statuses),
    waiting: z.string().nullable().meta({ description: 'what it waits for, in words' }),
    input: Anything.meta({ description: 'the request made whole: never changes' }),
    output: z.looseObject({ images: z.array(ArtifactLink).optional() }).nullable(),
    error: orNull(ErrorView),
    progress: orNull(ProgressView),
    priority: z.int(),
    tags: z.array(z.string()),
    keyId: z.string().nullable(),
    device: z.string().nullable().meta({ description: 'the one device on which its steps run; null: any' }),
    retryOf: z.string().nullable(),
    parent: z.string().nullable().meta({ description: 'the session whose child it is' }),
    exactnessKey: z.string().nullable(),
    createdAt: Time,
    startedAt: Time.nullable(),
    endedAt: Time.nullable(),
    deadlineAt: Time.nullable().meta({ description: 'null without one, and while the session is paused' }),
    deadlineLeftS: z.number().nullable().meta({ description: 'of a paused session: seconds that it has from its resume on' }),
    version: z.int(),
  })
  .meta({ id: 'Session' })
export type SessionView = z.infer<typeof SessionView>

export const SessionPage = z.strictObject({ sessions: z.array(SessionView), next: z.string().nullable() }).meta({ id: 'SessionPage' })

export const SubmitSession = z
  .strictObject({
    workflow: z.string().min(1).max(128).meta({ example: 'image-generation' }),
    input: z.record(z.string(), z.unknown()).meta({ description: 'by the input schema of the workflow' }),
    ...SubmitOptions.shape,
  })
  .meta({ id: 'SubmitSession', example: { workflow: 'image-generation', input: { prompt: 'a red circle on a blue background', seed: 7 } } })

export const SignalBody = z.strictObject(Signal.shape).meta({ id: 'Signal', example: { type: 'approve', data: { by: 'Ada' } } })

export function presentSession(session: Session): SessionView {
  return {
    id: session.id,
    workflow: session.workflow,
    status: session.status,
    waiting: session.waiting,
    input: session.input,
    output: session.output && withLinks(session.output),
    error: session.error && presentError(session.error),
    progress: session.progress && presentProgress(session.progress),
    priority: session.priority,
    tags: session.tags,
    keyId: session.keyId,
    device: session.device,
    retryOf: session.retryOf,
    parent: session.parent,
    exactnessKey: session.exactnessKey,
    createdAt: iso(session.createdAt),
    startedAt: isoOrNull(session.startedAt),
    endedAt: isoOrNull(session.endedAt),
    deadlineAt: isoOrNull(session.deadlineAt),
    deadlineLeftS: session.deadlineLeftMs === null ? null : session.deadlineLeftMs / 1000,
    version: session.version,
  }
}

export function presentProgress({ fraction, step, stage, ...more }: Progress): z.infer<typeof ProgressView> {
  const { call, calls, rate, etaS, checkpoint, image, images } = more
  return { fraction, step, stage, call, calls, rate, etaS, checkpoint, image, images }
}

function presentError({ code, class: errorClass, message, remedy, field, details }: WireError): z.infer<typeof ErrorView> {
  return { code, class: errorClass, message, remedy, ...(field !== undefined && { field }), ...(details && { details }) }
}

/** The `data` of a server-sent event: the history entry, its time as text, its pictures with links. */
export const EventView = z.looseObject({ type: z.enum(eventTypes), at: Time }).meta({ id: 'SessionEvent' })

export function presentEvent(event: SessionEvent): z.infer<typeof EventView> {
  return { ...event, at: iso(event.at), ...('output' in event && { output: withLinks(event['output']) }) }
}

const AttemptView = z.strictObject({
  attemptId: z.string(),
  worker: z.string(),
  device: z.string(),
  exactnessKey: z.string().nullable(),
  startedAt: Time,
  endedAt: Time.nullable(),
  end: z.enum(['completed', 'failed', 'released', 'lost', 'cancelled']).nullable(),
  resumedFrom: z.strictObject({ call: z.int(), sha256: z.string() }).nullable(),
  stats: Anything.nullable(),
  error: orNull(ErrorView),
})

export const ReceiptView = z
  .strictObject({
    session: z.string(),
    workflow: z.string(),
    status: z.enum(statuses),
    input: Anything,
    exactnessKey: z.string().nullable(),
    createdAt: Time,
    startedAt: Time.nullable(),
    endedAt: Time.nullable(),
    steps: z.array(z.strictObject({ key: z.string(), step: z.string(), attempts: z.array(AttemptView) })),
    notes: z.array(z.strictObject({ at: Time, note: z.string() })),
  })
  .meta({ id: 'Receipt' })

export function presentReceipt(receipt: Receipt): z.infer<typeof ReceiptView> {
  return {
    session: receipt.session,
    workflow: receipt.workflow,
    status: receipt.status,
    input: receipt.input,
    exactnessKey: receipt.exactnessKey,
    createdAt: iso(receipt.createdAt),
    startedAt: isoOrNull(receipt.startedAt),
    endedAt: isoOrNull(receipt.endedAt),
    steps: receipt.steps.map(({ key, step, attempts }) => ({
      key,
      step,
      attempts: attempts.map((attempt) => ({
        ...attempt,
        startedAt: iso(attempt.startedAt),
        endedAt: isoOrNull(attempt.endedAt),
        error: attempt.error && presentError(attempt.error),
      })),
    })),
    notes: receipt.notes.map(({ at, note }) => ({ at: iso(at), note })),
  }
}
