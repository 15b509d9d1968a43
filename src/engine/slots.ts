/**
 * Which queues may get one step more. Pure. A worker has slots for the steps that run, one or those of sessions that
 * share its device, and one for the step that comes next; its queues are its own, its shelf's and its class', each of
 * which holds what the one before does. So what is bound to fewest workers is given to the least busy of them first,
 * and what is left tells whether one more fits.
 *
 * What shares a device comes by the worker's own queue. Nothing more does while a step waits in another of its queues,
 * which begins when all that runs there has ended: else it might never.
 */
import type { WorkerRecord } from '../farm/record.ts'
import { queues } from '../keys.ts'

/** Who has a slot: a worker that runs the step, or the queue that has its job. */
export interface Holder {
  stepKey: string
  holder: string
  key: string
  /** Its concurrency key; null without one. */
  group: string | null
  /** The model that its session draws with, in a word (`modelWord`). */
  model: string
  priority: number
  /** Whether it was asked to make way for an urgent session, or has done so before. */
  state: '-' | 'asked' | 'yielded'
}

/** Of what is urgent a worker has one step more, before the one that comes next. */
const urgent = 1

export type SlotWorker = Pick<WorkerRecord, 'id' | 'exactnessKey' | 'shelf' | 'device' | 'lanes'>

const servedBy = ({ exactnessKey, shelf, device }: SlotWorker): string[] => [
  queues.gpuDevice(device.id),
  queues.gpuShelf(exactnessKey, shelf),
  queues.gpuClass(exactnessKey),
]

export class Slots {
  readonly #records: readonly SlotWorker[]
  readonly #workers = new Map<string, string[]>()
  readonly #running = new Map<string, number>()
  readonly #entered = new Map<string, number>()
  constructor(workers: readonly SlotWorker[], holders: readonly Holder[]) {
    this.#records = workers
    for (const worker of workers) {
      this.#running.set(worker.id, 0)
      for (const queue of servedBy(worker)) this.#workers.set(queue, [...(this.#workers.get(queue) ?? []), worker.id])
    }
    for (const { holder } of holders) {
      const counts = queues.isGpu(holder) ? this.#entered : this.#running
      if (counts === this.#entered || this.#running.has(holder)) counts.set(holder, (counts.get(holder) ?? 0) + 1)
    }
  }

  /** Workers that take from a queue. */
  workersOf(queue: string): readonly string[] {
    return this.#workers.get(queue) ?? []
  }

  /** How many steps a worker runs. */
  runningOn(worker: string): number {
    return this.#running.get(worker) ?? 0
  }

  /** Whether one of its workers has a slot for one step more. */
  fits(queue: string, isUrgent = false): boolean {
    const extra = isUrgent ? urgent : 0
    const most = new Map(this.#records.map((worker) => [worker.id, this.#placesFor(queue, worker) + extra]))
    return this.#workers.has(queue) && this.#surplus(most, queue) <= this.#surplus(most)
  }

  /** Steps that a worker has at most, with one more in that queue: those that run, and one that comes next. */
  #placesFor(queue: string, worker: SlotWorker): number {
    const [own = '', ...others] = servedBy(worker)
    if (queue !== own) return Math.max(1, Math.min(worker.lanes.gpu, this.runningOn(worker.id))) + 1
    return others.some((other) => (this.#entered.get(other) ?? 0) > 0) ? 2 : worker.lanes.gpu + 1
  }

  enter(queue: string): void {
    this.#entered.set(queue, (this.#entered.get(queue) ?? 0) + 1)
  }

  /** Steps beyond what the workers have slots for, with one more in that queue. */
  #surplus(most: ReadonlyMap<string, number>, more?: string): number {
    const loads = new Map(this.#running)
    const all = new Map(this.#entered)
    if (more !== undefined) all.set(more, (all.get(more) ?? 0) + 1)
    const bound = [...all].toSorted(([a], [b]) => this.workersOf(a).length - this.workersOf(b).length)
    for (const [queue, steps] of bound) {
      const ids = this.workersOf(queue)
      for (let i = 0; i < steps && ids.length > 0; i++) {
        const idlest = ids.reduce((a, b) => ((loads.get(b) ?? 0) < (loads.get(a) ?? 0) ? b : a))
        loads.set(idlest, (loads.get(idlest) ?? 0) + 1)
      }
    }
    return [...loads].reduce((sum, [id, load]) => sum + Math.max(0, load - (most.get(id) ?? 0)), 0)
  }
}
