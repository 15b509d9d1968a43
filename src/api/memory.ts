/** Device memory over HTTP. Reads are what workers published; changes are commands to the worker that holds the memory. */
import { createRoute, OpenAPIHono, z } from '@hono/zod-openapi'
import { operations } from '../domains/index.ts'
import {
  AllocationView as AllocationRecord,
  Figures,
  LeakReport,
  MemoryAnalytics,
  Pressure,
  PythonMemory,
  Ram,
  Recommendation,
  Usage,
  type AllocationView as Allocation,
} from '../domains/memory/figures/report.ts'
import { AllocationId, Bytes, Crc32 } from '../domains/values.ts'
import { apiError } from '../errors.ts'
import { findDevice } from '../farm/devices.ts'
import { sessionIdPattern } from '../keys.ts'
import { make, Offset } from '../domains/memory/allocation.ts'
import { isHere, type WorkerRecord } from '../farm/record.ts'
import { needs, type Caller } from './auth.ts'
import { command, commandHeaders, commandResponses } from './command.ts'
import type { ApiParts, App, AppEnv, EnginePort } from './context.ts'
import { iso, isoOrNull, orNull, seesAll, shortName, Time } from './present.ts'
import { json, keyed, noQuery, problems } from './route.ts'
import { refuseBody } from './sessions.ts'
import { memoryError } from '../domains/memory/errors.ts'
import { deviceError } from '../domains/device/errors.ts'

const tags = ['memory']
const ReleaseOutput = operations['memory.release'].output
const CopyOutput = operations['memory.copy'].output
const ChecksumOutput = operations['memory.checksum'].output
const DefragmentOutput = operations['memory.defragment'].output
const WriteOutput = z.strictObject({ allocation: AllocationRecord, bytes: Bytes, crc32: Crc32 })
const AllocationView = AllocationRecord.extend({ createdAt: Time, expiresAt: Time.nullable() }).openapi('Allocation')
const PressureView = Pressure.extend({ since: Time }).openapi('MemoryPressure')
const LeaksView = z
  .strictObject({
    device: z.string(),
    ...LeakReport.shape,
    newest: z.array(LeakReport.shape.newest.element.extend({ foundAt: Time })),
  })
  .openapi('MemoryLeaks')
const ModelsView = z
  .strictObject({
    device: z.string(),
    allocatedBytes: PythonMemory.shape.allocatedBytes,
    reservedBytes: PythonMemory.shape.reservedBytes,
    models: PythonMemory.shape.models,
    sampledAt: Time,
  })
  .openapi('ResidentModels')

const PoolView = z
  .strictObject({
    pool: z.enum(['device', 'ram']),
    device: z.string().nullable().openapi({ description: 'null for the RAM of a host' }),
    host: z.string(),
    name: z.string().openapi({ example: 'cuda:0' }),
    total: z.int().nullable(),
    budget: z.int().nullable().openapi({ description: 'what the system would let this process have' }),
    used: z.int().nullable().openapi({ description: 'by everybody' }),
    tracked: z.int().openapi({ description: 'by allocations; of RAM: by workers and their Python children' }),
    evictable: z.int().openapi({ description: 'the part of `used` that can be let go of at once' }),
    free: z.int().nullable(),
    source: z.string().openapi({ description: 'who says so' }),
    pressure: PressureView,
    sampledAt: Time,
    ageS: z.number(),
  })
  .openapi('MemoryPool')

export const DeviceMemoryView = z
  .strictObject({
    device: z.string(),
    figures: Figures,
    usage: Usage,
    ram: Ram,
    python: orNull(PythonMemory),
    pressure: z.strictObject({ device: PressureView, ram: PressureView }),
    allocations: z.array(AllocationView).openapi({ description: 'those that the caller may see' }),
    isComplete: z.boolean().openapi({ description: 'false: more are held than the 200 newest, which are looked through' }),
    leaks: LeaksView,
    sampledAt: Time,
    ageS: z.number(),
  })
  .openapi('DeviceMemory')

const get = <S extends z.ZodType, Q extends z.ZodObject>(path: string, summary: string, schema: S, query: Q) =>
  createRoute({
    method: 'get',
    path: `/memory${path}`,
    summary,
    tags,
    ...keyed,
    middleware: needs('read'),
    request: { query },
    responses: { 200: json('As the workers published it', schema), ...problems(404) },
  })

const ofDevice = z.strictObject({ device: z.string().min(1).max(200).optional().openapi({ description: 'only of this device' }) })

