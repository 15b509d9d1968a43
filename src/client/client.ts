/**
 * A typed client of the HTTP interface, in Node and in browsers. It survives a restarted API: submits carry an
 * idempotency key, and streams go on where they were cut.
 */
import type { HealthView } from '../api/health/views.ts'
import type { Change, ControlVerb, Signal } from '../engine/session.ts'
import { BulkClient } from './bulk.ts'
import { FarmClient } from './farm.ts'
import { nothing, readHealth } from './answers.ts'
import { Http, isPassing, pause, type ClientOptions } from './http.ts'
import { pathOf, queryOf } from './paths.ts'
import { PolicyClient } from './policies.ts'
import { Problem } from './problem.ts'
import { SchedulesClient } from './schedules.ts'
import { readEvents } from './stream.ts'
import { WebhooksClient } from './webhooks.ts'
import type {
  AuditEntry,
  CommandInput,
  CommandName,
  CommandOutput,
  DryRun,
  Fork,
  Frame,
  ImageRequest,
  Item,
  ItemPage,
  PictureAnalytics,
  PictureRequest,
  Progress,
  Queue,
  QueuePart,
  Receipt,
  Session,
  SessionEvent,
  SessionExport,
  SessionPage,
  SessionState,
  Status,
  Submission,
  UploadedPicture,
  Usage,
  Worker,
  Workflow,
  WorkflowDrawing,
  WorkflowReload,
} from './types.ts'

export interface SubmitOptions {
  idempotencyKey?: string
  /** Seconds to wait for the end, 60 at most. */
  waitS?: number
  signal?: AbortSignal
}

export interface RunOptions {
  idempotencyKey?: string
  /** Sees the history and progress of the command on the way. */
  onFrame?: (frame: Frame) => void
  signal?: AbortSignal
  /** Where its steps run, of a command that names no device itself. */
  device?: string
}

export interface ListFilter {
  status?: Status
  workflow?: string
  tag?: string
  parent?: string
  cursor?: string
  limit?: number
}

const terminal: ReadonlySet<string> = new Set(['session.succeeded', 'session.failed', 'session.cancelled'])

export class DarkroomClient extends FarmClient {
  readonly url: string
  readonly webhooks: WebhooksClient
  readonly schedules: SchedulesClient
  readonly bulk: BulkClient
  /** Policies of content safety. */
  readonly policies: PolicyClient
  readonly #patienceMs: number

  constructor({ url = 'http://127.0.0.1:4780', key, patienceMs = 30_000 }: ClientOptions = {}) {
    const base = url.replace(/\/+$/, '')
    super(new Http({ url: base, key, patienceMs }))
    this.url = base
    this.#patienceMs = patienceMs
    this.webhooks = new WebhooksClient(this.http)
    this.schedules = new SchedulesClient(this.http)
    this.bulk = new BulkClient(this.http)
    this.policies = new PolicyClient(this.http)
  }

  /** Submits a session; sends it again under the same key when the answer got lost. @throws Problem */
  submit(submission: Submission, { idempotencyKey = crypto.randomUUID(), waitS, signal }: SubmitOptions = {}): Promise<Session> {
    const headers = { 'Idempotency-Key': idempotencyKey, ...(waitS !== undefined && { Prefer: `wait=${waitS}` }) }
    return this.http.json('POST', '/v1/sessions', { headers, body: submission, ...(signal && { signal }) })
  }

  /** What would come of a submission: nothing is made. @throws Problem what a submit would be refused with */
  dryRun(submission: Submission): Promise<DryRun> {
    return this.http.json('POST', '/v1/sessions?dryRun=true', { body: submission })
  }

  /** Submits an image generation. @throws Problem */
  generate(
    input: ImageRequest,
    options: SubmitOptions & Pick<Submission, 'priority' | 'tags' | 'deadlineS' | 'device'> = {},
  ): Promise<Session> {
    const { priority, tags, deadlineS, device, ...rest } = options
    const more = {
      ...(priority !== undefined && { priority }),
      ...(tags && { tags }),
      ...(deadlineS !== undefined && { deadlineS }),
      ...(device !== undefined && { device }),
    }
    return this.submit({ workflow: 'image-generation', input, ...more }, rest)
  }

