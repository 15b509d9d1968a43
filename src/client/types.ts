/** Types of the HTTP interface, inferred from its views and the workflows; none of these is loaded at run time. */
import type { z } from 'zod'
import type { FormSchema } from '../api/json-schema.ts'
import type { AuditView } from '../api/audit/views.ts'
import type { PictureRequestView, UploadView } from '../api/artifacts/views.ts'
import type * as Devices from '../api/devices/views.ts'
import type * as Items from '../api/items/views.ts'
import type * as Keys from '../api/keys/views.ts'
import type * as Live from '../api/live/views.ts'
import type * as Memory from '../api/memory/views.ts'
import type * as BulkActions from '../api/bulk/views.ts'
import type * as Compatibility from '../api/models/compatible.ts'
import type { ModelStatusView } from '../api/models/status.ts'
import type * as Models from '../api/models/views.ts'
import type { Markup as RoomMarkup, RoomView as ToldRoom } from '../api/rooms/markup.ts'
import type * as Queues from '../api/queue/views.ts'
import type * as Schedules from '../api/schedules/views.ts'
import type * as Policies from '../api/policies/views.ts'
import type { DryRunView } from '../api/sessions/dry-run.ts'
import type * as Sessions from '../api/sessions/views.ts'
import type { UsageView } from '../api/usage/views.ts'
import type * as Webhooks from '../api/webhooks/views.ts'
import type { WorkerView } from '../api/workers/views.ts'
import type { DrawingView, ReloadView, WorkflowView } from '../api/workflows/views.ts'
import type { Operations, StepName } from '../domains/index.ts'
import type { Report } from '../domains/postprocessing/analytics/report.ts'
import type { Trial } from '../domains/postprocessing/safety/trial.ts'
import type { Status } from '../engine/session.ts'
import type { imageGeneration } from '../workflows/built-in/image-generation.ts'
import type { imageCheck } from '../workflows/built-in/image-check.ts'
import type { imageFaces } from '../workflows/built-in/image-faces.ts'
import type { imageRejudge } from '../workflows/built-in/image-rejudge.ts'
import type { imageUpscale } from '../workflows/built-in/image-upscale.ts'
import type { memoryTransfer } from '../workflows/built-in/memory-transfer.ts'
import type { modelLoading } from '../workflows/built-in/model-loading.ts'
import type { FinishedImage } from '../workflows/built-in/postprocess.ts'
import type { CommandName as Dashed } from '../workflows/one-step.ts'

export type { FormSchema, Status }

/** A picture in the output of a session; `url` is the path of its bytes on the API. */
export type Image = FinishedImage & { url: string }
/** One that a policy keeps back; callers with the scope `operate` see its artifact, for a while. */
export type BlockedImage = NonNullable<z.infer<typeof imageGeneration.output>['blocked']>[number]
export type UploadedPicture = z.infer<typeof UploadView>
export type PictureRequest = z.infer<typeof PictureRequestView>
export type Session = z.infer<typeof Sessions.SessionView>
/** What would come of a submission. */
export type DryRun = DryRunView
export type SessionState = z.infer<typeof Sessions.StatesView>['states'][number]
/** A session as a file. */
export type SessionExport = z.infer<typeof Sessions.ExportView>
export type Fork = z.input<typeof Sessions.ForkBody>
export type SessionPage = z.infer<typeof Sessions.SessionPage>
export type Item = z.infer<typeof Items.ItemView>
export type ItemPage = z.infer<typeof Items.ItemPage>
export type Progress = z.infer<typeof Sessions.ProgressView>
export type Queue = z.infer<typeof Queues.QueueView>
/** What API keys have used, by day. */
export type Usage = z.infer<typeof UsageView>
export type QueuePart = z.input<typeof Queues.PauseQueue>
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