const pools = get(
  '',
  'Memory of every device and host: by how much it is used, and pressed',
  z.strictObject({ pools: z.array(PoolView) }),
  noQuery,
)
const listAllocations = get(
  '/allocations',
  'List allocations: the caller’s own, and those of sessions it may see',
  z.strictObject({ allocations: z.array(AllocationView), isComplete: z.boolean() }).openapi('AllocationList'),
  ofDevice,
)
const models = get(
  '/models',
  'Models that are resident, by Python’s own figures',
  z.strictObject({ devices: z.array(ModelsView) }),
  ofDevice,
)
const leaks = get(
  '/leaks',
  'Allocations that outlived their owners and were reclaimed',
  z.strictObject({ devices: z.array(LeaksView) }),
  ofDevice,
)

const AnalyticsView = MemoryAnalytics.extend({ device: z.string() }).openapi('MemoryAnalytics')
const analytics = get(
  '/analytics',
  'Memory over time, since each worker started: use, peaks, fragmentation, sizes and lifetimes of allocations. Times are milliseconds since 1970.',
  z.strictObject({ devices: z.array(AnalyticsView) }),
  ofDevice,
)
const RecommendationView = Recommendation.extend({ device: z.string() }).openapi('MemoryRecommendation')
const recommendations = get(
  '/recommendations',
  'What follows from the analytics',
  z.strictObject({ recommendations: z.array(RecommendationView) }),
  ofDevice,
)

const idParam = z.object({
  id: AllocationId.clone().openapi({ param: { name: 'id', in: 'path' }, example: '0123abcd-cuda-4f1e2d3c.9a8b7c6d.1' }),
})

const inspect = createRoute({
  method: 'get',
  path: '/memory/allocations/{id}',
  summary: 'Get an allocation',
  tags,
  ...keyed,
  middleware: needs('read'),
  request: { params: idParam, query: noQuery },
  responses: { 200: json('The allocation', AllocationView), ...problems(404) },
})

const release = createRoute({
  method: 'delete',
  path: '/memory/allocations/{id}',
  summary: 'Give an allocation back before its time',
  tags,
  ...keyed,
  middleware: needs('submit'),
  request: { params: idParam, query: noQuery, headers: commandHeaders },
  responses: commandResponses('What was given back', ReleaseOutput),
})

const renew = createRoute({
  method: 'post',
  path: '/memory/allocations/{id}/renew',
  summary: 'Begin the time of an allocation anew',
  tags,
  ...keyed,
  middleware: needs('submit'),
  request: {
    params: idParam,
    query: noQuery,
    headers: commandHeaders,
    body: { content: { 'application/json': { schema: z.strictObject({ timeToLiveS: make.timeToLiveS }).openapi('RenewAllocation') } } },
  },
  responses: commandResponses('The allocation', AllocationView),
})

const post = <S extends z.ZodType, B extends z.ZodType>(
  path: string,
  { summary, scope = 'submit', body, output }: { summary: string; scope?: 'submit' | 'operate'; body: B; output: S },
) =>
  createRoute({
    method: 'post',
    path: `/memory${path}`,
    summary,
    tags,
    ...keyed,
    middleware: needs(scope),
    request: { query: noQuery, headers: commandHeaders, body: { required: true, content: { 'application/json': { schema: body } } } },
    responses: commandResponses('The result', output),
  })

const DeviceName = z.string().min(1).max(200)

const allocate = post('/allocations', {
  summary: 'Allocate memory of a device, or of its host',
  body: z
    .strictObject({
      device: DeviceName.optional().openapi({ description: 'default: the caller’s default device, else the only one there is' }),
      bytes: Bytes,
      ...make,
    })
    .openapi('Allocate', { example: { device: 'cuda:0', bytes: 1_048_576 } }),
  output: AllocationView,
})
const copy = post('/copy', {
  summary: 'Copy within one device: host to host, host to device and back, device to device',
  body: z
    .strictObject({
      from: AllocationId,
      fromAt: Offset,
      to: AllocationId,
      at: Offset,
      bytes: Bytes.optional().describe('default: as much as both hold from there on'),
      verify: z.boolean().default(false).describe('compare the checksums of both sides afterwards'),
    })
    .openapi('CopyMemory'),
  output: CopyOutput,
})
const transfer = post('/transfer', {
  summary: 'Transfer to another device, wherever it is: into an allocation there, or a new one',
  body: z
    .strictObject({
      from: AllocationId,
      fromAt: Offset,
      bytes: Bytes.optional().describe('default: to the end'),
      to: AllocationId.optional().describe('an allocation to write into; else `device` says where a new one is made'),
      device: DeviceName.optional(),
      at: Offset,
      ...make,
      verify: z.boolean().default(true).describe('compare the checksum of what arrived'),
    })
    .openapi('TransferMemory'),
  output: WriteOutput.extend({ allocation: AllocationView }).openapi('MemoryTransferred'),
})
const checksum = post('/checksum', {
  summary: 'CRC-32 of a range of an allocation',
  body: z.strictObject({ id: AllocationId, at: Offset, bytes: Bytes.optional().describe('default: to the end') }).openapi('ChecksumMemory'),
  output: ChecksumOutput,
})
const defragment = post('/defragment', {
  summary: 'Move placed allocations of a device together, and give emptied arenas back',
  scope: 'operate',
  body: z
    .strictObject({ device: DeviceName, maxBytes: Bytes.optional().describe('most bytes to move; default: no limit') })
    .openapi('DefragmentMemory'),
  output: DefragmentOutput,
})