  session(id: string): Promise<Session> {
    return this.http.json('GET', pathOf(id))
  }

  sessions(filter: ListFilter = {}): Promise<SessionPage> {
    return this.http.json('GET', `/v1/sessions${queryOf({ ...filter })}`)
  }

  /** A page of the items of a session, in their order. @throws Problem `session.no_items` */
  items(id: string, filter: { status?: Item['status']; cursor?: string; limit?: number } = {}): Promise<ItemPage> {
    return this.http.json('GET', `${pathOf(id)}/items${queryOf({ ...filter })}`)
  }

  /**
   * The pictures of a session as a ZIP, as they come; one that is cut off fails while it is read.
   * @throws Problem `session.no_results`
   */
  results(id: string): Promise<ReadableStream<Uint8Array>> {
    return this.http.request('GET', `${pathOf(id)}/results.zip`, (response) => Promise.resolve(response.body ?? new ReadableStream()))
  }

  receipt(id: string): Promise<Receipt> {
    return this.http.json('GET', `${pathOf(id)}/receipt`)
  }

  /** Its request, history, receipt and result, for another farm to replay. */
  export(id: string): Promise<SessionExport> {
    return this.http.json('GET', `${pathOf(id)}/export`)
  }

  control(id: string, verb: ControlVerb): Promise<Session> {
    return this.http.json('POST', `${pathOf(id)}/${verb}`)
  }

  /** Gives a session other tags, or another deadline; what is left out stays. @throws Problem `session.ended` */
  change(id: string, change: Change): Promise<Session> {
    return this.http.json('PATCH', pathOf(id), { body: change })
  }

  /** Sends a signal to a session; again under the same event id when the answer got lost. @throws Problem */
  signal(id: string, { type, data, eventId = crypto.randomUUID() }: Signal): Promise<Session> {
    return this.http.json('POST', `${pathOf(id)}/signal`, { body: { type, eventId, ...(data !== undefined && { data }) } })
  }

  /** First or last of those of its API key that wait for a device. @throws Problem `session.not_waiting` */
  move(id: string, to: 'front' | 'back'): Promise<Session> {
    return this.http.json('POST', `${pathOf(id)}/${to}`)
  }

  /** Directly before another of its API key. @throws Problem `session.not_waiting`, `session.other_key` */
  moveBefore(id: string, next: string): Promise<Session> {
    return this.http.json('POST', `${pathOf(id)}/before`, { body: { session: next } })
  }

  prioritize(id: string, priority: number): Promise<Session> {
    return this.http.json('POST', `${pathOf(id)}/priority`, { body: { priority } })
  }

  /** Who waits for a device, in the order in which they are let in. */
  queue(filter: { limit?: number } = {}): Promise<Queue> {
    return this.http.json('GET', `/v1/queue${queryOf(filter)}`)
  }

  /** What API keys have used on each of so many days. */
  usage(of: { days?: number } = {}): Promise<Usage> {
    return this.http.json('GET', `/v1/usage${queryOf(of)}`)
  }

  /** Lets nobody in, or somebody again: to a device, to those of a class, or, without either, to any. */
  switchQueue(verb: 'pause' | 'resume', of: QueuePart = {}): Promise<Queue> {
    return this.http.json('POST', `/v1/queue/${verb}`, { body: of })
  }

  /** A new session from a failed or cancelled one; sent again under the same key when the answer got lost. */
  retry(id: string, { idempotencyKey = crypto.randomUUID() }: Pick<SubmitOptions, 'idempotencyKey'> = {}): Promise<Session> {
    return this.http.json('POST', `${pathOf(id)}/retry`, { headers: { 'Idempotency-Key': idempotencyKey } })
  }

