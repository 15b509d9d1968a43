/**
 * What would come of a submission: the request made whole, what its steps need, where they would run and for how long.
 * Nothing is written, and whatever a submit would be refused with is thrown here too.
 */
import type { Lane } from '../domains/operation.ts'
import type { WantedModel } from '../domains/values.ts'
import { compatibleWith, type Compatible } from '../farm/compatible.ts'
import type { WorkerRecord } from '../farm/record.ts'
import type { Runs } from '../farm/runs.ts'
import { queues } from '../keys.ts'
import type { Catalogue } from '../models/catalogue.ts'
import { isItems, isSession, workflowId, type Drawing, type Workflow } from '../workflows/index.ts'
import { isOpenTo, type Pauses } from './pauses.ts'
import { needsOf, placementOf, type Placement, type Waiting } from './placement.ts'
import type { Registry } from './registry.ts'
import type { Submission } from './session.ts'
import type { Rehearsed, Submissions } from './submit.ts'
import type { Newcomer, WaitingSessions } from './waiting.ts'

/** One device, as far as this session is concerned. */
export interface DeviceChoice extends Pick<Compatible, 'device' | 'worker' | 'name' | 'why'> {
  /** Whether its steps could run there; a paused device is one of these. */
  runs: boolean
  paused: boolean
  /** Of a session that draws; null of every other one. */
  picture: Pick<Compatible, 'precision' | 'offload' | 'peakBytes' | 'totalBytes' | 'seconds'> | null
}

export interface DryRun {
  /** `name@version`. */
  workflow: string
  /** The request made whole. What chance has filled in is drawn again by a submit. */
  input: Record<string, unknown>
  /** How many items it has; then the rest is said of the first of them. Null: it works none off. */
  items: number | null
  needs: { lanes: Lane[]; models: WantedModel[] }
  devices: DeviceChoice[]
  /** Its place among those that wait for a device; null when none of its steps does, or none has what it needs. */
  place: Newcomer | null
  /** Why none of its steps can run now; null when they can. */
  nowhere: string | null
  /** About how long the network computes for all of it, s, on the devices that `place` leads to. Null: not measured. */
  seconds: Compatible['seconds']
}

export interface DryRunsParts {
  submissions: Submissions
  registry: Registry
  models: Catalogue
  waiting: WaitingSessions
  pauses: Pick<Pauses, 'list'>
  runs: Runs
  workers: () => Promise<WorkerRecord[]>
}

export class DryRuns {
  readonly #parts: DryRunsParts

  constructor(parts: DryRunsParts) {
    this.#parts = parts
  }

  /** @throws DarkroomError as `Submissions.start` */
  async run(submission: Submission): Promise<DryRun> {
    const { submissions, registry, models, waiting, pauses, workers } = this.#parts
    const rehearsed = await submissions.rehearse(submission)
    const { workflow, input, items, one, device } = rehearsed
    const steps = stepsOf(registry, one.workflow)
    const drawing = one.workflow.drawing?.(one.input)
    const lanes = [...new Set(steps.flatMap((name) => registry.operations[name]?.lane ?? []))]
    const needs = this.#needs(rehearsed, steps, drawing)
    const here = (await workers()).toSorted((a, b) => (a.device.id < b.device.id ? -1 : 1))
    await models.read()
    const lane = lanes.includes('gpu') ? 'gpu' : (lanes[0] ?? 'host')
    const step = { ...needs, lane, device, exactnessKey: null, lastWorker: null, waitsInLine: true, avoid: null }
    const placement = placementOf(step, here, models)
    const paused = await pauses.list()
    const choices = await Promise.all(
      here.map(async (worker): Promise<DeviceChoice> => {
        const picture = drawing && (await this.#picture(drawing, worker))
        const why = obstacle(step, worker, models) ?? picture?.why ?? null
        return {
          device: worker.device.id,
          worker: worker.id,
          name: worker.device.name,
          runs: why === null,
          why,
          paused: !isOpenTo(paused, worker),
          picture: picture ? costOf(picture) : null,
        }
      }),
    )
    const nowhere = whyNowhere(placement, lane, choices)
    const { keyId, priority, concurrency } = submission
    const place =
      'queue' in placement && lane === 'gpu' && nowhere === null
        ? await waiting.ofNewcomer({ queue: placement.queue, priority, keyId, group: concurrency ?? null })
        : null
    const served = here.filter((worker) => place && serves(worker, place.queue)).map(({ device: { id } }) => id)
    return {
      workflow: workflowId(workflow),
      input,
      items: items?.each.length ?? null,
      needs: { lanes, models: needs.models },
      devices: choices,
      place,
      nowhere,
      seconds: ofAll(
        choices.filter((choice) => choice.runs && served.includes(choice.device)),
        items?.each.length ?? 1,
      ),
    }
  }

  /**
   * Models and target: of the steps that it begins with by their own inputs; of the later ones, whose inputs nobody
   * knows yet, as far as the request itself says them.
   */
  #needs(
    { one: { input }, first }: Rehearsed,
    steps: readonly string[],
    drawing?: Drawing,
  ): { models: WantedModel[]; target: Waiting['target'] } {
    const { operations } = this.#parts.registry
    const known = first.steps.map(({ step, input: own }) => needsOf(operations, step, own))
    const later = steps.map((name) => {
      try {
        return needsOf(operations, name, input)
      } catch {
        return undefined
      }
    })
    const all = [...known, ...later].flatMap((need) => need ?? [])
    const wanted = [...(drawing ? [drawing.model, ...drawing.beside] : []), ...all.flatMap((need) => need.models)]
    const models = new Map(wanted.map((model) => [`${model.kind ?? ''} ${model.id}`, model]))
    return { models: [...models.values()], target: all.find(({ target }) => target)?.target ?? null }
  }