export function memoryRoutes(parts: ApiParts): App {
  const { engine } = parts

  return new OpenAPIHono<AppEnv>()
    .openapi(pools, async (c) => c.json({ pools: presentPools(await engine.workers(), Date.now()) }, 200))
    .openapi(listAllocations, async (c) => {
      const workers = await some(c.req.valid('query').device)
      const mine = await visibleOf(workers, c.get('caller'), engine)
      const isComplete = workers.every(({ report }) => report.allocations.length === report.allocationCount)
      return c.json({ allocations: mine.map(presentAllocation), isComplete }, 200)
    })
    .openapi(models, async (c) => {
      const workers = await some(c.req.valid('query').device)
      const present = ({ device, report: { python, sampledAt } }: WorkerRecord): z.infer<typeof ModelsView> => ({
        device: device.id,
        allocatedBytes: python?.allocatedBytes ?? null,
        reservedBytes: python?.reservedBytes ?? null,
        models: python?.models ?? [],
        sampledAt: iso(sampledAt),
      })
      return c.json({ devices: workers.map(present) }, 200)
    })
    .openapi(leaks, async (c) => {
      const workers = await some(c.req.valid('query').device)
      return c.json({ devices: await Promise.all(workers.map((worker) => presentLeaks(worker, c.get('caller'), engine))) }, 200)
    })
    .openapi(analytics, async (c) => c.json({ devices: await published(c.req.valid('query').device, c.get('caller')) }, 200))
    .openapi(recommendations, async (c) => {
      const all = await published(c.req.valid('query').device, c.get('caller'))
      return c.json({ recommendations: all.flatMap(({ device, recommendations: each }) => each.map((one) => ({ device, ...one }))) }, 200)
    })
    .openapi(inspect, async (c) => {
      const { id } = c.req.valid('param')
      const worker = (await engine.workers()).find((each) => isHeldBy(id, each))
      const [found] = worker ? await visibleOf([worker], c.get('caller'), engine, (allocation) => allocation.id === id) : []
      if (!found) throw memoryError('unknown', worker ? unseen(id, worker) : `allocation ${id} went with its device epoch`)
      return c.json(presentAllocation(found), 200)
    })
    .openapi(allocate, async (c) => {
      const { device: named, ...given } = c.req.valid('json')
      const { device, worker } = await chosen(named, c.get('caller'))
      if (worker) refuseBeyond(given, worker)
      const done = await command(parts, c, 'memory-allocate', { ...given, device })
      return 'session' in done ? c.json(done.session, 202) : c.json(presentAllocation(AllocationRecord.parse(done.output)), 200)
    })
    .openapi(renew, async (c) => {
      const input = { id: c.req.valid('param').id, ...c.req.valid('json') }
      const done = await command(parts, c, 'memory-renew', input, { id: null })
      return 'session' in done ? c.json(done.session, 202) : c.json(presentAllocation(AllocationRecord.parse(done.output)), 200)
    })
    .openapi(release, async (c) => {
      await refuseBody(c)
      const done = await command(parts, c, 'memory-release', { id: c.req.valid('param').id }, { id: null })
      return 'session' in done ? c.json(done.session, 202) : c.json(ReleaseOutput.parse(done.output), 200)
    })
    .openapi(copy, async (c) => {
      const done = await command(parts, c, 'memory-copy', c.req.valid('json'))
      return 'session' in done ? c.json(done.session, 202) : c.json(CopyOutput.parse(done.output), 200)
    })
    .openapi(transfer, async (c) => {
      const done = await command(parts, c, 'memory-transfer', c.req.valid('json'), { id: 'from' })
      if ('session' in done) return c.json(done.session, 202)
      const output = WriteOutput.parse(done.output)
      return c.json({ ...output, allocation: presentAllocation(output.allocation) }, 200)
    })
    .openapi(checksum, async (c) => {
      const done = await command(parts, c, 'memory-checksum', c.req.valid('json'))
      return 'session' in done ? c.json(done.session, 202) : c.json(ChecksumOutput.parse(done.output), 200)
    })
    .openapi(defragment, async (c) => {
      const done = await command(parts, c, 'memory-defragment', c.req.valid('json'))
      return 'session' in done ? c.json(done.session, 202) : c.json(DefragmentOutput.parse(done.output), 200)
    })

  /** Workers by their device, in order; the one of a device that is named. @throws DarkroomError `device.unknown` */
  async function some(device: string | undefined): Promise<WorkerRecord[]> {
    const workers = (await engine.workers()).toSorted((a, b) => (a.device.id < b.device.id ? -1 : 1))
    return device === undefined ? workers : [findDevice(device, workers, 'device')]
  }

  /** Analytics of the devices whose workers have published them, without owners that the caller may not see. */
  async function published(device: string | undefined, caller: Caller): Promise<z.infer<typeof AnalyticsView>[]> {
    const workers = await some(device)
    const texts = await Promise.all(workers.map((worker) => engine.devices.analytics(worker.device.id)))
    const found = texts.flatMap((text, i) => {
      const id = workers[i]?.device.id
      return text === undefined || id === undefined ? [] : [{ ...MemoryAnalytics.parse(JSON.parse(text)), device: id }]
    })
    const owners = found.flatMap((one) => [...one.expiring, ...one.recommendations].flatMap(({ owner }) => owner ?? []))
    const sees = await ownersSeenBy(caller, owners, engine)
    return found.map((one) => ({
      ...one,
      expiring: one.expiring.filter(({ owner }) => sees(owner)),
      recommendations: one.recommendations.filter(({ owner }) => owner === null || sees(owner)),
    }))
  }

  /** The device to allocate on, with its worker where it is here. @throws DarkroomError `device.unknown`, `api.invalid` when nothing says which */
  async function chosen(named: string | undefined, caller: Caller): Promise<{ device: string; worker: WorkerRecord | undefined }> {
    const workers = (await engine.workers()).filter(isHere)
    const name = named ?? (await engine.devices.default(caller.keyId))
    // One that is not here, the command refuses: it knows a repeat of what was accepted when it was.
    if (name !== null) return { device: name, worker: workers.find((worker) => worker.device.id === name || shortName(worker) === name) }
    const [only, ...others] = workers
    if (only && others.length === 0) return { device: only.device.id, worker: only }
    const ids = workers.map(({ device }) => device.id).join(', ')
    throw only
      ? apiError('invalid', `there are several devices, and the caller has no default: name one of ${ids}`, {
          field: 'device',
        })
      : deviceError('unknown', 'there is no device now', { field: 'device' })
  }
}

