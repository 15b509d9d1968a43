/** The record that a worker publishes about itself and its device: all that the rest of the farm knows of it. */
import { z } from 'zod'
import { DeviceStatus } from '../domains/device/status.ts'
import { MemoryReport } from '../domains/memory/figures/report.ts'

/** A worker's device and what it holds of it: the parts of the domains `device` and `memory` in one. */
export const DeviceReport = z.strictObject({ ...DeviceStatus.shape, ...MemoryReport.shape })
export type DeviceReport = z.infer<typeof DeviceReport>

export const workerStatuses = ['starting', 'ready', 'stalled', 'draining', 'suspect'] as const

/** Written by its worker alone, with a time to live. */
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
  /** Its device and what it holds of it. */
  report: DeviceReport
  startedAt: number
  seenAt: number
}

/** Whether a worker takes work: a stalled one may go on at any moment, one that drains or is suspect takes no more. */
export const isHere = ({ status }: Pick<WorkerRecord, 'status'>): boolean => status === 'ready' || status === 'stalled'
