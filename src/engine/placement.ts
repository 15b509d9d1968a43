/** Where a step may run now, by what it needs and what workers have published. Pure. */
import { z } from 'zod'
import { deviceError } from '../domains/device/errors.ts'
import { deviceLost, type OperationTable } from '../domains/operation.ts'
import { ModelPin, Target } from '../domains/values.ts'
import { workflowError, type DarkroomError } from '../errors.ts'
import { isHere, type WorkerRecord } from '../farm/record.ts'
import { queues } from '../keys.ts'

/** A step that waits for a worker, with what decides where it may run. */
export interface Waiting {
  stepKey: string
  dispatch: number
  /** Queue of its job, and since when, by Redis' clock; '' before it was placed. */
  queue: string
  placedAt: number
  name: string
  lane: string
  /** 0 continues a session; first steps come behind, by the session's priority. */
  priority: number
  /** Models that its worker must have. */
  models: readonly ModelPin[]
  exactnessKey: string | null
  /** Worker of the session's last step on a device: its tensors and model are there. */
  lastWorker: string | null
  /** The one device on which the session's steps run; null: any. */
  device: string | null
  /** Worker on which the step's last attempt failed or was lost: another is asked first. */
  avoid: string | null
  /** Of a command: the one worker it is for. */
  target: Target | null
}

/** `over`: the worker that the step is for is gone, so it will never run. */
export type Placement = { queue: string; isAffinity: boolean } | { nowhere: string; elsewhere: boolean } | { over: DarkroomError }

const Needed = z.object({ models: z.array(ModelPin).default([]), target: Target.nullable().default(null) })

/**
 * What a step needs, read off its own input; undefined in a process that does not have its operation.
 * @throws DarkroomError `workflow.broken` when the input does not say it
 */
export function needsOf(operations: OperationTable, name: string, input: unknown): Pick<Waiting, 'models' | 'target'> | undefined {
  const operation = operations[name]
  if (!operation) return undefined
  if (!operation.needs) return { models: [], target: null }
  try {
    return Needed.parse(operation.needs(input))
  } catch (error) {
    throw workflowError('broken', `the input of ${name} does not say what the step needs: ${(error as Error).message}`, { cause: error })
  }
}

/** A command goes to the worker it is for while that one's epoch lasts, and nowhere else. */
function placeCommand(target: Target | null, workers: readonly WorkerRecord[]): Placement {
  if (!target) return { over: workflowError('broken', 'a command names no `target`: give it the device, worker and epoch') }
  const worker = workers.find(({ id, epoch }) => id === target.worker && epoch === target.epoch)
  const { device } = target
  if (!worker) return { over: deviceLost(`worker ${target.worker} of ${device} is gone, and what it held`) }
  return isHere(worker)
    ? { queue: queues.control(device), isAffinity: true }
    : { over: deviceError('not_ready', `worker ${worker.id} of ${device} takes no more commands: it is ${worker.status}`) }
}

/**
 * Where a step may run now. `elsewhere` says that workers of another hardware class could run it.
 * Pure: workers are what they published.
 */
export function placementOf(
  step: Pick<Waiting, 'lane' | 'models' | 'exactnessKey' | 'lastWorker' | 'device' | 'avoid' | 'target'>,
  workers: readonly WorkerRecord[],
): Placement {
  if (step.lane === 'control') return placeCommand(step.target, workers)
  const ready = workers.filter((worker) => worker.status === 'ready')
  if (step.lane === 'host')
    return ready.length === 0 ? { nowhere: noWorker(workers), elsewhere: false } : { queue: queues.host, isAffinity: false }
  const { models, exactnessKey, device } = step
  if (device !== null) return placeOn(device, step, ready)
  const able = ready.filter((worker) => lacks(worker, models).length === 0)
  if (able.length === 0) return { nowhere: ready.length === 0 ? noWorker(workers) : `no worker has ${described(models)}`, elsewhere: false }
  const last = able.find((worker) => worker.id === step.lastWorker)
  if (last && last.id !== step.avoid && (exactnessKey === null || last.exactnessKey === exactnessKey))
    return { queue: queues.gpuDevice(last.device.id), isAffinity: true }
  if (exactnessKey === null) {
    // The class with most workers; of equals the first by name, so that every process chooses the same.
    const counts = new Map<string, number>()
    for (const worker of able) counts.set(worker.exactnessKey, (counts.get(worker.exactnessKey) ?? 0) + 1)
    const [best] = [...counts].toSorted(([a, m], [b, n]) => n - m || (a < b ? -1 : 1))
    return { queue: queues.gpuClass(best?.[0] ?? ''), isAffinity: false }
  }
  const peers = able.filter((worker) => worker.exactnessKey === exactnessKey)
  const others = step.avoid === null ? [] : peers.filter((worker) => worker.id !== step.avoid)
  const [idlest] = others.toSorted((a, b) => a.running.length - b.running.length || (a.id < b.id ? -1 : 1))
  if (idlest) return { queue: queues.gpuDevice(idlest.device.id), isAffinity: true }
  if (peers.length > 0) return { queue: queues.gpuClass(exactnessKey), isAffinity: false }
  return { nowhere: `no worker of hardware class ${exactnessKey} is running`, elsewhere: true }
}

const lacks = (worker: WorkerRecord, models: readonly ModelPin[]): ModelPin[] =>
  models.filter(({ bodyHash }) => !worker.models.includes(bodyHash))

const described = (models: readonly ModelPin[]): string =>
  models.map(({ id, bodyHash }) => `model ${id} with body ${bodyHash.slice(0, 10)}`).join(' and ')

/** On the one device that its session is for: at once, or when its worker can. */
function placeOn(
  device: string,
  { models, exactnessKey }: Pick<Waiting, 'models' | 'exactnessKey'>,
  ready: readonly WorkerRecord[],
): Placement {
  const worker = ready.find((each) => each.device.id === device)
  if (!worker) return { nowhere: `device ${device}, which has no ready worker now`, elsewhere: false }
  const lacking = lacks(worker, models)
  if (lacking.length > 0) return { nowhere: `device ${device}, whose worker has no ${described(lacking)}`, elsewhere: false }
  if (exactnessKey === null || worker.exactnessKey === exactnessKey) return { queue: queues.gpuDevice(device), isAffinity: true }
  return { nowhere: `device ${device}, which is of hardware class ${worker.exactnessKey} now, not ${exactnessKey}`, elsewhere: true }
}

/** Why no worker takes steps. */
export function noWorker(workers: readonly WorkerRecord[]): string {
  const stalled = workers.filter(({ status }) => status === 'stalled').map(({ id }) => id)
  return stalled.length > 0 ? `stalled, taking nothing although jobs wait: ${stalled.join(', ')}` : 'no worker is running'
}
