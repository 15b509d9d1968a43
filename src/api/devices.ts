/** Devices over HTTP: what their workers published, in a moment; and the few things that can be asked of them. */
import { createRoute, OpenAPIHono, z } from '@hono/zod-openapi'
import { streamSSE } from 'hono/streaming'
import { Alert, Capabilities, Vitals } from '../domains/device/status.ts'
import { operations } from '../domains/index.ts'
import { DarkroomError } from '../errors.ts'
import { deviceEventTypes, deviceStates, maxEvents, stateOf, type DeviceEvent } from '../farm/device-events.ts'
import { findDevice } from '../farm/devices.ts'
import { isHere, workerStatuses, type WorkerRecord } from '../farm/record.ts'
import { needs, type Caller } from './auth.ts'
import { command, commandResponses, commandHeaders } from './command.ts'
import { tolerant } from './events.ts'
import { Bell } from './bell.ts'
import type { ApiParts, App, AppEnv } from './context.ts'
import { DeviceMemoryView, presentDeviceMemory } from './memory.ts'
import { iso, orNull, presentRunning, RunningView, shortName, Time } from './present.ts'
import { json, keyed, noQuery, problems } from './route.ts'
import { refuseBody } from './sessions.ts'

const OptimizeOutput = operations['device.optimize'].output
const RefreshOutput = z.strictObject({ sampledAt: z.int() })

const pollMs = 1000
const keepAliveMs = 15_000

const idParam = z.object({
  id: z
    .string()
    .openapi({ param: { name: 'id', in: 'path' }, description: 'id of the device, or `cuda:0` while that means one device only' }),
})

const AlertView = z.strictObject({ ...Alert.shape, since: Time }).openapi('DeviceAlert')

const DeviceView = z
  .strictObject({
    id: z.string().openapi({ example: '0123abcd-cuda-4f1e2d3c' }),
    name: z.string().openapi({ description: 'what a person reads; several devices may have the same', example: 'cuda:0' }),
    model: z.string().openapi({ description: 'the name its maker gave it' }),
    host: z.string(),
    worker: z.string(),
    epoch: z.string().openapi({ description: 'what is held of the device ends with it' }),
    status: z.enum(workerStatuses).openapi({ description: 'of its worker; only a ready one takes work' }),
    state: z.enum(['online', 'busy', 'degraded']),
    isDefault: z.boolean().openapi({ description: 'of the caller' }),
    exactnessKey: z.string().openapi({ description: 'devices with equal keys draw equal pictures' }),
    totalBytes: z.int().nullable(),
    usedBytes: z.int().nullable(),
    alerts: z.array(AlertView),
    backend: z.enum(['cuda', 'd3d12', 'host']).openapi({ description: 'through which its memory is held' }),
    implementation: z.enum(['addon', 'typescript']),
    reason: z.string().nullable().openapi({ description: 'why not through the native addon, or not the device itself' }),
    uuid: z.string().nullable(),
    luid: z.string().nullable(),
    software: z.boolean().openapi({ description: 'a CPU that plays a GPU' }),
    capabilities: Capabilities,
    sampledAt: Time,
    ageS: z.number().openapi({ description: 'seconds since its worker looked' }),
  })
  .openapi('Device')

const StatusView = z
  .strictObject({
    id: z.string(),
    state: z.enum(['online', 'busy', 'degraded']),
    alerts: z.array(AlertView),
    vitals: Vitals.clone().openapi({ description: 'per cent, °C, W and MHz; null where nobody knows' }),
    totalBytes: z.int().nullable(),
    usedBytes: z.int().nullable(),
    running: z.array(RunningView),
    sampledAt: Time,
    ageS: z.number(),
  })
  .openapi('DeviceStatus')

const EventView = z
  .strictObject({
    id: z.int().openapi({ description: 'grows by one from event to event' }),
    at: Time,
    type: z.enum(deviceEventTypes),
    device: z.string(),
    worker: z.string(),
    from: orNull(z.enum(deviceStates)).openapi({ description: 'the state before; null when it was not here' }),
    alert: orNull(z.strictObject({ code: z.string(), message: z.string() })),
    note: z.string().nullable(),
  })
  .openapi('DeviceEvent')

