/** Shapes of the HTTP interface: the engine's records with times as ISO 8601 text. */
import type { WireError } from '../errors.ts'
import type {
  EventType,
  Progress,
  Receipt as ReceiptRecord,
  Session as SessionRecord,
  Status,
  StepReceipt,
  WorkerRecord,
} from '../workflows/session.ts'

export type { EventType, Progress, Status, WireError }

type Timed<T, Names extends keyof T> = Omit<T, Names> & { [Name in Names]: null extends T[Name] ? string | null : string }

export interface Image {
  sha256: string
  mediaType: string
  width: number
  height: number
  seed: number
  bytes: number
  /** Path of the bytes on the API. */
  url: string
}

export type Session = Omit<Timed<SessionRecord, 'createdAt' | 'startedAt' | 'endedAt' | 'deadlineAt'>, 'output'> & {
  output: ({ images?: Image[] } & Record<string, unknown>) | null
}

export interface SessionPage {
  sessions: Session[]
  next: string | null
}

type Attempt = Timed<StepReceipt['attempts'][number], 'startedAt' | 'endedAt'>

export type Receipt = Omit<Timed<ReceiptRecord, 'createdAt' | 'startedAt' | 'endedAt'>, 'steps' | 'notes'> & {
  steps: { key: string; step: string; attempts: Attempt[] }[]
  notes: { at: string; note: string }[]
}

export type Worker = Omit<Timed<WorkerRecord, 'startedAt' | 'seenAt'>, 'running' | 'report'> & {
  running: { key: string | null; step: string; session: string | null; since: string }[]
  ageS: number
}

/** Input of `image-generation`; what is left out comes from the model's recommended settings. */
export interface ImageRequest {
  prompt: string
  model?: string
  negativePrompt?: string
  width?: number
  height?: number
  steps?: number
  guidance?: number
  seed?: number
  sampler?: string
  count?: number
  pin?: 'class' | 'strict'
}

export interface Submission {
  workflow: string
  input: object
  priority?: number
  tags?: string[]
  deadlineS?: number
}

/** A history entry; `id` numbers it within its session. */
export interface SessionEvent {
  kind: 'event'
  id: number
  type: EventType
  data: { at: string } & Record<string, unknown>
}

export type Frame = SessionEvent | { kind: 'progress'; progress: Progress }
