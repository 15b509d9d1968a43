/** The record that a worker publishes about itself and its device: all that the rest of the farm knows of it. */
import { z } from 'zod'
import { DeviceStatus, type PictureLimits } from '../domains/device/status.ts'
import { ModelCacheReport } from '../domains/model/cached.ts'
import type { MemoryProfile } from '../domains/values.ts'
import { MemoryReport } from '../domains/memory/figures/report.ts'

/** A worker's device and what it holds of it: the parts of the domains `device`, `memory` and `model` in one. */
export const DeviceReport = z.strictObject({
  ...DeviceStatus.shape,
  ...MemoryReport.shape,
  /** Of model weights, in the worker's RAM. */
  modelCache: ModelCacheReport,
})
export type DeviceReport = z.infer<typeof DeviceReport>

export const workerStatuses = ['starting', 'ready', 'stalled', 'draining', 'suspect'] as const

/** The most that a step has taken, bytes, by what that follows from; `model` is its id. */
export interface PicturePeak {
  step: string
  model: string
  pixels: number
  profile: MemoryProfile
  bytes: number
}

/** Written by its worker alone, with a time to live. Times are those of its worker's clock. */
export interface WorkerRecord {
  id: string
  host: string
  pid: number
  epoch: string
  device: { id: string; kind: string; name: string; index: number; totalBytes: number | null }
  exactnessKey: string
  hardware: Record<string, unknown>
  build: Record<string, unknown>
  settings: Record<string, unknown>
  status: (typeof workerStatuses)[number]
  /** Id of the shelf that holds its models: of its host's model folders. */
  shelf: string
  /** Ids of the models that are resident in the Python child. */
  resident: string[]
  /** The steps that run now. */
  running: { key: string; step: string; session: string; since: number }[]
  lanes: { gpu: number; host: number }
  childPid: number | null
  /** Of the spare Python child, once its imports are done and it waits to be taken into use; null before. */
  sparePid: number | null
  /** Its device and what it holds of it. */
  report: DeviceReport
  /** What pictures took of its device at most, beside the weights: those that were drawn last. */
  pictures: PicturePeak[]
  /** Log lines that it could not write. */
  logLinesDropped: number
  startedAt: number
  seenAt: number
}

/** A record as it is read: with its age, ms, which no clock of its worker or its reader moves. */
export interface HeardWorker extends WorkerRecord {
  ageMs: number
}

/** How old its worker's report is, s: by the worker's clock until it was published, then by the farm's. */
export const ageOf = ({ seenAt, ageMs, report }: Pick<HeardWorker, 'seenAt' | 'ageMs' | 'report'>): number =>
  Math.max(0, seenAt - report.sampledAt + ageMs) / 1000

/** What each of these workers draws; null when there are none. */
export function smallestLimits(workers: readonly WorkerRecord[]): PictureLimits | null {
  // A worker of an earlier version says none.
  const limits = workers.flatMap(({ report }) => (report.capabilities.limits as PictureLimits | undefined) ?? [])
  if (limits.length === 0) return null
  return { cells: Math.min(...limits.map(({ cells }) => cells)), cellSteps: Math.min(...limits.map(({ cellSteps }) => cellSteps)) }
}

/** Whether a worker takes work: a stalled one may go on at any moment, one that drains or is suspect takes no more. */
export const isHere = ({ status }: Pick<WorkerRecord, 'status'>): boolean => status === 'ready' || status === 'stalled'