const list = createRoute({
  method: 'get',
  path: '/devices',
  summary: 'List the devices that have a worker now',
  tags: ['devices'],
  ...keyed,
  middleware: needs('read'),
  request: { query: noQuery },
  responses: { 200: json('All devices', z.strictObject({ devices: z.array(DeviceView) })), ...problems() },
})

const DefaultView = z
  .strictObject({
    device: z.string().nullable().openapi({ description: 'id; null: any device' }),
    isHere: z.boolean().openapi({ description: 'whether a ready worker owns it now' }),
  })
  .openapi('DefaultDevice')

const getDefault = createRoute({
  method: 'get',
  path: '/devices/default',
  summary: 'The default device of the caller',
  tags: ['devices'],
  ...keyed,
  middleware: needs('read'),
  request: { query: noQuery },
  responses: { 200: json('The default', DefaultView), ...problems() },
})

const setDefault = createRoute({
  method: 'put',
  path: '/devices/default',
  summary: 'Choose the device on which the caller’s sessions run, unless they name another',
  description: 'It holds for sessions that are submitted from then on; they wait for this device while it is not here.',
  tags: ['devices'],
  ...keyed,
  middleware: needs('submit'),
  request: {
    query: noQuery,
    body: {
      required: true,
      content: {
        'application/json': {
          schema: z
            .strictObject({ device: z.string().min(1).max(200).nullable() })
            .openapi('SetDefaultDevice', { example: { device: 'cuda:0' } }),
        },
      },
    },
  },
  responses: { 200: json('The default from now on', DefaultView), ...problems() },
})

const number = (low: number, high: number) =>
  z
    .string()
    .regex(/^\d{1,15}$/, `must be a whole number from ${low} to ${high}`)
    .transform(Number)
    .pipe(z.int().min(low, `must be at least ${low}`).max(high, `must be at most ${high}`))
const Position = number(0, Number.MAX_SAFE_INTEGER).openapi({ type: 'integer', minimum: 0 })

const events = createRoute({
  method: 'get',
  path: '/devices/events',
  summary: 'What has changed of the devices: came, went, busy, degraded, alerts',
  description:
    'The newest 1,000 are kept. As JSON: those after `after`, oldest first, or without it the newest. With `Accept: text/event-stream` a stream: those ' +
    'after `Last-Event-ID` (or `after`, else from now on), then what comes.',
  tags: ['devices'],
  ...keyed,
  middleware: needs('read'),
  request: {
    query: z.strictObject({
      after: Position.optional(),
      device: z.string().min(1).max(200).optional().openapi({ description: 'only of this device, by its id' }),
      limit: number(1, 1000).default(100).openapi({ type: 'integer', minimum: 1, maximum: 1000, default: 100 }),
    }),
    headers: z.object({ accept: z.string().optional(), 'last-event-id': Position.optional() }),
  },
  responses: {
    200: {
      description: 'The events; `newest` is the number to go on after',
      content: {
        'application/json': { schema: z.strictObject({ events: z.array(EventView), newest: z.int() }).openapi('DeviceEventPage') },
        'text/event-stream': { schema: z.string() },
      },
    },
    ...problems(),
  },
})

const get = createRoute({
  method: 'get',
  path: '/devices/{id}',
  summary: 'Get a device: what it is and what it can do',
  tags: ['devices'],
  ...keyed,
  middleware: needs('read'),
  request: { params: idParam, query: noQuery },
  responses: { 200: json('The device', DeviceView), ...problems(404) },
})

const status = createRoute({
  method: 'get',
  path: '/devices/{id}/status',
  summary: 'How a device is: utilization, temperature, power, clocks, what runs now',
  tags: ['devices'],
  ...keyed,
  middleware: needs('read'),
  request: { params: idParam, query: noQuery },
  responses: { 200: json('Its status', StatusView), ...problems(404) },
})