/** What no freeing of memory would ever make room for. @throws DarkroomError `memory.invalid` */
function refuseBeyond({ bytes, kind }: { bytes: number; kind: string }, { device, report }: WorkerRecord): void {
  const total = kind === 'device' ? report.figures.total : report.ram.total
  if (total === null || bytes <= total) return
  const whose = kind === 'device' ? `device ${device.id}` : `the host of ${device.id}`
  throw memoryError('invalid', `${bytes} bytes are more than ${whose} has: ${total}`, { field: 'bytes' })
}

/** An id names its device and the first digits of its epoch. */
function isHeldBy(id: string, { device, epoch }: WorkerRecord): boolean {
  const [where, when = ''] = id.split('.')
  return where === device.id && epoch.startsWith(when)
}

const unseen = (id: string, { report: { allocations, allocationCount } }: WorkerRecord): string =>
  allocations.length === allocationCount
    ? `there is no allocation ${id}`
    : `there is no allocation ${id} among the ${allocations.length} newest of ${allocationCount}`

/** Allocations that the caller may see: its own, those of its sessions; an operator sees all. */
async function visibleOf(
  workers: readonly WorkerRecord[],
  caller: Caller,
  engine: Pick<EnginePort, 'submittedBy'>,
  isWanted: (allocation: Allocation) => boolean = () => true,
): Promise<Allocation[]> {
  const all = workers.flatMap(({ report }) => report.allocations).filter(isWanted)
  const sees = await ownersSeenBy(
    caller,
    all.map(({ owner }) => owner),
    engine,
  )
  return all.filter(({ owner }) => sees(owner))
}