  /** The states that a session can be forked from, oldest first. @throws Problem `session.not_forkable` */
  async states(id: string): Promise<SessionState[]> {
    return (await this.http.json<{ states: SessionState[] }>('GET', `${pathOf(id)}/states`)).states
  }

  /** One that goes on from a state of this one. @throws Problem `session.not_forkable`, `session.checkpoint_gone` */
  fork(
    id: string,
    fork: Fork = {},
    { idempotencyKey = crypto.randomUUID() }: Pick<SubmitOptions, 'idempotencyKey'> = {},
  ): Promise<Session> {
    return this.http.json('POST', `${pathOf(id)}/fork`, { headers: { 'Idempotency-Key': idempotencyKey }, body: fork })
  }

  async remove(id: string): Promise<void> {
    await this.http.request('DELETE', pathOf(id), nothing)
  }

  /** A workflow by its name, `image-generation` or `image-generation@1`. @throws Problem `workflow.unknown` */
  workflow(name: string): Promise<Workflow> {
    return this.http.json('GET', `/v1/workflows/${encodeURIComponent(name)}`)
  }

  /** Where the states of a workflow stand in a drawing of it. @throws Problem `workflow.unknown` */
  workflowDrawing(name: string): Promise<WorkflowDrawing> {
    return this.http.json('GET', `/v1/workflows/${encodeURIComponent(name)}/drawing`)
  }

  /** The newest and all other versions of the workflows that there are. */
  async workflows(): Promise<Workflow[]> {
    return (await this.http.json<{ workflows: Workflow[] }>('GET', '/v1/workflows')).workflows
  }

  /** Has every process read the folder of workflows again. @throws Problem `workflow.no_folder` */
  reloadWorkflows(): Promise<WorkflowReload> {
    return this.http.json('POST', '/v1/workflows/reload')
  }

  async workers(): Promise<Worker[]> {
    return (await this.http.json<{ workers: Worker[] }>('GET', '/v1/workers')).workers
  }

  // ---- commands ----

  /**
   * Runs a command and returns its output, however long it takes. Sent twice under one idempotency key, it runs once.
   * @throws Problem the refusal, or the error its session ended with
   */
  async run<Name extends CommandName>(
    name: Name,
    input: CommandInput<Name>,
    { onFrame, device, ...options }: RunOptions = {},
  ): Promise<CommandOutput<Name>> {
    const submission = { workflow: name, input: input as Record<string, unknown>, ...(device !== undefined && { device }) }
    const submitted = await this.submit(submission, { ...options, ...(!onFrame && { waitS: 60 }) })
    const session = submitted.endedAt === null ? await this.untilEnd(submitted.id, onFrame, options.signal) : submitted
    if (session.status === 'succeeded') return session.output as CommandOutput<Name>
    throw Problem.ofSession(session)
  }

  // ---- the farm ----

  /** What callers with the scope `operate` have changed, the newest first. */
  async audit(limit = 100): Promise<AuditEntry[]> {
    return (await this.http.json<{ entries: AuditEntry[] }>('GET', `/v1/audit?limit=${limit}`)).entries
  }

  /** Why the farm is not ready; empty when it is. */
  async notReady(): Promise<string[]> {
    try {
      await this.http.request('GET', '/v1/ready', nothing, { again: false })
      return []
    } catch (error) {
      if (error instanceof Problem && error.code === 'api.not_ready') return error.document.reasons ?? [error.message]
      throw error
    }
  }

  /** Whether the process answers, and is Darkroom. @throws Problem `api.unreachable`, `api.not_darkroom` */
  async health(): Promise<HealthView> {
    return this.http.request('GET', '/v1/health', readHealth, { again: false, signal: AbortSignal.timeout(healthMs) })
  }

  /** Bytes of an artifact by its SHA-256; with a size, its thumbnail: at most so many pixels a side. @throws Problem */
  artifact(sha256: string, { size }: { size?: 256 } = {}): Promise<Uint8Array> {
    const path = `/v1/artifacts/${encodeURIComponent(sha256)}${size === undefined ? '' : `?size=${size}`}`
    return this.http.request('GET', path, async (response) => new Uint8Array(await response.arrayBuffer()))
  }

