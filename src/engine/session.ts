/**
 * A session: one durable run of a workflow.
 *
 * | status | entered | left |
 * | --- | --- | --- |
 * | `queued` | accepted, nothing taken yet | first step taken → `running` |
 * | `running` | a step was taken, or resumed | pause → `pausing` or `paused`; an end |
 * | `pausing` | pause asked for while an attempt holds a lease | last lease over → `paused`; resume → `running`; an end |
 * | `paused` | nothing of it runs, no tensor of it is on a device | resume → `running`; cancel |
 * | `succeeded`, `failed`, `cancelled` | the end | never |
 */
import { z } from 'zod'
import type { WireError } from '../errors.ts'
import type { Use } from './usage.ts'

export const statuses = ['queued', 'running', 'pausing', 'paused', 'succeeded', 'failed', 'cancelled'] as const
export type Status = (typeof statuses)[number]
export const ended: ReadonlySet<Status> = new Set<Status>(['succeeded', 'failed', 'cancelled'])

/** Latest progress of a session; `fraction` (0…1) never falls, not over a takeover either. */
export interface Progress {
  fraction: number
  /** Step it comes from, e.g. `inference.denoise`, and its stage: `load`, `run`. */
  step: string
  stage: string
  call?: number | undefined
  calls?: number | undefined
  /** Calls a second and seconds left, from recent calls. */
  rate?: number | undefined
  etaS?: number | undefined
  /** Call of the last recorded checkpoint: what another worker would go on from. */
  checkpoint?: number | undefined
  /** Call of the latest preview. */
  preview?: number | undefined
  /** Which of how many images. */
  image?: number | undefined
  images?: number | undefined
  /** Of a session that works off items, how many there are, and how they are. */
  items?: ItemCounts | undefined
}

export interface ItemCounts {
  total: number
  waiting: number
  running: number
  succeeded: number
  failed: number
  cancelled: number
}

/** Where a session has parted from another. */
export interface ForkedFrom {
  session: string
  /** The last entry of that one's history that is true of both. */
  entry: number
  /** Call of the denoise step that it goes on from; null: it begins the step anew. */
  call: number | null
  /** The first step or child session that it runs itself; null where it waits for a signal or a timer. */
  step: string | null
}

export interface Session {
  id: string
  workflow: string
  status: Status
  /** What a queued or running session waits for, in words; null when it waits for nothing. */
  waiting: string | null
  /** The resolved request: never changes. */
  input: Record<string, unknown>
  output: Record<string, unknown> | null
  error: WireError | null
  progress: Progress | null
  priority: number
  tags: string[]
  /** Id of the API key that submitted it; null without keys. */
  keyId: string | null
  retryOf: string | null
  /** Where it has parted from another. */
  forkOf: ForkedFrom | null
  /** The session that undoes what this one has done, once it has failed or was cancelled; null: nothing is undone. */
  undo: string | null
  /** Id of the webhook that is told of its end; null: none. */
  webhook: string | null
  /** The session whose child it is. */
  parent: string | null
  /** Its trace as it is recorded, `<trace id>-<span id>`; null: the first of its own, see `traceOf`. */
  trace: string | null
  /** Id of the device on which all its steps on a device run, and its children's; null: any. */
  device: string | null
  /** How many sessions of its API key with this concurrency key may be on devices at once; null without one. */
  concurrency: { key: string; limit: number } | null
  /** Exactness key its first GPU step pinned (8 hex), null before. */
  exactnessKey: string | null
  /** All times are milliseconds since 1970 by Redis' clock. */
  createdAt: number
  startedAt: number | null
  endedAt: number | null
  /** null without a deadline, and while it pauses or is paused: then the deadline waits too. */
  deadlineAt: number | null
  /** While it pauses or is paused, what is left of the time to its deadline, ms; null otherwise. */
  deadlineLeftMs: number | null
  /** What it has used, its children with it. */
  use: Use
  /** Number of commits so far. */
  version: number
}

/** Kinds of history entries. Entry n of the list is the event with SSE id n, counted from 1. */
export const eventTypes = [
  'session.created',
  'session.pausing',
  'session.paused',
  'session.resumed',
  'session.moved',
  'session.reordered',
  'session.changed',
  'session.succeeded',
  'session.failed',
  'session.cancelled',
  'step.started',
  'step.completed',
  'step.failed',
  'step.retrying',
  'step.released',
  'step.recovered',
  'step.noted',
  'timer.fired',
  'child.ended',
  'items.ended',
  'signal.received',
] as const
export type EventType = (typeof eventTypes)[number]

export interface SessionEvent {
  type: EventType
  /** Milliseconds since 1970 by Redis' clock. */
  at: number
  /** Step key `<sessionId>.<version>.<n>` and step name, for events of a step. */
  key?: string
  step?: string
  attemptId?: string
  worker?: string
  [more: string]: unknown
}

/** A history entry before Redis gives it its time. */
export type Entry = Omit<SessionEvent, 'at'>

