/** Where a step may run now, by what it needs and what workers have published. Pure. */
import { z } from 'zod'
import { deviceError } from '../domains/device/errors.ts'
import { deviceLost, type OperationTable } from '../domains/operation.ts'
import { Target, WantedModel } from '../domains/values.ts'
import { workflowError, type DarkroomError } from '../errors.ts'
import { isHere, type WorkerRecord } from '../farm/record.ts'
import { queues } from '../keys.ts'
import { modelError } from '../models/errors.ts'
import { described as modelIn, type Holding } from '../models/wanted.ts'

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
  models: readonly WantedModel[]
  exactnessKey: string | null
  /** Worker of the session's last step on a device: its tensors and model are there. */
  lastWorker: string | null
  /** The queue of the one worker that it was let in to, because its model is there; for a while. */
  near?: string | null
  /** It was not let in to a device yet: it goes back to that worker only while that one is idle. */
  waitsInLine?: boolean
  /** The one device on which the session's steps run; null: any. */
  device: string | null
  /** Worker on which the step's last attempt failed or was lost: another is asked first. */
  avoid: string | null
  /** Of a command: the one worker it is for. */
  target: Target | null
}

/** Which models the hosts of the farm have. */
export interface Shelves {
  holds(shelf: string, model: WantedModel): Holding
  /** Whether any host has it or may have it, one without a worker too. */
  isSomewhere(model: WantedModel): boolean
}

/** `over`: the worker that the step is for is gone, or its model is another now, so it will never run. */
export type Placement = { queue: string; isAffinity: boolean } | { nowhere: string; elsewhere: boolean } | { over: DarkroomError }

const Needed = z.object({ models: z.array(WantedModel).default([]), target: Target.nullable().default(null) })

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

/** Whether a worker that had these models on its device has all of those. */
export function areAmong(wanted: readonly WantedModel[], had: readonly WantedModel[]): boolean {
  const known = new Set(had.map((model) => JSON.stringify(model)))
  return wanted.every((model) => known.has(JSON.stringify(model)))
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

/** What a step can do with the models that the workers' hosts have. */
type Reach = { able: WorkerRecord[] } | Exclude<Placement, { queue: string }>

/** The workers whose hosts have all of its models; or why there is none. */
function reachOf(models: readonly WantedModel[], ready: readonly WorkerRecord[], shelves: Shelves): Reach {
  const able = ready.filter((worker) => models.every((model) => shelves.holds(worker.shelf, model) === 'yes'))
  if (able.length > 0) return { able }
  const isHeld = (model: WantedModel, ...as: Holding[]): boolean => ready.some(({ shelf }) => as.includes(shelves.holds(shelf, model)))
  const lacking = models.filter((model) => !isHeld(model, 'yes'))
  const unread = lacking.find((model) => isHeld(model, 'unhashed'))
  if (unread) return { nowhere: `the hash of model ${unread.id}, which tells whether a worker has the pinned one`, elsewhere: false }
  const changed = lacking.find((model) => isHeld(model, 'other') && !shelves.isSomewhere(model))
  if (changed) {
    const why = `model ${changed.id} is not the one with body ${changed.bodyHash?.slice(0, 10)} any more, on no host of the farm`
    return { over: modelError('changed', why, { field: 'input.model' }) }
  }
  return { nowhere: `no worker has model ${(lacking.length > 0 ? lacking : models).map(modelIn).join(' and model ')}`, elsewhere: false }
}

/** The shelf with most of these workers; of equals the first by name, so that every process chooses the same. */
function fullest(workers: readonly WorkerRecord[], of: (worker: WorkerRecord) => string): string {
  const counts = new Map<string, number>()
  for (const worker of workers) counts.set(of(worker), (counts.get(of(worker)) ?? 0) + 1)
  const [best] = [...counts].toSorted(([a, m], [b, n]) => n - m || (a < b ? -1 : 1))
  return best?.[0] ?? ''
}

/**
 * Where a step may run now. `elsewhere` says that workers of another hardware class could run it.
 * Pure: workers are what they published, shelves what their hosts did.
 */
export function placementOf(
  step: Pick<Waiting, 'lane' | 'models' | 'exactnessKey' | 'lastWorker' | 'near' | 'waitsInLine' | 'device' | 'avoid' | 'target'>,
  workers: readonly WorkerRecord[],
  shelves: Shelves,
): Placement {
  if (step.lane === 'control') return placeCommand(step.target, workers)
  const ready = workers.filter((worker) => worker.status === 'ready')
  const { models, exactnessKey, device, avoid } = step
  if (step.lane !== 'host' && device !== null) return placeOn(device, step, ready, shelves)
  if (ready.length === 0) return { nowhere: noWorker(workers), elsewhere: false }
  const reach = reachOf(models, ready, shelves)
  if (!('able' in reach)) return reach
  const { able } = reach
  if (step.lane === 'host') {
    if (able.length === ready.length) return { queue: queues.host, isAffinity: false }
    return { queue: queues.hostShelf(fullest(able, ({ shelf }) => shelf)), isAffinity: false }
  }
  const last = able.find(({ id, device: { id: own } }) => id === step.lastWorker || (step.near && queues.gpuDevice(own) === step.near))
  const isFree = step.waitsInLine !== true || last?.running.length === 0
  if (last && isFree && last.id !== avoid && (exactnessKey === null || last.exactnessKey === exactnessKey))
    return { queue: queues.gpuDevice(last.device.id), isAffinity: true }
  const key = exactnessKey ?? fullest(able, (worker) => worker.exactnessKey)
  const peers = able.filter((worker) => worker.exactnessKey === key)
  const others = exactnessKey === null || avoid === null ? [] : peers.filter((worker) => worker.id !== avoid)
  const [idlest] = others.toSorted((a, b) => a.running.length - b.running.length || (a.id < b.id ? -1 : 1))
  if (idlest) return { queue: queues.gpuDevice(idlest.device.id), isAffinity: true }
  if (peers.length === 0) return { nowhere: `no worker of hardware class ${key} is running`, elsewhere: true }
  // Every worker of the class takes from its queue: where only some have the model, they have a queue of their own.
  const hasAll = peers.length === ready.filter((worker) => worker.exactnessKey === key).length
  return {
    queue: hasAll
      ? queues.gpuClass(key)
      : queues.gpuShelf(
          key,
          fullest(peers, ({ shelf }) => shelf),
        ),
    isAffinity: false,
  }
}

/** On the one device that its session is for: at once, or when its worker can. */
function placeOn(
  device: string,
  { models, exactnessKey }: Pick<Waiting, 'models' | 'exactnessKey'>,
  ready: readonly WorkerRecord[],
  shelves: Shelves,
): Placement {
  const worker = ready.find((each) => each.device.id === device)
  if (!worker) return { nowhere: `device ${device}, which has no ready worker now`, elsewhere: false }
  const reach = reachOf(models, [worker], shelves)
  if ('nowhere' in reach) return { ...reach, nowhere: `device ${device}: ${reach.nowhere}` }
  if ('over' in reach) return reach
  if (exactnessKey === null || worker.exactnessKey === exactnessKey) return { queue: queues.gpuDevice(device), isAffinity: true }
  return { nowhere: `device ${device}, which is of hardware class ${worker.exactnessKey} now, not ${exactnessKey}`, elsewhere: true }
}

/** Why no worker takes steps. */
export function noWorker(workers: readonly WorkerRecord[]): string {
  const stalled = workers.filter(({ status }) => status === 'stalled').map(({ id }) => id)
  return stalled.length > 0 ? `stalled, taking nothing although jobs wait: ${stalled.join(', ')}` : 'no worker is running'
}