export type AuditEntry = z.infer<typeof AuditView>
export type Bulk = z.infer<typeof BulkActions.BulkView>
export type AddBulk = z.input<typeof BulkActions.AddBulk>
export type Schedule = z.infer<typeof Schedules.ScheduleView>
export type AddSchedule = z.input<typeof Schedules.AddSchedule>
export type Webhook = z.infer<typeof Webhooks.WebhookView>
export type WebhookWithSecret = z.infer<typeof Webhooks.WebhookWithSecret>
export type AddWebhook = z.input<typeof Webhooks.AddWebhook>
export type Delivery = z.infer<typeof Webhooks.DeliveryView>

export type ApiKey = z.infer<typeof Keys.KeyView>
export type ApiKeyWithSecret = z.infer<typeof Keys.KeyWithSecret>

export type Worker = z.infer<typeof WorkerView>
export type Workflow = z.infer<typeof WorkflowView>
/** A room of the page, in markup. */
export type RoomView = z.infer<typeof ToldRoom>
export type Markup = RoomMarkup
export type WorkflowDrawing = z.infer<typeof DrawingView>
export type WorkflowReload = z.infer<typeof ReloadView>
export type Device = z.infer<typeof Devices.DeviceView>
export type DeviceHistory = z.infer<typeof Devices.HistoryView>
export type DeviceStatus = z.infer<typeof Devices.StatusView>
export type DeviceEvent = z.infer<typeof Devices.EventView>
export type DeviceEventPage = z.infer<typeof Devices.DeviceEventPage>
/** What a live connection is told; a message is an array of them. */
export type LiveFrame = z.infer<typeof Live.LiveFrame>
export type LiveDevice = z.infer<typeof Live.LiveDevice>
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
export type ModelStatus = z.infer<typeof ModelStatusView>
export type Annotation = z.infer<typeof Models.AnnotationView>
/** What is left out is nothing. */
export type Annotate = z.input<typeof Models.AnnotateModel>
export type Compatible = z.infer<typeof Compatibility.CompatibleView>['devices'][number]
export type PictureShape = Partial<z.infer<typeof Compatibility.CompatibleView>['picture']>
/** Which of several kinds with one name is meant. */
export type OfKind = Pick<ModelFilter, 'kind'>
export type ModelPage = z.infer<typeof Models.ModelPage>
/** Several filters mean *and*; `text` is words. */
export interface ModelFilter {
  kind?: Model['kind'] | undefined
  family?: (Model['family'] & string) | undefined
  status?: Model['status'] | undefined
  /** Words that its name holds. */
  name?: string | undefined
  tag?: string | undefined
  text?: string | undefined
  cursor?: string | undefined
  limit?: number | undefined
}

export type PictureAnalytics = z.infer<typeof Report>

/** One version of a policy as an operator writes it; what is left out has its default. */
export type PolicyDocument = z.input<typeof Policies.AddPolicy>['policy']
export type PolicyVersion = z.infer<typeof Policies.PolicyVersionView>
export type PolicySummary = z.infer<typeof Policies.PolicySummary>
export type Policy = z.infer<typeof Policies.PolicyView>
export type PolicyDifferences = z.infer<typeof Policies.PolicyDifferences>
export type TryPolicy = z.input<typeof Policies.TryPolicy>
export type PolicyTrial = z.infer<typeof Trial>
export type AppliedPolicy = z.infer<typeof Policies.AppliedView>

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
type Commands = OneStep & {
  'image-upscale': typeof imageUpscale
  'image-faces': typeof imageFaces
  'image-check': typeof imageCheck
  'image-rejudge': typeof imageRejudge
  'memory-transfer': typeof memoryTransfer
  'model-loading': typeof modelLoading
}

/** `memory.copy` is `memory-copy`. */
export type CommandName = keyof Commands
export type CommandInput<Name extends CommandName> = z.input<Commands[Name]['input']>
/** As the session's output holds it: instants are milliseconds since 1970. */
export type CommandOutput<Name extends CommandName> = z.output<Commands[Name]['output']>