  /**
   * Uploads a picture: PNG, JPEG, WebP or AVIF. Its `sha256` is what a request names; it is kept for an hour, and as
   * long as a session names it.
   * @throws Problem
   */
  upload(file: Uint8Array, signal?: AbortSignal): Promise<UploadedPicture> {
    return this.http.json('POST', '/v1/artifacts', { body: file, ...(signal && { signal }) })
  }

  /**
   * The same of a picture that lies on another server, which the farm's operator must allow.
   * @throws Problem `artifact.url_refused`, `artifact.url_failed`
   */
  uploadFrom(url: string): Promise<UploadedPicture> {
    return this.http.json('POST', '/v1/artifacts', { body: { url } })
  }

  /** How postprocessing went in so many days, with verdicts of policies, and what follows; for operators. */
  pictureAnalytics(days?: number): Promise<PictureAnalytics> {
    return this.http.json('GET', `/v1/images/analytics${queryOf({ days })}`)
  }

  /** The request of a picture, as its own texts tell it. @throws Problem `artifact.untold` where they tell none */
  pictureRequest(sha256: string): Promise<PictureRequest> {
    return this.http.json('GET', `/v1/artifacts/${encodeURIComponent(sha256)}/request`)
  }

  /**
   * History and progress of a session after entry `after`, until its end. A cut connection is made again, and goes on
   * after the last entry received.
   * @throws Problem when the API refuses, or does not come back within the client's patience
   */
  async *follow(id: string, { after = 0, signal }: { after?: number; signal?: AbortSignal } = {}): AsyncGenerator<Frame> {
    let last = after
    let waitMs = 200
    let lostAt: number | undefined
    for (;;) {
      let openedAt = Number.POSITIVE_INFINITY
      try {
        const response = await this.http.fetch('GET', `${pathOf(id)}/events`, {
          headers: { Accept: 'text/event-stream', ...(last > 0 && { 'Last-Event-ID': String(last) }) },
          ...(signal && { signal }),
        })
        if (response.status === 204) return
        if (!response.ok) throw await Problem.of(response)
        if (!response.headers.get('content-type')?.startsWith('text/event-stream'))
          throw Problem.notDarkroom(response, 'what is no stream of events')
        openedAt = performance.now()
        for await (const { id: number, event, data } of readEvents(response.body ?? new ReadableStream())) {
          waitMs = 200
          lostAt = undefined
          if (number === undefined) {
            if (event === 'progress') yield { kind: 'progress', progress: JSON.parse(data) as Progress }
            continue
          }
          last = Number(number)
          const entry = { kind: 'event', id: last, type: event, data: JSON.parse(data) } as SessionEvent
          yield entry
          if (terminal.has(entry.type)) return
        }
        throw new Error('the stream of events ended before the session did')
      } catch (error) {
        if (signal?.aborted || (error instanceof Problem && !isPassing(error))) throw error
        // One that stood for a while was a good one, whether or not anything happened meanwhile.
        if (performance.now() - openedAt > steadyMs) lostAt = undefined
        lostAt ??= performance.now()
        if (performance.now() - lostAt >= this.#patienceMs) throw error instanceof Problem ? error : Problem.unreachable(this.url, error)
      }
      await pause(waitMs, signal)
      waitMs = Math.min(2 * waitMs, 2000)
    }
  }

  /** Follows a session to its end; `onProgress` sees every frame on the way. */
  async untilEnd(id: string, onFrame: (frame: Frame) => void = () => undefined, signal?: AbortSignal): Promise<Session> {
    for await (const frame of this.follow(id, signal ? { signal } : {})) onFrame(frame)
    return this.session(id)
  }
}

const steadyMs = 2000
/** How long a process that lives may take to say so, ms. */
const healthMs = 10_000
