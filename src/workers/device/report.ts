/** A sample of the device's figures, and the report that a worker publishes of it. */
import { noVitals, type AllocationInfo, type Figures, type Usage, type Vitals } from '../../domains/device-memory.ts'
import type { MeasuredSpeed, PictureLimits } from '../../domains/device/status.ts'
import { view } from '../../domains/memory/allocation.ts'
import type { LeakReport, PythonMemory, Ram } from '../../domains/memory/figures/report.ts'
import type { Target } from '../../domains/values.ts'
import { ensureError } from '../../errors.ts'
import type { DeviceReport } from '../../farm/record.ts'
import type { Heartbeat, Ready } from '../python/protocol.ts'
import type { PythonChild } from '../python/supervisor.ts'
import type { OwnDevice } from './open.ts'
import { systemRam } from './ram.ts'
import { capabilitiesOf, hasStepCache } from './speeds.ts'

/** A report lists at most so many allocations. */
const maxListed = 200

/** The figures of one moment. */
export interface Sample {
  at: number
  figures: Figures
  vitals: Vitals
  /** Why figures and vitals could not be read; undefined when they were. */
  problem: string | undefined
  usage: Usage
  ram: Ram
  /** null while no child runs. */
  python: PythonMemory | null
  live: AllocationInfo[]
}

export async function takeSample(own: OwnDevice, ready: Ready, child: Pick<PythonChild, 'heartbeat'>): Promise<Sample> {
  const read = await readFigures(own, ready)
  const { heartbeat } = child
  return {
    at: Date.now(),
    ...read,
    usage: own.memory.usage(own.index ?? 0),
    ram: ramNow(heartbeat?.rssBytes ?? 0),
    python: heartbeat ? pythonMemory(heartbeat) : null,
    live: own.memory.list(),
  }
}

const noFigures: Figures = { total: null, budget: null, used: null, usedIsOwn: false, source: 'none' }

async function readFigures({ memory, index }: OwnDevice, { hardware }: Ready): Promise<Pick<Sample, 'figures' | 'vitals' | 'problem'>> {
  // The memory is system RAM then, and its figures are not the device's.
  if (index === null)
    return { figures: { ...noFigures, total: hardware.totalBytes, source: 'python' }, vitals: noVitals, problem: undefined }
  try {
    const [figures, vitals] = await Promise.all([memory.figures(index), memory.vitals(index)])
    return { figures, vitals, problem: undefined }
  } catch (error) {
    const { code, message } = ensureError(error, 'memory.refused')
    return { figures: noFigures, vitals: noVitals, problem: `its figures could not be read: ${code}, ${message}` }
  }
}

const pythonMemory = ({ allocatedBytes, deviceBytes, models }: Heartbeat): PythonMemory => ({
  allocatedBytes,
  reservedBytes: deviceBytes,
  models: models.map(({ id, family, bytes, isIdle, parts }) => ({ id, family, bytes, isIdle, parts })),
})

function ramNow(childRss: number): Ram {
  const { total, used, source } = systemRam()
  return { total, available: Math.max(0, total - used), used, rss: process.memoryUsage.rss() + childRss, source }
}

/** What a report says beyond the sample. */
export interface ReportParts extends Pick<DeviceReport, 'state' | 'alerts' | 'pressure' | 'modelCache'> {
  target: Target
  own: OwnDevice
  ready: Ready
  /** Families of models that are here. */
  families: string[]
  measured: MeasuredSpeed[]
  limits: PictureLimits
  leaks: LeakReport
}

export function reportOf({ at, figures, live, python, ram, usage, vitals }: Sample, parts: ReportParts): DeviceReport {
  const { alerts, families, leaks, limits, measured, modelCache, own, pressure, ready, state, target } = parts
  const { capabilities, key, luid, software, uuid } = own.device
  const drawing = families.flatMap((family) => capabilitiesOf(family, ready))
  const newestFirst = live.toSorted((a, b) => a.ageMs - b.ageMs || b.id - a.id)
  return {
    backend: own.memory.backend,
    implementation: own.memory.implementation,
    reason: own.reason,
    key,
    uuid,
    luid,
    software,
    capabilities: {
      ...capabilities,
      computeCapability: capabilities.computeCapability ?? ready.hardware.capability,
      driver: capabilities.driver ?? ready.hardware.driver,
      dtypes: [...new Set([ready.settings.dtype, ...drawing.map(({ dtype }) => dtype)])],
      attention: [ready.settings.attention],
      families,
      drawing,
      measured,
      limits,
      fast: { ...ready.fast, compiles: ready.fast.why === null, stepCache: families.filter(hasStepCache) },
    },
    vitals,
    state,
    alerts,
    sampledAt: at,
    figures,
    usage,
    ram,
    python,
    pressure,
    modelCache,
    allocations: newestFirst.slice(0, maxListed).map((info) => view(info, target)),
    allocationCount: live.length,
    leaks,
  }
}
