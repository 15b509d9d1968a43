/** Types of the HTTP interface, inferred from its views and the workflows; none of these is loaded at run time. */
import type { z } from 'zod'
import type * as Devices from '../api/devices/views.ts'
import type * as Memory from '../api/memory/views.ts'
import type * as Models from '../api/models/views.ts'
import type * as Sessions from '../api/sessions/views.ts'
import type { WorkerView } from '../api/workers/views.ts'
import type { WorkflowView } from '../api/workflows/views.ts'
import type { Operations, StepName } from '../domains/index.ts'
import type { ImageRef } from '../domains/values.ts'
import type { Status } from '../engine/session.ts'
import type { imageGeneration } from '../workflows/built-in/image-generation.ts'
import type { memoryTransfer } from '../workflows/built-in/memory-transfer.ts'
import type { CommandName as Dashed } from '../workflows/one-step.ts'

export type { Status }

/** A picture in the output of a session; `url` is the path of its bytes on the API. */
export type Image = ImageRef & { url: string }
export type Session = z.infer<typeof Sessions.SessionView>
export type SessionPage = z.infer<typeof Sessions.SessionPage>
export type Progress = z.infer<typeof Sessions.ProgressView>
export type Receipt = z.infer<typeof Sessions.ReceiptView>
export type Submission = z.input<typeof Sessions.SubmitSession>
/** Input of `image-generation`; the model's recommended settings fill in what is left out. */
export type ImageRequest = z.input<typeof imageGeneration.input>

/** A history entry; `id` numbers it within its session. */
export interface SessionEvent {
  kind: 'event'
  id: number
  type: z.infer<typeof Sessions.EventView>['type']
  data: z.infer<typeof Sessions.EventView>
}
export type Frame = SessionEvent | { kind: 'progress'; progress: Progress }

export type Worker = z.infer<typeof WorkerView>
export type Workflow = z.infer<typeof WorkflowView>
export type Device = z.infer<typeof Devices.DeviceView>
export type DeviceStatus = z.infer<typeof Devices.StatusView>
export type DeviceEvent = z.infer<typeof Devices.EventView>
export type DeviceEventPage = z.infer<typeof Devices.DeviceEventPage>
export type DefaultDevice = z.infer<typeof Devices.DefaultView>

export type Allocation = z.infer<typeof Memory.AllocationView>
export type AllocationList = z.infer<typeof Memory.AllocationList>
export type MemoryPool = z.infer<typeof Memory.PoolView>
export type DeviceMemory = z.infer<typeof Memory.DeviceMemoryView>
export type ResidentModels = z.infer<typeof Memory.ModelsView>
export type MemoryLeaks = z.infer<typeof Memory.LeaksView>
/** Of one device; times are milliseconds since 1970. */
export type MemoryAnalytics = z.infer<typeof Memory.AnalyticsView>
export type MemoryRecommendation = z.infer<typeof Memory.RecommendationView>

export type Model = z.infer<typeof Models.ModelView>
export type ModelPage = z.infer<typeof Models.ModelPage>
/** Several filters mean *and*; `text` is words. */
export interface ModelFilter {
  kind?: Model['kind'] | undefined
  family?: (Model['family'] & string) | undefined
  status?: Model['status'] | undefined
  text?: string | undefined
  cursor?: string | undefined
  limit?: number | undefined
}

// ---- commands ----

/** Operations that clients may ask for, by the name of their workflow. */
type OneStep = {
  [Step in StepName as Operations[Step] extends { command: unknown } ? Dashed<Step> : never]: Operations[Step] extends {
    command: { input: infer Input }
    output: infer Output
  }
    ? { input: Input; output: Output }
    : never
}
type Commands = OneStep & { 'memory-transfer': typeof memoryTransfer }

/** `memory.copy` is `memory-copy`. */
export type CommandName = keyof Commands
export type CommandInput<Name extends CommandName> = z.input<Commands[Name]['input']>
/** As the session's output holds it: instants are milliseconds since 1970. */
export type CommandOutput<Name extends CommandName> = z.output<Commands[Name]['output']>
