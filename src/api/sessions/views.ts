/** Sessions as HTTP shows them: times as ISO 8601 text, links to artifacts. */
import { z } from 'zod'
import type { StateInfo } from '../../engine/again.ts'
import type { WireError } from '../../errors.ts'
import {
  eventTypes,
  statuses,
  Change,
  ForkRequest,
  Signal,
  SubmitOptions,
  type Export,
  type Progress,
  type Receipt,
  type Session,
  type SessionEvent,
} from '../../engine/session.ts'
import type { Place } from '../../engine/waiting.ts'
import { ArtifactLink, withLinks } from '../artifacts/views.ts'
import { traceOf } from '../../trace.ts'
import { presentUse, UseView } from '../usage/views.ts'
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
    preview: z.int().optional().meta({ description: 'call of the latest preview, which GET /v1/sessions/{id}/preview answers' }),
    image: z.int().optional(),
    images: z.int().optional(),
    items: z
      .strictObject({
        total: z.int(),
        waiting: z.int(),
        running: z.int(),
        succeeded: z.int(),
        failed: z.int(),
        cancelled: z.int(),
      })
      .optional()
      .meta({ description: 'of a session that works off items' }),
  })
  .meta({ id: 'Progress' })

export const SessionView = z
  .strictObject({
    id: z.string(),
    workflow: z.string().meta({ example: 'image-generation@1' }),
    status: z.enum(statuses),
    waiting: z.string().nullable().meta({ description: 'what it waits for, in words' }),
    position: z.int().nullable().meta({ description: 'its place among those that wait for a device, 1 is next; null: it waits for none' }),
    startsInS: z.number().nullable().meta({ description: 'about how long until then, in seconds, where that was measured' }),
    input: Anything.meta({ description: 'the request made whole: never changes' }),
    output: z.looseObject({ images: z.array(ArtifactLink).optional() }).nullable(),
    error: orNull(ErrorView),
    progress: orNull(ProgressView),
    priority: z.int(),
    tags: z.array(z.string()),
    keyId: z.string().nullable(),
    device: z.string().nullable().meta({ description: 'the one device on which its steps run; null: any' }),
    concurrency: SubmitOptions.shape.concurrency
      .unwrap()
      .nullable()
      .meta({ description: 'how many sessions with this key may be on devices at once' }),
    traceId: z.string().meta({ description: 'of OpenTelemetry: that of the `traceparent` that it was submitted with, else its own' }),
    retryOf: z.string().nullable(),
    forkOf: orNull(
      z.strictObject({
        session: z.string(),
        entry: z.int().meta({ description: 'the last entry of its history that is true of both' }),
        call: z.int().nullable().meta({ description: 'the denoise call that it goes on from; null: the step begins anew' }),
        step: z.string().nullable().meta({ description: 'the first step or child session that it runs itself' }),
      }),
    ).meta({ description: 'where it has parted from another session' }),
    undo: z
      .string()
      .nullable()
      .meta({ description: 'the session that undoes what this one has done, once it has failed or was cancelled' }),
    webhook: z.string().nullable().meta({ description: 'the webhook that is told of its end' }),
    parent: z.string().nullable().meta({ description: 'the session whose child it is' }),
    exactnessKey: z.string().nullable(),
    createdAt: Time,
    startedAt: Time.nullable(),
    endedAt: Time.nullable(),
    deadlineAt: Time.nullable().meta({ description: 'null without one, and while the session is paused' }),
    deadlineLeftS: z.number().nullable().meta({ description: 'of a paused session: seconds that it has from its resume on' }),
    use: UseView.meta({ description: 'what it has used until now, its children with it' }),
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

export const ForkBody = z.strictObject(ForkRequest.shape).meta({ id: 'Fork', example: { from: { entry: 4 }, input: { steps: 30 } } })

export const StatesView = z
  .strictObject({
    states: z.array(
      z.strictObject({
        entry: z.int().meta({ description: 'the history entry that led to it' }),
        at: Time,
        value: z.unknown().meta({ description: 'of the machine: the name of a state, or an object of states inside states' }),
        open: z.array(z.string()).meta({ description: 'steps and child sessions that are open in it' }),
        calls: z.array(z.int()).meta({ description: 'denoise calls that it can be forked from, newest first' }),
      }),
    ),
  })
  .meta({ id: 'SessionStates' })

export const presentStates = (states: readonly StateInfo[]): z.infer<typeof StatesView> => ({
  states: states.map(({ at, ...state }) => ({ ...state, at: iso(at) })),
})

export const ChangeSession = Change.refine((change) => Object.keys(change).length > 0, 'must say `tags` or `deadlineS`').meta({
  id: 'ChangeSession',
  description: '`deadlineS` counts from now; null takes the deadline away',
  example: { tags: ['chosen'], deadlineS: 600 },
})

export const SignalBody = z.strictObject(Signal.shape).meta({ id: 'Signal', example: { type: 'approve', data: { by: 'Ada' } } })

export function presentSession(session: Session, place?: Place): SessionView {
  return {
    id: session.id,
    workflow: session.workflow,
    status: session.status,
    waiting: session.waiting,
    position: place?.position ?? null,
    startsInS: typeof place?.startsInMs === 'number' ? place.startsInMs / 1000 : null,
    input: session.input,
    output: session.output && withLinks(session.output),
    error: session.error && presentError(session.error),
    progress: session.progress && presentProgress(session.progress),
    priority: session.priority,
    tags: session.tags,
    keyId: session.keyId,
    device: session.device,
    concurrency: session.concurrency,
    retryOf: session.retryOf,
    forkOf: session.forkOf,
    undo: session.undo,
    traceId: traceOf(session.id, session.trace).id,
    webhook: session.webhook,
    parent: session.parent,
    exactnessKey: session.exactnessKey,
    createdAt: iso(session.createdAt),
    startedAt: isoOrNull(session.startedAt),
    endedAt: isoOrNull(session.endedAt),
    deadlineAt: isoOrNull(session.deadlineAt),
    deadlineLeftS: session.deadlineLeftMs === null ? null : session.deadlineLeftMs / 1000,
    use: presentUse(session.use),
    version: session.version,
  }
}

export function presentProgress({ fraction, step, stage, ...more }: Progress): z.infer<typeof ProgressView> {
  const { call, calls, rate, etaS, checkpoint, preview, image, images, items } = more
  return { fraction, step, stage, call, calls, rate, etaS, checkpoint, preview, image, images, items }
}

export function presentError({ code, class: errorClass, message, remedy, field, details }: WireError): z.infer<typeof ErrorView> {
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

export const ExportView = z
  .strictObject({
    format: z.literal('darkroom.session/1'),
    request: z
      .strictObject({ workflow: z.string(), input: Anything })
      .meta({ description: 'what a client would send for it: POST /v1/sessions takes it as it is' }),
    content: z.string().nullable().meta({ description: 'SHA-256 of its workflow’s module; null: it comes with Darkroom' }),
    session: SessionView,
    history: z.array(z.strictObject({ id: z.int(), event: EventView })),
    receipt: ReceiptView,
  })
  .meta({ id: 'SessionExport' })

/** Without the API key whose it is. */
export const presentExport = ({ request, content, session, history, receipt }: Export): z.infer<typeof ExportView> => ({
  format: 'darkroom.session/1',
  request,
  content,
  session: { ...presentSession(session), keyId: null },
  history: history.map(({ id, event }) => ({ id, event: presentEvent(event) })),
  receipt: presentReceipt(receipt),
})
