/** Device memory over HTTP, as workers last published it. Changes are commands to the worker that holds the memory. */
import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { z } from 'zod'
import type { Caller } from '../../api-keys.ts'
import { memoryError } from '../../domains/memory/errors.ts'
import { AllocationView as Allocation, MemoryAnalytics } from '../../domains/memory/figures/report.ts'
import { ModelCacheReport } from '../../domains/model/cached.ts'
import { AllocationId, splitAllocationId } from '../../domains/values.ts'
import { findDevice } from '../../farm/devices.ts'
import type { WorkerRecord } from '../../farm/record.ts'
import { needs } from '../auth.ts'
import type { ApiParts, App, AppEnv } from '../context.ts'
import { visibleAllocations, visibleOwners } from '../policy.ts'
import { json, keyed, noQuery, problems } from '../route.ts'
import { iso, present } from '../view.ts'
import {
  AllocationList,
  AllocationView,
  AnalyticsView,
  LeaksView,
  ModelsView,
  PoolView,
  presentLeaks,
  presentPools,
  RecommendationView,
} from './views.ts'

const tags = ['memory']

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

const ofDevice = z.strictObject({ device: z.string().min(1).max(200).optional().meta({ description: 'only of this device' }) })

const pools = get(
  '',
  'Memory of every device and host: by how much it is used, and pressed',
  z.strictObject({ pools: z.array(PoolView) }),
  noQuery,
)
const listAllocations = get(
  '/allocations',
  'List allocations: the caller’s own, and those of sessions it may see',
  AllocationList,
  ofDevice,
)
const models = get(
  '/models',
  'Models that are resident, by Python’s own figures, and those that are cached in RAM',
  z.strictObject({ devices: z.array(ModelsView) }),
  ofDevice,
)
const leaks = get(
  '/leaks',
  'Allocations that outlived their owners and were reclaimed',
  z.strictObject({ devices: z.array(LeaksView) }),
  ofDevice,
)

const analytics = get(
  '/analytics',
  'Memory over time, since each worker started: use, peaks, fragmentation, sizes and lifetimes of allocations. Times are milliseconds since 1970.',
  z.strictObject({ devices: z.array(AnalyticsView) }),
  ofDevice,
)
const recommendations = get(
  '/recommendations',
  'What follows from the analytics',
  z.strictObject({ recommendations: z.array(RecommendationView) }),
  ofDevice,
)

const idParam = z.object({
  id: AllocationId.meta({ param: { name: 'id', in: 'path' }, example: '0123abcd-cuda-4f1e2d3c.9a8b7c6d.1' }),
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

export function memoryRoutes(parts: ApiParts): App {
  const { engine } = parts

  return new OpenAPIHono<AppEnv>()
    .openapi(pools, async (c) => c.json({ pools: presentPools(await engine.workers()) }, 200))
    .openapi(listAllocations, async (c) => {
      const workers = await some(c.req.valid('query').device)
      const mine = await visibleAllocations(workers, c.get('caller'), engine)
      const isComplete = workers.every(({ report }) => report.allocations.length === report.allocationCount)
      return c.json({ allocations: mine.map((each) => present(Allocation, each)), isComplete }, 200)
    })
    .openapi(models, async (c) => {
      const workers = await some(c.req.valid('query').device)
      const resident = ({ device, report: { modelCache, python, sampledAt } }: WorkerRecord): z.infer<typeof ModelsView> => ({
        device: device.id,
        allocatedBytes: python?.allocatedBytes ?? null,
        reservedBytes: python?.reservedBytes ?? null,
        models: python?.models ?? [],
        // A worker of an earlier version has none.
        cache: (modelCache as typeof modelCache | undefined) ? present(ModelCacheReport, modelCache) : null,
        sampledAt: iso(sampledAt),
      })
      return c.json({ devices: workers.map(resident) }, 200)
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
      const [found] = worker ? await visibleAllocations([worker], c.get('caller'), engine, (allocation) => allocation.id === id) : []
      if (!found) throw memoryError('unknown', worker ? unseen(id, worker) : `allocation ${id} went with its device epoch`)
      return c.json(present(Allocation, found), 200)
    })

  /** Workers by their device, in order; the one of a device that is named. @throws DarkroomError `device.unknown` */
  async function some(device: string | undefined): Promise<WorkerRecord[]> {
    const workers = (await engine.workers()).toSorted((a, b) => (a.device.id < b.device.id ? -1 : 1))
    return device === undefined ? workers : [findDevice(device, workers, 'device')]
  }

  /** Analytics that workers have published, without owners that the caller may not see. */
  async function published(device: string | undefined, caller: Caller): Promise<z.infer<typeof AnalyticsView>[]> {
    const workers = await some(device)
    const texts = await Promise.all(workers.map((worker) => engine.devices.analytics(worker.device.id)))
    const found = texts.flatMap((text, i) => {
      const id = workers[i]?.device.id
      return text === undefined || id === undefined ? [] : [{ ...MemoryAnalytics.parse(JSON.parse(text)), device: id }]
    })
    const owners = found.flatMap((one) => [...one.expiring, ...one.recommendations].flatMap(({ owner }) => owner ?? []))
    const sees = await visibleOwners(caller, owners, engine)
    return found.map((one) => ({
      ...one,
      expiring: one.expiring.filter(({ owner }) => sees(owner)),
      recommendations: one.recommendations.filter(({ owner }) => owner === null || sees(owner)),
    }))
  }
}

function isHeldBy(id: string, worker: WorkerRecord): boolean {
  const { device, epoch } = splitAllocationId(id)
  return device === worker.device.id && worker.epoch.startsWith(epoch)
}

const unseen = (id: string, { report: { allocations, allocationCount } }: WorkerRecord): string =>
  allocations.length === allocationCount
    ? `there is no allocation ${id}`
    : `there is no allocation ${id} among the ${allocations.length} newest of ${allocationCount}`
