/**
 * A typed client of the HTTP interface, in Node and in browsers. It survives a restarted API: submits carry an
 * idempotency key, and streams go on where they were cut.
 */
import type { HealthView } from '../api/health/views.ts'
import type { ControlVerb, Signal } from '../engine/session.ts'
import { nothing, readHealth } from './answers.ts'
import { Http, isPassing, pause, type ClientOptions } from './http.ts'
import { Problem } from './problem.ts'
import { readEvents } from './stream.ts'
import type {
  Allocation,
  AllocationList,
  CommandInput,
  CommandName,
  CommandOutput,
  DefaultDevice,
  Device,
  DeviceEventPage,
  DeviceMemory,
  DeviceStatus,
  Frame,
  ImageRequest,
  MemoryAnalytics,
  MemoryLeaks,
  MemoryPool,
  MemoryRecommendation,
  Model,
  ModelFilter,
  ModelPage,
  Progress,
  Receipt,
  ResidentModels,
  Session,
  SessionEvent,
  SessionPage,
  Status,
  Submission,
  Worker,
  Workflow,
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

export class DarkroomClient {
  readonly url: string
  readonly #http: Http
  readonly #patienceMs: number

  constructor({ url = 'http://127.0.0.1:4780', key, patienceMs = 30_000 }: ClientOptions = {}) {
    this.url = url.replace(/\/+$/, '')
    this.#patienceMs = patienceMs
    this.#http = new Http({ url: this.url, key, patienceMs })
  }

  /** Submits a session; sends it again under the same key when the answer got lost. @throws Problem */
  submit(submission: Submission, { idempotencyKey = crypto.randomUUID(), waitS, signal }: SubmitOptions = {}): Promise<Session> {
    const headers = { 'Idempotency-Key': idempotencyKey, ...(waitS !== undefined && { Prefer: `wait=${waitS}` }) }
    return this.#http.json('POST', '/v1/sessions', { headers, body: submission, ...(signal && { signal }) })
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
    return this.#http.json('GET', pathOf(id))
  }

  sessions(filter: ListFilter = {}): Promise<SessionPage> {
    return this.#http.json('GET', `/v1/sessions${queryOf({ ...filter })}`)
  }

  receipt(id: string): Promise<Receipt> {
    return this.#http.json('GET', `${pathOf(id)}/receipt`)
  }

  control(id: string, verb: ControlVerb): Promise<Session> {
    return this.#http.json('POST', `${pathOf(id)}/${verb}`)
  }

  /** Sends a signal to a session; again under the same event id when the answer got lost. @throws Problem */
  signal(id: string, { type, data, eventId = crypto.randomUUID() }: Signal): Promise<Session> {
    return this.#http.json('POST', `${pathOf(id)}/signal`, { body: { type, eventId, ...(data !== undefined && { data }) } })
  }

  /** A new session from a failed or cancelled one. */
  retry(id: string): Promise<Session> {
    return this.#http.json('POST', `${pathOf(id)}/retry`)
  }

  async remove(id: string): Promise<void> {
    await this.#http.request('DELETE', pathOf(id), nothing)
  }

  /** A workflow by its name, `image-generation` or `image-generation@1`. @throws Problem `workflow.unknown` */
  workflow(name: string): Promise<Workflow> {
    return this.#http.json('GET', `/v1/workflows/${encodeURIComponent(name)}`)
  }

  async workers(): Promise<Worker[]> {
    return (await this.#http.json<{ workers: Worker[] }>('GET', '/v1/workers')).workers
  }

  // ---- devices ----

  /** Devices that have a worker now. */
  async devices(): Promise<Device[]> {
    return (await this.#http.json<{ devices: Device[] }>('GET', '/v1/devices')).devices
  }

  /** By its id, or `cuda:0` while that means one device only. @throws Problem `device.unknown` */
  device(id: string): Promise<Device> {
    return this.#http.json('GET', deviceOf(id))
  }

  deviceStatus(id: string): Promise<DeviceStatus> {
    return this.#http.json('GET', `${deviceOf(id)}/status`)
  }

  deviceMemory(id: string): Promise<DeviceMemory> {
    return this.#http.json('GET', `${deviceOf(id)}/memory`)
  }

  /** Events after the one numbered `after`, oldest first; without it the newest. Go on after `newest`. */
  deviceEvents(filter: { after?: number; device?: string; limit?: number } = {}): Promise<DeviceEventPage> {
    return this.#http.json('GET', `/v1/devices/events${queryOf(filter)}`)
  }

  defaultDevice(): Promise<DefaultDevice> {
    return this.#http.json('GET', '/v1/devices/default')
  }

  /** null: any device. @throws Problem `device.unknown` */
  setDefaultDevice(device: string | null): Promise<DefaultDevice> {
    return this.#http.json('PUT', '/v1/devices/default', { body: { device } })
  }

  // ---- memory ----

  /** Every device, and behind those of a host its RAM. */
  async memory(): Promise<MemoryPool[]> {
    return (await this.#http.json<{ pools: MemoryPool[] }>('GET', '/v1/memory')).pools
  }

  /** The caller's, and those of sessions it may see. */
  allocations(filter: { device?: string } = {}): Promise<AllocationList> {
    return this.#http.json('GET', `/v1/memory/allocations${queryOf(filter)}`)
  }

  allocation(id: string): Promise<Allocation> {
    return this.#http.json('GET', allocationOf(id))
  }

  async residentModels(filter: { device?: string } = {}): Promise<ResidentModels[]> {
    return (await this.#http.json<{ devices: ResidentModels[] }>('GET', `/v1/memory/models${queryOf(filter)}`)).devices
  }

  async memoryAnalytics(filter: { device?: string } = {}): Promise<MemoryAnalytics[]> {
    return (await this.#http.json<{ devices: MemoryAnalytics[] }>('GET', `/v1/memory/analytics${queryOf(filter)}`)).devices
  }

  async memoryRecommendations(filter: { device?: string } = {}): Promise<MemoryRecommendation[]> {
    const path = `/v1/memory/recommendations${queryOf(filter)}`
    return (await this.#http.json<{ recommendations: MemoryRecommendation[] }>('GET', path)).recommendations
  }

  async memoryLeaks(filter: { device?: string } = {}): Promise<MemoryLeaks[]> {
    return (await this.#http.json<{ devices: MemoryLeaks[] }>('GET', `/v1/memory/leaks${queryOf(filter)}`)).devices
  }

  // ---- models ----

  /** A page of what lies in the model folders of all hosts, usable or not. */
  models(filter: ModelFilter = {}): Promise<ModelPage> {
    return this.#http.json('GET', `/v1/models${queryOf({ ...filter })}`)
  }

  model(id: string): Promise<Model> {
    return this.#http.json('GET', `/v1/models/${encodeURIComponent(id)}`)
  }

  /** Has every host look at its folders again; returns the ids of their shelves. */
  rescanModels(): Promise<{ shelves: string[] }> {
    return this.#http.json('POST', '/v1/models/rescan')
  }

  // ---- commands ----

  /**
   * Runs a command and returns its output, however long it takes. Sent twice under one idempotency key, it runs once.
   * @throws Problem the refusal, or the error its session ended with
   */
  async run<Name extends CommandName>(
    name: Name,
    input: CommandInput<Name>,
    { onFrame, ...options }: RunOptions = {},
  ): Promise<CommandOutput<Name>> {
    const submission = { workflow: name, input: input as Record<string, unknown> }
    const submitted = await this.submit(submission, { ...options, ...(!onFrame && { waitS: 60 }) })
    const session = submitted.endedAt === null ? await this.untilEnd(submitted.id, onFrame, options.signal) : submitted
    if (session.status === 'succeeded') return session.output as CommandOutput<Name>
    throw Problem.ofSession(session)
  }

  // ---- the farm ----

  /** Why the farm is not ready; empty when it is. */
  async notReady(): Promise<string[]> {
    try {
      await this.#http.request('GET', '/v1/ready', nothing, { again: false })
      return []
    } catch (error) {
      if (error instanceof Problem && error.code === 'api.not_ready') return error.document.reasons ?? [error.message]
      throw error
    }
  }

  /** Whether the process answers, and is Darkroom. @throws Problem `api.unreachable`, `api.not_darkroom` */
  async health(): Promise<HealthView> {
    return this.#http.request('GET', '/v1/health', readHealth, { again: false, signal: AbortSignal.timeout(healthMs) })
  }

  /** Bytes of an artifact by its SHA-256. */
  async artifact(sha256: string): Promise<Uint8Array> {
    return this.#http.request(
      'GET',
      `/v1/artifacts/${encodeURIComponent(sha256)}`,
      async (response) => new Uint8Array(await response.arrayBuffer()),
    )
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
        const response = await this.#http.fetch('GET', `${pathOf(id)}/events`, {
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

const deviceOf = (id: string): string => `/v1/devices/${encodeURIComponent(id)}`
const allocationOf = (id: string): string => `/v1/memory/allocations/${encodeURIComponent(id)}`

function queryOf(fields: Record<string, string | number | undefined>): string {
  const given = Object.entries(fields).flatMap(([name, value]) => (value === undefined ? [] : [[name, String(value)] as [string, string]]))
  return given.length === 0 ? '' : `?${new URLSearchParams(given).toString()}`
}

const pathOf = (id: string): string => `/v1/sessions/${encodeURIComponent(id)}`