const memory = createRoute({
  method: 'get',
  path: '/devices/{id}/memory',
  summary: 'The memory of a device: by whom it is held, and how much it is pressed',
  tags: ['devices'],
  ...keyed,
  middleware: needs('read'),
  request: { params: idParam, query: noQuery },
  responses: { 200: json('Its memory', DeviceMemoryView), ...problems(404) },
})

const optimize = createRoute({
  method: 'post',
  path: '/devices/{id}/optimize',
  summary: 'Let go of caches, and of models that nobody uses; the figures before and after come back',
  tags: ['devices'],
  ...keyed,
  middleware: needs('operate'),
  request: {
    params: idParam,
    query: noQuery,
    headers: commandHeaders,
    body: {
      required: false,
      content: {
        'application/json': {
          schema: z
            .strictObject({ idleModels: z.boolean().default(true).openapi({ description: 'let go of models that no session uses, too' }) })
            .openapi('OptimizeDevice'),
        },
      },
    },
  },
  responses: commandResponses('What it was and what it is', OptimizeOutput),
})

const refresh = createRoute({
  method: 'post',
  path: '/devices/{id}/refresh',
  summary: 'Have the worker of a device take its figures and publish them now',
  tags: ['devices'],
  ...keyed,
  middleware: needs('submit'),
  request: { params: idParam, query: noQuery, headers: commandHeaders },
  responses: commandResponses('When the figures were taken', RefreshOutput.extend({ sampledAt: Time }).openapi('DeviceRefreshed')),
})

export function deviceRoutes(parts: ApiParts): App {
  const { engine, log, closing } = parts
  const { devices } = engine

  const presentDefault = async (device: string | null): Promise<z.infer<typeof DefaultView>> => ({
    device,
    isHere: device !== null && (await engine.workers()).some((worker) => worker.device.id === device && isHere(worker)),
  })

  return (
    new OpenAPIHono<AppEnv>()
      .openapi(list, async (c) => {
        const [workers, own] = await Promise.all([engine.workers(), devices.default(c.get('caller').keyId)])
        const sorted = workers.toSorted((a, b) => (a.device.id < b.device.id ? -1 : 1))
        const now = Date.now()
        return c.json({ devices: sorted.map((worker) => presentDevice(worker, own, now)) }, 200)
      })
      // Before `{id}`, which they would be.
      .openapi(getDefault, async (c) => c.json(await presentDefault(await devices.default(c.get('caller').keyId)), 200))
      .openapi(setDefault, async (c) => {
        const { device } = c.req.valid('json')
        return c.json(await presentDefault(await devices.setDefault(c.get('caller').keyId, device)), 200)
      })
      .openapi(events, async (c) => {
        const { after, device, limit } = c.req.valid('query')
        const { accept, 'last-event-id': last } = c.req.valid('header')
        const isWanted = (event: DeviceEvent): boolean => device === undefined || event.device === device
        if (!accept?.includes('text/event-stream')) {
          const found = (await devices.watch.events(after, device === undefined ? limit : maxEvents)).filter(isWanted)
          const page = after === undefined ? found.slice(-limit) : found.slice(0, limit)
          return c.json({ events: page.map(presentEvent), newest: page.at(-1)?.id ?? after ?? 0 }, 200)
        }
        let seen = last ?? after ?? (await devices.watch.events(undefined, 1))[0]?.id ?? 0
        // Nobody would read the stream of a HEAD, so nothing would ever end it.
        if (c.req.raw.method === 'HEAD') return c.body(null, 200, { 'Content-Type': 'text/event-stream' })
        c.header('X-Accel-Buffering', 'no')
        return streamSSE(c, async (stream) => {
          const gone = new AbortController()
          stream.onAbort(() => gone.abort())
          let spokenAt = performance.now()
          try {
            while (!gone.signal.aborted && !closing?.aborted) {
              for (const event of (await tolerant(() => devices.watch.events(seen, 500))) ?? []) {
                seen = event.id
                if (!isWanted(event)) continue
                await stream.writeSSE({ id: String(event.id), event: event.type, data: JSON.stringify(presentEvent(event)) })
                spokenAt = performance.now()
              }
              if (performance.now() - spokenAt >= keepAliveMs) {
                await stream.write(': still here\n\n')
                spokenAt = performance.now()
              }
              await new Bell().wait(pollMs, gone.signal, closing)
            }
          } catch (error) {
            log.error({ requestId: c.get('requestId'), err: error }, 'event stream failed')
          }
        })
      })
      .openapi(get, async (c) => {
        const [worker, own] = await Promise.all([find(c.req.valid('param').id), devices.default(c.get('caller').keyId)])
        return c.json(presentDevice(worker, own, Date.now()), 200)
      })
      .openapi(status, async (c) => c.json(presentStatus(await find(c.req.valid('param').id), c.get('caller'), Date.now()), 200))
      .openapi(memory, async (c) => {
        const worker = await find(c.req.valid('param').id)
        return c.json(await presentDeviceMemory(worker, c.get('caller'), engine, Date.now()), 200)
      })
      .openapi(optimize, async (c) => {
        // The validator leaves an absent body out; what it means stands in the schema.
        const { idleModels = true } = c.req.valid('json') as { idleModels?: boolean }
        const done = await command(parts, c, 'device-optimize', { device: c.req.valid('param').id, idleModels }, { device: null })
        return 'session' in done ? c.json(done.session, 202) : c.json(OptimizeOutput.parse(done.output), 200)
      })
      .openapi(refresh, async (c) => {
        await refuseBody(c)
        const done = await command(parts, c, 'device-refresh', { device: c.req.valid('param').id }, { device: null })
        return 'session' in done ? c.json(done.session, 202) : c.json({ sampledAt: iso(RefreshOutput.parse(done.output).sampledAt) }, 200)
      })
  )

  /** For reading, a worker that takes no more work is as good as any. */
  async function find(name: string): Promise<WorkerRecord> {
    const workers = await engine.workers()
    const own = workers.find(({ device }) => device.id === name)
    if (own) return own
    try {
      return findDevice(name, workers, 'id')
    } catch (error) {
      if (!(error instanceof DarkroomError)) throw error
      throw new DarkroomError(error.code, error.message, { cause: error })
    }
  }
}

