/** Device memory as HTTP shows it: from the records of workers, as far as the caller may see them. */
import { z } from 'zod'
import type { Caller } from '../../api-keys.ts'
import {
  AllocationView as Allocation,
  Figures,
  LeakReport,
  MemoryAnalytics,
  MemoryReport,
  Pressure,
  PythonMemory,
  Ram,
  Recommendation,
  Usage,
} from '../../domains/memory/figures/report.ts'
import { ModelCacheReport } from '../../domains/model/cached.ts'
import { ageOf, type HeardWorker, type WorkerRecord } from '../../farm/record.ts'
import type { EnginePort } from '../context.ts'
import { shortName } from '../devices/views.ts'
import { visibleAllocations, visibleOwners } from '../policy.ts'
import { iso, orNull, present, Time, viewOf } from '../view.ts'

export const AllocationView = viewOf(Allocation)
export const LeaksView = z.strictObject({ device: z.string(), ...viewOf(LeakReport).shape }).meta({ id: 'MemoryLeaks' })
export const ModelsView = z
  .strictObject({
    device: z.string(),
    allocatedBytes: PythonMemory.shape.allocatedBytes,
    reservedBytes: PythonMemory.shape.reservedBytes,
    models: PythonMemory.shape.models,
    cache: orNull(viewOf(ModelCacheReport)).meta({ description: 'of model weights, in the RAM of its worker; null before it tells' }),
    sampledAt: Time,
  })
  .meta({ id: 'ResidentModels' })

export const PoolView = z
  .strictObject({
    pool: z.enum(['device', 'ram']),
    device: z.string().nullable().meta({ description: 'null for the RAM of a host' }),
    host: z.string(),
    name: z.string().meta({ example: 'cuda:0' }),
    total: z.int().nullable(),
    budget: z.int().nullable().meta({ description: 'what the system would let this process have' }),
    used: z.int().nullable().meta({ description: 'by everybody' }),
    tracked: z.int().meta({ description: 'by allocations; of RAM: by workers and their Python children' }),
    evictable: z.int().meta({ description: 'the part of `used` that can be let go of at once' }),
    free: z.int().nullable(),
    source: z.string().meta({ description: 'who says so' }),
    pressure: viewOf(Pressure),
    sampledAt: Time,
    ageS: z.number(),
  })
  .meta({ id: 'MemoryPool' })

export const DeviceMemoryView = z
  .strictObject({
    device: z.string(),
    figures: Figures,
    usage: Usage,
    ram: Ram,
    python: orNull(PythonMemory),
    pressure: viewOf(MemoryReport).shape.pressure,
    allocations: z.array(AllocationView).meta({ description: 'those that the caller may see' }),
    isComplete: z.boolean().meta({ description: 'false: more are held than the 200 newest, which are looked through' }),
    leaks: LeaksView,
    sampledAt: Time,
    ageS: z.number(),
  })
  .meta({ id: 'DeviceMemory' })

export const AllocationList = z
  .strictObject({ allocations: z.array(AllocationView), isComplete: z.boolean() })
  .meta({ id: 'AllocationList' })

export const AnalyticsView = MemoryAnalytics.extend({ device: z.string() }).meta({ id: 'MemoryAnalytics' })
export const RecommendationView = Recommendation.extend({ device: z.string() }).meta({ id: 'MemoryRecommendation' })

export async function presentLeaks(
  { device, report: { leaks: found } }: WorkerRecord,
  caller: Caller,
  engine: Pick<EnginePort, 'submittedBy'>,
): Promise<z.infer<typeof LeaksView>> {
  const owners = [...found.newest, ...found.suspects].map(({ owner }) => owner)
  const sees = await visibleOwners(caller, owners, engine)
  return {
    device: device.id,
    ...present(LeakReport, {
      ...found,
      newest: found.newest.filter(({ owner }) => sees(owner)),
      suspects: found.suspects.filter(({ owner }) => sees(owner)),
    }),
  }
}

/** The memory of one device, with those of its allocations that the caller may see. */
export async function presentDeviceMemory(
  worker: HeardWorker,
  caller: Caller,
  engine: Pick<EnginePort, 'submittedBy'>,
): Promise<z.infer<typeof DeviceMemoryView>> {
  const { figures, usage, ram, python, pressure, allocations, allocationCount, sampledAt } = worker.report
  return {
    device: worker.device.id,
    figures,
    usage,
    ram,
    python,
    pressure: present(MemoryReport.shape.pressure, pressure),
    allocations: (await visibleAllocations([worker], caller, engine)).map((each) => present(Allocation, each)),
    isComplete: allocations.length === allocationCount,
    leaks: await presentLeaks(worker, caller, engine),
    sampledAt: iso(sampledAt),
    ageS: ageOf(worker),
  }
}

/** Every device, and behind those of a host its RAM, as its newest report has it. */
export function presentPools(workers: readonly HeardWorker[]): z.infer<typeof PoolView>[] {
  const hosts = [...new Set(workers.map(({ host }) => host))].toSorted()
  return hosts.flatMap((host) => {
    const here = workers.filter((worker) => worker.host === host).toSorted((a, b) => (a.device.id < b.device.id ? -1 : 1))
    const [newest] = here.toSorted((a, b) => b.report.sampledAt - a.report.sampledAt)
    const devices = here.map((worker) => {
      const { device, report } = worker
      return presentPool(
        { pool: 'device', device: device.id, host, name: shortName({ device }) },
        { ...report.figures, tracked: report.usage.tracked, pressure: report.pressure.device },
        worker,
      )
    })
    if (!newest) return devices
    const { ram, pressure } = newest.report
    const tracked = here.reduce((sum, { report }) => sum + report.ram.rss, 0)
    const budget = ram.available === null ? null : ram.available + tracked
    return [
      ...devices,
      presentPool(
        { pool: 'ram', device: null, host, name: 'RAM' },
        { total: ram.total, budget, used: ram.used, tracked, source: ram.source, pressure: pressure.ram },
        newest,
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
}

function presentPool(
  pool: Pick<z.infer<typeof PoolView>, 'pool' | 'device' | 'host' | 'name'>,
  { total, budget, used, tracked, source, pressure }: PoolFigures,
  worker: HeardWorker,
): z.infer<typeof PoolView> {
  return {
    ...pool,
    total,
    budget,
    used,
    tracked,
    evictable: pressure.evictable,
    free: total === null || used === null ? null : Math.max(0, total - used),
    source,
    pressure: present(Pressure, pressure),
    sampledAt: iso(worker.report.sampledAt),
    ageS: ageOf(worker),
  }
}
