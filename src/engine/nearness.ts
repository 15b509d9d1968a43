/**
 * Which sessions are near a device: their model is there, so that none has to be loaded. Such a one is let in before
 * others of its API key and level, to that device, a few in a row at most. Pure.
 */
import { createHash } from 'node:crypto'
import type { WantedModel } from '../domains/values.ts'
import type { WorkerRecord } from '../farm/record.ts'
import { queues } from '../keys.ts'
import type { Line } from './turns.ts'

/** Of a step that draws with none. */
export const noModel = '-'

const wordOf = (id: string): string => createHash('sha256').update(id).digest('hex').slice(0, 10)

/** The model that a step draws with, in a word that a line's name may hold; what it uses beside it is small. */
export function modelWord(models: readonly Pick<WantedModel, 'id' | 'kind'>[]): string {
  const main = models.find(({ kind }) => kind === undefined)
  return main ? wordOf(main.id) : noModel
}

type Holder = Pick<WorkerRecord, 'id' | 'exactnessKey' | 'shelf' | 'device' | 'resident'>

export class Nearness {
  readonly #workers: { id: string; own: string; queues: ReadonlySet<string>; models: ReadonlySet<string> }[]

  /** `given`: by worker, the model of the last session that was let in to it, which will be there before any other. */
  constructor(workers: readonly Holder[], given: ReadonlyMap<string, string>) {
    this.#workers = workers.map(({ id, exactnessKey, shelf, device, resident }) => {
      const own = queues.gpuDevice(device.id)
      const last = given.get(id)
      const models = last === undefined ? resident.map(wordOf) : [last]
      return {
        id,
        own,
        queues: new Set([own, queues.gpuShelf(exactnessKey, shelf), queues.gpuClass(exactnessKey)]),
        models: new Set(models),
      }
    })
  }

  /** The queue of a worker that has the model of this line, and takes one more; undefined: there is none. */
  of({ queue, model }: Pick<Line, 'queue' | 'model'>, fits: (queue: string) => boolean): string | undefined {
    if (model === noModel) return undefined
    return this.#workers.find((worker) => worker.queues.has(queue) && worker.models.has(model) && fits(worker.own))?.own
  }

  /** The worker that alone takes from this queue. */
  only(queue: string): string | undefined {
    const takers = this.#workers.filter((worker) => worker.queues.has(queue))
    return takers.length === 1 ? takers[0]?.id : undefined
  }
}