const sampled = ({ report: { sampledAt } }: WorkerRecord, nowMs: number) => ({
  sampledAt: iso(sampledAt),
  ageS: Math.max(0, (nowMs - sampledAt) / 1000),
})

const presentAlerts = ({ report }: WorkerRecord): z.infer<typeof AlertView>[] =>
  report.alerts.map((alert) => ({ ...alert, since: iso(alert.since) }))

function presentDevice(worker: WorkerRecord, own: string | null, nowMs: number): z.infer<typeof DeviceView> {
  const { device, report } = worker
  const { backend, implementation, reason, uuid, luid, software, capabilities, figures } = report
  return {
    id: device.id,
    name: shortName(worker),
    model: device.name,
    host: worker.host,
    worker: worker.id,
    epoch: worker.epoch,
    status: worker.status,
    state: stateOf(worker),
    isDefault: device.id === own,
    exactnessKey: worker.exactnessKey,
    totalBytes: figures.total,
    usedBytes: figures.used,
    alerts: presentAlerts(worker),
    backend,
    implementation,
    reason,
    uuid,
    luid,
    software,
    capabilities,
    ...sampled(worker, nowMs),
  }
}

function presentStatus(worker: WorkerRecord, caller: Caller, nowMs: number): z.infer<typeof StatusView> {
  const { device, report } = worker
  return {
    id: device.id,
    state: stateOf(worker),
    alerts: presentAlerts(worker),
    vitals: report.vitals,
    totalBytes: report.figures.total,
    usedBytes: report.figures.used,
    running: presentRunning(worker, caller),
    ...sampled(worker, nowMs),
  }
}

const presentEvent = (event: DeviceEvent): z.infer<typeof EventView> => ({ ...event, at: iso(event.at) })