async function ownersSeenBy(
  caller: Caller,
  owners: readonly string[],
  engine: Pick<EnginePort, 'submittedBy'>,
): Promise<(owner: string) => boolean> {
  const { keyId } = caller
  if (keyId === null || seesAll(caller)) return () => true
  const sessions = [...new Set(owners)].filter((owner) => sessionIdPattern.test(owner))
  const own = await engine.submittedBy(keyId, sessions)
  return (owner) => owner === `key:${keyId}` || own.has(owner)
}

const presentAllocation = (allocation: Allocation): z.infer<typeof AllocationView> => ({
  ...allocation,
  createdAt: iso(allocation.createdAt),
  expiresAt: isoOrNull(allocation.expiresAt),
})

const presentPressure = (pressure: z.infer<typeof Pressure>): z.infer<typeof PressureView> => ({ ...pressure, since: iso(pressure.since) })

async function presentLeaks(
  { device, report: { leaks: found } }: WorkerRecord,
  caller: Caller,
  engine: Pick<EnginePort, 'submittedBy'>,
): Promise<z.infer<typeof LeaksView>> {
  const owners = [...found.newest, ...found.suspects].map(({ owner }) => owner)
  const sees = await ownersSeenBy(caller, owners, engine)
  return {
    ...found,
    device: device.id,
    newest: found.newest.filter(({ owner }) => sees(owner)).map((leak) => ({ ...leak, foundAt: iso(leak.foundAt) })),
    suspects: found.suspects.filter(({ owner }) => sees(owner)),
  }
}

/** The memory of one device, with what the caller may see of its allocations. */
export async function presentDeviceMemory(
  worker: WorkerRecord,
  caller: Caller,
  engine: Pick<EnginePort, 'submittedBy'>,
  nowMs: number,
): Promise<z.infer<typeof DeviceMemoryView>> {
  const { figures, usage, ram, python, pressure, allocations, allocationCount, sampledAt } = worker.report
  return {
    device: worker.device.id,
    figures,
    usage,
    ram,
    python,
    pressure: { device: presentPressure(pressure.device), ram: presentPressure(pressure.ram) },
    allocations: (await visibleOf([worker], caller, engine)).map(presentAllocation),
    isComplete: allocations.length === allocationCount,
    leaks: await presentLeaks(worker, caller, engine),
    sampledAt: iso(sampledAt),
    ageS: Math.max(0, (nowMs - sampledAt) / 1000),
  }
}

/** Every device, and behind those of a host its RAM, as its newest report has it. */
function presentPools(workers: readonly WorkerRecord[], nowMs: number): z.infer<typeof PoolView>[] {
  const hosts = [...new Set(workers.map(({ host }) => host))].toSorted()
  return hosts.flatMap((host) => {
    const here = workers.filter((worker) => worker.host === host).toSorted((a, b) => (a.device.id < b.device.id ? -1 : 1))
    const [newest] = here.toSorted((a, b) => b.report.sampledAt - a.report.sampledAt)
    const devices = here.map(({ device, report }) =>
      presentPool(
        { pool: 'device', device: device.id, host, name: shortName({ device }) },
        { ...report.figures, tracked: report.usage.tracked, pressure: report.pressure.device, sampledAt: report.sampledAt },
        nowMs,
      ),
    )
    if (!newest) return devices
    const { ram, pressure, sampledAt } = newest.report
    const tracked = here.reduce((sum, { report }) => sum + report.ram.rss, 0)
    const budget = ram.available === null ? null : ram.available + tracked
    return [
      ...devices,
      presentPool(
        { pool: 'ram', device: null, host, name: 'RAM' },
        { total: ram.total, budget, used: ram.used, tracked, source: ram.source, pressure: pressure.ram, sampledAt },
        nowMs,
      ),
    ]
  })
}

interface PoolFigures {
  total: number | null
  budget: number | null
  used: number | null
  tracked: number
  source: string
  pressure: z.infer<typeof Pressure>
  sampledAt: number
}

function presentPool(
  whose: Pick<z.infer<typeof PoolView>, 'pool' | 'device' | 'host' | 'name'>,
  { total, budget, used, tracked, source, pressure, sampledAt }: PoolFigures,
  nowMs: number,
): z.infer<typeof PoolView> {
  return {
    ...whose,
    total,
    budget,
    used,
    tracked,
    evictable: pressure.evictable,
    free: total === null || used === null ? null : Math.max(0, total - used),
    source,
    pressure: presentPressure(pressure),
    sampledAt: iso(sampledAt),
    ageS: Math.max(0, (nowMs - sampledAt) / 1000),
  }
}
