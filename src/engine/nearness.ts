/**
 * Which sessions are near a device: their model is there, so that none has to be loaded. Such a one is let in before
 * others of its API key and level, to that device, a few in a row at most. Pure.
 */
import { createHash } from 'node:crypto'
import type { WantedModel } from '../domains/values.ts'
import type { WorkerRecord } from '../farm/record.ts'
import { queues } from '../keys.ts'
import type { Holder } from './slots.ts'
import type { Line } from './turns.ts'

/** Of a step that draws with none. */
export const noModel = '-'

const wordOf = (id: string): string => createHash('sha256').update(id).digest('hex').slice(0, 10)

/** The model that a step draws with, in a word that a line's name may hold; what it uses beside it is small. */
export function modelWord(models: readonly Pick<WantedModel, 'id' | 'kind'>[]): string {
  const main = models.find(({ kind }) => kind === undefined)
  return main ? wordOf(main.id) : noModel
}

type Worker = Pick<WorkerRecord, 'id' | 'exactnessKey' | 'shelf' | 'device' | 'resident'>

export class Nearness {
  readonly #workers: { id: string; own: string; queues: ReadonlySet<string>; resident: readonly string[] }[]
  readonly #holders: readonly Pick<Holder, 'holder' | 'model'>[]

  /** `holders`: all that draws, or has been let in to draw next. */
  constructor(workers: readonly Worker[], holders: readonly Pick<Holder, 'holder' | 'model'>[]) {
    this.#workers = workers.map(({ id, exactnessKey, shelf, device, resident }) => {
      const own = queues.gpuDevice(device.id)
      const all = new Set([own, queues.gpuShelf(exactnessKey, shelf), queues.gpuClass(exactnessKey)])
      return { id, own, queues: all, resident: resident.map(wordOf) }
    })
    this.#holders = holders
  }

  /** What a worker is to draw with next, else draws with now, else had when it published itself some seconds ago. */
  #modelsOf({ id, resident }: { id: string; resident: readonly string[] }): readonly string[] {
    const models = (is: (holder: string) => boolean): string[] =>
      this.#holders.flatMap(({ holder, model }) => (is(holder) && model !== noModel ? [model] : []))
    const next = models((holder) => this.only(holder) === id)
    const now = models((holder) => holder === id)
    return [next, now, resident].find(({ length }) => length > 0) ?? []
  }

  /** Whether a worker draws nothing, and has nothing to draw next. */
  isIdle(worker: string): boolean {
    return this.#holders.every(({ holder }) => holder !== worker && this.only(holder) !== worker)
  }

  /** The queue of a worker that has the model of this line, and takes one more; undefined: there is none. */
  of({ queue, model }: Pick<Line, 'queue' | 'model'>, fits: (queue: string) => boolean): string | undefined {
    if (model === noModel) return undefined
    return this.#workers.find((worker) => worker.queues.has(queue) && fits(worker.own) && this.#modelsOf(worker).includes(model))?.own
  }

  /** The worker that alone takes from this queue. */
  only(queue: string): string | undefined {
    const takers = this.#workers.filter((worker) => worker.queues.has(queue))
    return takers.length === 1 ? takers[0]?.id : undefined
  }
}