  /** What all passes of its pictures take there; undefined while nobody has the model. */
  async #picture({ model, passes, count }: Drawing, worker: WorkerRecord): Promise<Compatible | undefined> {
    const { models, runs } = this.#parts
    const [found] = await models.find(model.id)
    if (!found) return undefined
    const { entry, bodyHash } = found
    const about = { has: models.holds(worker.shelf, model) === 'yes', runs: bodyHash === null ? [] : await runs.of(bodyHash) }
    const each = passes.map((picture) => compatibleWith({ ...entry, id: found.id }, worker, { ...about, picture }))
    const largest = each.reduce((a, b) => (b.peakBytes.value > a.peakBytes.value ? b : a))
    const why = each.find((pass) => pass.why !== null)?.why ?? null
    const seconds = sum(
      each.map((pass) => pass.seconds),
      count,
    )
    return { ...largest, why, seconds }
  }
}

const costOf = ({ precision, offload, peakBytes, totalBytes, seconds }: Compatible): DeviceChoice['picture'] => ({
  precision,
  offload,
  peakBytes,
  totalBytes,
  seconds,
})

/** Steps of a workflow and of its children, by name. */
function stepsOf(registry: Registry, workflow: Workflow, seen = new Set<string>()): string[] {
  if (seen.has(workflowId(workflow))) return []
  seen.add(workflowId(workflow))
  return Object.entries(workflow.machine.implementations.actors as Record<string, unknown>).flatMap(([name, logic]) => {
    if (isItems(logic)) return []
    if (!isSession(logic)) return [name]
    const child = registry.workflow(name)
    return child ? stepsOf(registry, child, seen) : []
  })
}

/** Why a step cannot run on one worker, by what it needs alone; undefined when it can. */
function obstacle(step: Parameters<typeof placementOf>[0], worker: WorkerRecord, models: Catalogue): string | undefined {
  if (step.device !== null && step.device !== worker.device.id) return `the session is for device ${step.device}`
  if (step.lane === 'control' && step.target?.device !== worker.device.id) return `the command is for device ${step.target?.device}`
  if (worker.status !== 'ready') return `its worker is ${worker.status}`
  const placement = placementOf(step, [worker], models)
  if ('queue' in placement) return undefined
  return 'over' in placement ? placement.over.message : placement.nowhere
}

/** Where no device has room for what has a place by its models alone, each says why. */
function whyNowhere(placement: Placement, lane: Lane, choices: readonly DeviceChoice[]): string | null {
  if ('nowhere' in placement) return placement.nowhere
  if ('over' in placement) return placement.over.message
  if (lane !== 'gpu' || choices.some(({ runs }) => runs)) return null
  return choices.map(({ device, why }) => `${device}: ${why}`).join('; ')
}

const serves = ({ device, exactnessKey, shelf }: WorkerRecord, queue: string): boolean =>
  [queues.gpuDevice(device.id), queues.gpuClass(exactnessKey), queues.gpuShelf(exactnessKey, shelf)].includes(queue)

type Seconds = Compatible['seconds']

/** Of parts, `times` over; measured when all of them are, null where one is unknown. */
function sum(parts: readonly Seconds[], times: number): Seconds {
  const known = parts.flatMap((part) => part ?? [])
  if (known.length < parts.length || known.length === 0) return null
  const value = known.reduce((total, part) => total + part.value, 0) * times
  return { value: Number(value.toPrecision(3)), basis: known.every(({ basis }) => basis === 'measured') ? 'measured' : 'estimate' }
}

/** Of so many items on these devices, each of which takes its share; one that is alone is not shared. */
function ofAll(choices: readonly DeviceChoice[], items: number): Seconds {
  const [each] = choices.flatMap(({ picture }) => picture?.seconds ?? [])
  return each ? sum([each], items / Math.min(items, choices.length)) : null
}
