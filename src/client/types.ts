/** Shapes of the HTTP interface: the engine's records with times as ISO 8601 text. */
import type { WireError } from '../errors.ts'
import type { DeviceEvent as DeviceEventRecord } from '../farm/device-events.ts'
import type { MemoryAnalytics as AnalyticsRecord } from '../farm/devices.ts'
import type { EventType, Progress, Receipt as ReceiptRecord, Session as SessionRecord, Status, StepReceipt } from '../engine/session.ts'
import type { WorkerRecord } from '../farm/record.ts'

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
  running: Running[]
  native: Pick<Report, 'implementation' | 'backend' | 'reason'>
  ageS: number
}

interface Running {
  /** null, as `session`, for the work of another API key. */
  key: string | null
  step: string
  session: string | null
  since: string
}

type Report = WorkerRecord['report']
export type DeviceAlert = Timed<Report['alerts'][number], 'since'>

export interface Device extends Pick<
  Report,
  'backend' | 'implementation' | 'reason' | 'uuid' | 'luid' | 'software' | 'capabilities' | 'state'
> {
  id: string
  /** As in `cuda:0`; several devices of a farm may have the same. */
  name: string
  /** The name its maker gave it. */
  model: string
  host: string
  worker: string
  epoch: string
  status: WorkerRecord['status']
  isDefault: boolean
  exactnessKey: string
  totalBytes: number | null
  usedBytes: number | null
  alerts: DeviceAlert[]
  sampledAt: string
  ageS: number
}

export interface DeviceStatus extends Pick<Report, 'state' | 'vitals'> {
  id: string
  alerts: DeviceAlert[]
  totalBytes: number | null
  usedBytes: number | null
  running: Running[]
  sampledAt: string
  ageS: number
}

export type DeviceEvent = Timed<DeviceEventRecord, 'at'>

export interface DefaultDevice {
  device: string | null
  /** Whether a ready worker owns it now. */
  isHere: boolean
}

/** What is held of a device: before and after it was optimized, bytes. */
export interface HeldMemory {
  used: number | null
  allocations: number
  arenas: number
  python: number | null
  models: string[]
}
export interface DeviceOptimized {
  before: HeldMemory
  after: HeldMemory
  did: string[]
}

export type MemoryPressure = Timed<Report['pressure']['device'], 'since'>
export type Allocation = Timed<Report['allocations'][number], 'createdAt' | 'expiresAt'>
type LeakRecord = Report['leaks']
export type MemoryLeaks = Omit<LeakRecord, 'newest'> & { device: string; newest: Timed<LeakRecord['newest'][number], 'foundAt'>[] }

/** Memory of a device, or the RAM of a host (`device` is null). Unknown is null. */
export interface MemoryPool {
  pool: 'device' | 'ram'
  device: string | null
  host: string
  name: string
  total: number | null
  budget: number | null
  used: number | null
  tracked: number
  /** The part of `used` that can be let go of at once. */
  evictable: number
  free: number | null
  source: string
  pressure: MemoryPressure
  sampledAt: string
  ageS: number
}

export interface DeviceMemory extends Pick<Report, 'figures' | 'usage' | 'ram' | 'python'> {
  device: string
  pressure: { device: MemoryPressure; ram: MemoryPressure }
  allocations: Allocation[]
  /** false: more are held than the newest, which are looked through. */
  isComplete: boolean
  leaks: MemoryLeaks
  sampledAt: string
  ageS: number
}

export interface ResidentModels {
  device: string
  allocatedBytes: number | null
  reservedBytes: number | null
  models: { id: string; bytes: number | null; isIdle: boolean }[]
  sampledAt: string
}

/** Of one device; times are milliseconds since 1970. */
export type MemoryAnalytics = AnalyticsRecord & { device: string }
export type MemoryRecommendation = AnalyticsRecord['recommendations'][number] & { device: string }

/** How memory is made where a request makes some. */
export interface MakeMemory {
  kind?: Allocation['kind']
  placement?: 'automatic' | 'committed' | 'placed'
  timeToLiveS?: number
}
export interface AllocateRequest extends MakeMemory {
  /** Default: the caller's default device, else the only one there is. */
  device?: string
  bytes: number
}
export interface CopyRequest {
  from: string
  fromAt?: number
  to: string
  at?: number
  /** Default: as much as both hold from there on. */
  bytes?: number
  verify?: boolean
}
/** Into an allocation (`to`), or a new one on `device`. */
export interface TransferRequest extends MakeMemory {
  from: string
  fromAt?: number
  bytes?: number
  to?: string
  device?: string
  at?: number
  verify?: boolean
}
export interface MemoryCopied {
  bytes: number
  seconds: number
  /** Of what arrived, where it was verified: 8 hex digits. */
  crc32: string | null
}
export interface MemoryTransferred {
  allocation: Allocation
  bytes: number
  crc32: string
}
export interface MemoryDefragmented {
  compaction: { moves: number; bytesMoved: number; bytesCopied: number; arenasFreed: number; before: number; after: number }
  /** null where no Python child runs. */
  python: { freedBytes: number | null } | null
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
  /** Id of the device its steps run on, or `cuda:0` while that means one device only. */
  device?: string
}

/** A history entry; `id` numbers it within its session. */
export interface SessionEvent {
  kind: 'event'
  id: number
  type: EventType
  data: { at: string } & Record<string, unknown>
}

export type Frame = SessionEvent | { kind: 'progress'; progress: Progress }
