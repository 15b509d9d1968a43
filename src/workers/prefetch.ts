/**
 * Models of sessions that wait for this worker are read into RAM while it draws another: its next load is not from
 * disk. Where a worker of its class has the model and nothing to do, that one will take the session.
 */
import type { ModelCacheReport } from '../domains/model/cached.ts'
import type { AttemptPort } from '../engine/attempt.ts'
import type { WorkerRecord } from '../farm/record.ts'
import type { ModelCache } from './device/model-cache.ts'

export interface PrefetchParts {
  port: Pick<AttemptPort, 'models' | 'waitingModels' | 'workers'>
  cache: Pick<ModelCache, 'has' | 'prefetch' | 'limit'>
  /** Id of the worker. */
  worker: string
  exactnessKey: string
  /** Queues that it takes steps on the device from. */
  queues: readonly string[]
}

/** Looks once at what waits. To be repeated while a step runs on the device. */
export async function prefetch({ cache, exactnessKey, port, queues, worker }: PrefetchParts, resident: readonly string[]): Promise<void> {
  if (cache.limit === 0) return
  for (const wanted of await port.waitingModels(queues)) {
    const { bodyHash, id, kind } = wanted
    // What is drawn with beside a model is small.
    if (bodyHash === null || kind !== undefined || cache.has(bodyHash) || resident.includes(id)) continue
    const others = (await port.workers()).filter((other) => other.id !== worker && other.exactnessKey === exactnessKey)
    if (others.some((other) => isIdle(other) && has(other, id, bodyHash))) continue
    // One that is gone or changed meanwhile is told of by the step that wants it.
    const entry = await port.models.here(wanted).catch(() => undefined)
    if (entry) cache.prefetch({ id, kind: entry.verdict.kind, bodyHash, entry })
  }
}

const isIdle = ({ running, status }: WorkerRecord): boolean => status === 'ready' && running.length === 0

/** A worker of an earlier version has no cache. */
const has = ({ resident, report }: WorkerRecord, id: string, bodyHash: string): boolean =>
  resident.includes(id) ||
  ((report.modelCache as ModelCacheReport | undefined)?.models.some((cached) => cached.bodyHash === bodyHash) ?? false)
