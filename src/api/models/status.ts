/** Everything that is known of one model at one moment: where it lies, where it is resident, what it did. */
import { z } from 'zod'
import { Benchmark } from '../../domains/model/benchmark.ts'
import type { WorkerRecord } from '../../farm/record.ts'
import type { Measured } from '../../models/benchmarks.ts'
import { loadedBy } from '../../models/families.ts'
import type { Listed } from '../../models/listing.ts'
import type { Kind } from '../../models/verdict.ts'
import { iso, Time } from '../view.ts'
import { AnnotationView, HolderView, modelStatuses, presentAnnotation, presentHolders, statusOf } from './views.ts'

const ResidentView = z.strictObject({
  worker: z.string(),
  device: z.string(),
  bytes: z.int().nullable(),
  precision: z.string().meta({ description: 'in which its network computes there' }),
  attention: z.string(),
  isIdle: z.boolean().meta({ description: 'no step uses it or waits for it' }),
  patchedBy: z
    .array(z.strictObject({ id: z.string(), part: z.string(), weight: z.number() }))
    .meta({ description: 'LoRAs and their kin that are in its weights now, by the network that they change' }),
})

const CachedView = z.strictObject({
  worker: z.string(),
  device: z.string(),
  bytes: z.int(),
  uses: z.int().meta({ description: 'loads that read it from there' }),
})

const BenchmarkView = z.strictObject({
  exactnessKey: z.string(),
  devices: z.array(z.string()).meta({ description: 'devices of that hardware class that are here now' }),
  measuredAt: Time,
  figures: Benchmark,
})

export const ModelStatusView = z
  .strictObject({
    id: z.string(),
    bodyHash: z.string().nullable(),
    status: z.enum(modelStatuses),
    why: z.string().nullable(),
    onDisk: z.array(HolderView),
    cached: z.array(CachedView),
    resident: z.array(ResidentView),
    annotation: AnnotationView.nullable(),
    benchmarks: z.array(BenchmarkView).meta({ description: 'on hardware classes that are here now' }),
  })
  .meta({ id: 'ModelStatus' })

export function presentStatus(
  listed: Listed,
  workers: readonly WorkerRecord[],
  benchmarks: readonly Measured[],
): z.infer<typeof ModelStatusView> {
  const { id, bodyHash, entry, annotation } = listed
  return {
    id,
    bodyHash,
    status: statusOf(listed),
    why: entry.obstacle,
    onDisk: presentHolders(listed, workers),
    cached: workers.flatMap((worker) => cachedOn(worker, id, entry.verdict.kind)),
    resident: workers.flatMap((worker) => residentOn(worker, id, entry.verdict.kind)),
    annotation: annotation ? presentAnnotation(annotation) : null,
    benchmarks: benchmarks.flatMap(({ exactnessKey, measuredAt, figures }) => {
      const told = Benchmark.safeParse(figures)
      const devices = workers.filter((worker) => worker.exactnessKey === exactnessKey).map(({ device }) => device.id)
      // Of another version of Darkroom's.
      return told.success ? [{ exactnessKey, devices, measuredAt: iso(measuredAt), figures: told.data }] : []
    }),
  }
}

function cachedOn({ id: worker, device, report }: WorkerRecord, model: string, kind: Kind): z.infer<typeof CachedView>[] {
  // A worker of an earlier version has none.
  const { models = [] } = (report.modelCache as typeof report.modelCache | undefined) ?? {}
  return models
    .filter((each) => each.id === model && each.kind === kind)
    .map(({ bytes, uses }) => ({ worker, device: device.id, bytes, uses }))
}

function residentOn({ id: worker, device, report, settings }: WorkerRecord, model: string, kind: Kind): z.infer<typeof ResidentView>[] {
  const found = report.python?.models.find(({ id, family }) => id === model && (family === undefined || loadedBy(kind).includes(family)))
  if (!found) return []
  const { dtype, attention } = settings as { dtype?: unknown; attention?: unknown }
  const { bytes, isIdle, parts } = found
  const worn = parts.flatMap(({ name: part, patchedBy = [] }) => patchedBy.map(({ id, weight }) => ({ id, part, weight })))
  return [{ worker, device: device.id, bytes, precision: String(dtype), attention: String(attention), isIdle, patchedBy: worn }]
}
