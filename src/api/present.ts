/** Records of the engine as HTTP shows them: ISO times, links to artifacts, nothing of other people's. */
import { z } from '@hono/zod-openapi'
import type { WireError } from '../errors.ts'
import { eventTypes, statuses } from '../engine/session.ts'
import { workerStatuses } from '../farm/record.ts'
import type { Progress, Receipt, Session, SessionEvent } from '../engine/session.ts'
import type { WorkerRecord } from '../farm/record.ts'
import type { Caller } from './auth.ts'

export const Time = z.iso.datetime().openapi({ example: '2030-01-01T12:00:00.000Z' })
const Anything = z.record(z.string(), z.unknown())

/** `nullable()` on a named schema would make the component itself nullable. */
export const orNull = <S extends z.ZodType>(schema: S) => z.union([schema, z.null()])

export const ErrorView = z
  .strictObject({
    code: z.string(),
    class: z.enum(['transient', 'resource', 'permanent', 'cancelled']),
    message: z.string(),
    remedy: z.string(),
    field: z.string().optional(),
    details: Anything.optional(),
  })
  .openapi('Error')

export const ProgressView = z
  .strictObject({
    fraction: z.number().min(0).max(1),
    step: z.string(),
    stage: z.string(),
    call: z.int().optional(),
    calls: z.int().optional(),
    rate: z.number().optional().openapi({ description: 'calls a second' }),
    etaS: z.number().optional().openapi({ description: 'seconds left' }),
    checkpoint: z.int().optional().openapi({ description: 'call of the last recorded checkpoint' }),
    image: z.int().optional(),
    images: z.int().optional(),
  })
  .openapi('Progress')

const ImageView = z.looseObject({
  sha256: z.string().regex(/^[0-9a-f]{64}$/),
  url: z.string().openapi({ example: '/v1/artifacts/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08' }),
})

export const SessionView = z
  .strictObject({
    id: z.string(),
    workflow: z.string().openapi({ example: 'image-generation@1' }),
    status: z.enum(statuses),
    waiting: z.string().nullable().openapi({ description: 'what it waits for, in words' }),
    input: Anything.openapi({ description: 'the request made whole: never changes' }),
    output: z.looseObject({ images: z.array(ImageView).optional() }).nullable(),
    error: orNull(ErrorView),
    progress: orNull(ProgressView),
    priority: z.int(),
    tags: z.array(z.string()),
    keyId: z.string().nullable(),
    device: z.string().nullable().openapi({ description: 'the one device on which its steps run; null: any' }),
    retryOf: z.string().nullable(),
    parent: z.string().nullable().openapi({ description: 'the session whose child it is' }),
    exactnessKey: z.string().nullable(),
    createdAt: Time,
    startedAt: Time.nullable(),
    endedAt: Time.nullable(),
    deadlineAt: Time.nullable(),
    version: z.int(),
  })
  .openapi('Session')
export type SessionView = z.infer<typeof SessionView>

export const iso = (ms: number): string => new Date(ms).toISOString()
export const isoOrNull = (ms: number | null): string | null => (ms === null ? null : iso(ms))

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
    version: session.version,
  }
}

const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value)

const Pictures = z.looseObject({ images: z.array(z.looseObject({ sha256: z.string() })) })

function withLinks(output: Record<string, unknown>): z.infer<typeof SessionView>['output'] {
  const pictures = Pictures.safeParse(output)
  if (!pictures.success) return output
  return { ...output, images: pictures.data.images.map((image) => ({ ...image, url: `/v1/artifacts/${image.sha256}` })) }
}

export function presentProgress({ fraction, step, stage, ...more }: Progress): z.infer<typeof ProgressView> {
  const { call, calls, rate, etaS, checkpoint, image, images } = more
  return { fraction, step, stage, call, calls, rate, etaS, checkpoint, image, images }
}

function presentError({ code, class: errorClass, message, remedy, field, details }: WireError): z.infer<typeof ErrorView> {
  return { code, class: errorClass, message, remedy, ...(field !== undefined && { field }), ...(details && { details }) }
}

/** The `data` of a server-sent event: the history entry, its time as text, its pictures with links. */
export const EventView = z.looseObject({ type: z.enum(eventTypes), at: Time }).openapi('SessionEvent')

export function presentEvent(event: SessionEvent): z.infer<typeof EventView> {
  const output = event['output']
  return { ...event, at: iso(event.at), ...(isRecord(output) && { output: withLinks(output) }) }
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
  .openapi('Receipt')

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

export const RunningView = z.strictObject({
  key: z.string().nullable().openapi({ description: 'null for the work of another API key' }),
  step: z.string(),
  session: z.string().nullable(),
  since: Time,
})

/** A caller without keys, or an operator: nothing is other people's to him. */
export const seesAll = (caller: Caller): boolean => caller.keyId === null || caller.scopes.has('operate')

/** What runs on a worker. Keyed callers without `operate` see that something runs there, not whose it is. */
export const presentRunning = (worker: WorkerRecord, caller: Caller): z.infer<typeof RunningView>[] =>
  worker.running.map(({ key, step, session, since }) => ({
    key: seesAll(caller) ? key : null,
    step,
    session: seesAll(caller) ? session : null,
    since: iso(since),
  }))

/** As people call it; several devices may have the same. */
export const shortName = ({ device: { kind, index } }: Pick<WorkerRecord, 'device'>): string => `${kind}:${index}`

export const WorkerView = z
  .strictObject({
    id: z.string(),
    host: z.string(),
    pid: z.int(),
    epoch: z.string(),
    device: z.strictObject({ id: z.string(), kind: z.string(), name: z.string(), index: z.int(), totalBytes: z.int().nullable() }),
    exactnessKey: z.string(),
    hardware: Anything,
    build: Anything,
    settings: Anything,
    status: z.enum(workerStatuses),
    models: z.array(z.string()),
    resident: z.array(z.string()),
    running: z.array(RunningView),
    native: z
      .strictObject({
        implementation: z.enum(['addon', 'typescript']),
        backend: z.enum(['cuda', 'd3d12', 'host']),
        reason: z.string().nullable(),
      })
      .openapi({ description: 'through what its device memory is held, and why not through the native addon' }),
    lanes: z.strictObject({ gpu: z.int(), host: z.int() }),
    childPid: z.int().nullable(),
    startedAt: Time,
    seenAt: Time,
    ageS: z.number().openapi({ description: 'seconds since the worker published this' }),
  })
  .openapi('Worker')

export function presentWorker(worker: WorkerRecord, caller: Caller, nowMs: number): z.infer<typeof WorkerView> {
  const { implementation, backend, reason } = worker.report
  return {
    id: worker.id,
    host: worker.host,
    pid: worker.pid,
    epoch: worker.epoch,
    device: worker.device,
    exactnessKey: worker.exactnessKey,
    hardware: worker.hardware,
    build: worker.build,
    settings: worker.settings,
    status: worker.status,
    models: worker.models,
    resident: worker.resident,
    running: presentRunning(worker, caller),
    native: { implementation, backend, reason },
    lanes: worker.lanes,
    childPid: worker.childPid,
    startedAt: iso(worker.startedAt),
    seenAt: iso(worker.seenAt),
    ageS: Math.max(0, (nowMs - worker.seenAt) / 1000),
  }
}