/** What `POST /v1/sessions` may say besides the workflow's own input. */
export const SubmitOptions = z.object({
  priority: z.int().min(0).max(9).default(5),
  tags: z
    .array(z.string().regex(/^[\w.:-]{1,64}$/, 'letters, digits, `_ . : -`, at most 64'))
    .max(16)
    .default([]),
  deadlineS: z
    .number()
    .positive()
    .max(30 * 86_400)
    .optional(),
  device: z.string().min(1).max(200).optional(),
  /** Of the caller's sessions with this key so many may be on devices at once. */
  concurrency: z
    .strictObject({
      key: z.string().regex(/^[\w.:-]{1,64}$/, 'letters, digits, `_ . : -`, at most 64'),
      limit: z.int().min(1).max(10_000),
    })
    .optional(),
  webhook: z.string().min(1).max(64).optional(),
})
export type SubmitOptions = z.infer<typeof SubmitOptions>

/** What of a session can be changed: what is left out stays. */
export const Change = z.strictObject({
  tags: SubmitOptions.shape.tags.unwrap().optional(),
  deadlineS: SubmitOptions.shape.deadlineS.unwrap().nullable().optional(),
})
export type Change = z.infer<typeof Change>

export interface Submission extends SubmitOptions {
  /** Workflow name, `image-generation` (newest version) or `image-generation@1`. */
  workflow: string
  input: unknown
  idempotencyKey?: string | undefined
  /** SHA-256 (hex) of the body as it was sent: two sends without a seed are the same request. */
  bodySha256?: string | undefined
  keyId: string | null
  /** Whether the caller may touch what others own. */
  mayOperate?: boolean
  /** The trace and the span that caused it, as `traceIn` reads them. */
  trace?: string | undefined
}

/** Who asks for a session that goes on from another. */
export interface Asker {
  keyId: string | null
  mayOperate?: boolean
  /** With the SHA-256 of what was asked: a repeat is answered with the same session. */
  idempotency?: { key: string; bodySha256: string } | undefined
}

export interface SessionFilter {
  status?: Status | undefined
  workflow?: string | undefined
  tag?: string | undefined
  /** Only children of this session. */
  parent?: string | undefined
  /** Only sessions of this API key; null sees all. */
  keyId: string | null
  /** Opaque, from a former page. */
  cursor?: string | undefined
  limit: number
}

export interface SessionPage {
  sessions: Session[]
  next: string | null
}

/** What `POST /v1/sessions/{id}/signal` may say. */
export const Signal = z.strictObject({
  type: z.string().regex(/^[A-Za-z][\w-]{0,63}(?:\.[\w-]{1,64}){0,3}$/, 'must be words of letters, digits, `_ -`, joined by dots'),
  data: z.unknown().optional(),
  eventId: z
    .string()
    .regex(/^[\x21-\x7e]{1,128}$/, 'must be 1 to 128 visible ASCII characters')
    .optional(),
})
export type Signal = z.infer<typeof Signal>

/** What `POST /v1/sessions/{id}/approvals` may say. */
export const Approval = z.strictObject({
  signals: z.array(Signal.shape.type).min(1).max(8).describe('signals of which one may be sent'),
  expiresInS: z
    .int()
    .min(1)
    .max(30 * 86_400)
    .default(86_400)
    .describe('seconds in which it may be'),
})
export type Approval = z.infer<typeof Approval>

/** What `POST /v1/approvals/{token}` may say. */
export const ApprovalAnswer = z.strictObject({ signal: z.string().min(1).max(300), data: z.unknown().optional() })
export type ApprovalAnswer = z.infer<typeof ApprovalAnswer>

/** What `POST /v1/sessions/{id}/fork` may say. */
export const ForkRequest = z.strictObject({
  from: z
    .strictObject({
      entry: z.int().min(1).optional().describe('a history entry, by its number: the state after it; default: the latest state'),
      call: z.int().min(1).optional().describe('of the latest state: a denoise call whose checkpoint is kept'),
    })
    .optional(),
  input: z.record(z.string(), z.unknown()).optional().describe('fields of the request that are to be others'),
})
export type ForkRequest = z.infer<typeof ForkRequest>

/** A session with all that is known of it. */
export interface Export {
  /** What a client would send for it. */
  request: { workflow: string; input: Record<string, unknown> }
  /** SHA-256 of its workflow's module; null of a workflow that comes with Darkroom. */
  content: string | null
  session: Session
  history: { id: number; event: SessionEvent }[]
  receipt: Receipt
}

export type ControlVerb = 'pause' | 'resume' | 'cancel'

/** What happened on the way, apart from the pictures: attempts, workers, checkpoints used, times. */
export interface Receipt {
  session: string
  workflow: string
  status: Status
  input: Record<string, unknown>
  exactnessKey: string | null
  createdAt: number
  startedAt: number | null
  endedAt: number | null
  steps: StepReceipt[]
  /** Worker deaths, moves to another hardware class, refused checkpoints: what a reader should know. */
  notes: { at: number; note: string }[]
}

export interface StepReceipt {
  key: string
  step: string
  attempts: {
    attemptId: string
    worker: string
    device: string
    exactnessKey: string | null
    startedAt: number
    endedAt: number | null
    /** completed, failed, released (pause, drain), lost (its lease ended), cancelled, or null while it runs. */
    end: 'completed' | 'failed' | 'released' | 'lost' | 'cancelled' | null
    /** The checkpoint it went on from; null when it began at call 0. */
    resumedFrom: { call: number; sha256: string } | null
    /** Seconds by stage as the worker measured them. */
    stats: Record<string, unknown> | null
    error: WireError | null
  }[]
}
