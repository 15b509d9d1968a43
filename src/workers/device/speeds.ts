/** How fast this worker has drawn: the last picture of each model and shape. */
import { z } from 'zod'
import type { FamilyCapabilities, MeasuredSpeed } from '../../domains/device/status.ts'
import { samplers, schedules } from '../../domains/samplers.ts'
import { ImageRequest } from '../../domains/values.ts'
import { rowsOf } from '../../farm/runs.ts'
import { families, flowSamplers, stepCached, type Family } from '../../models/families.ts'
import { isFlow } from '../../models/flow.ts'
import type { Ready, Stats } from '../python/protocol.ts'

/** Shapes that are remembered; the one that was drawn longest ago goes first. */
const maxShapes = 16

const Drawn = z.object(ImageRequest.pick({ width: true, height: true, guidance: true }).shape)

/** A denoise step that has ended. */
export interface DrawnStep {
  model: string
  family: string
  input: unknown
  stats: Stats
}

export class Speeds {
  readonly #byShape = new Map<string, MeasuredSpeed>()

  /** The newest first. */
  get list(): MeasuredSpeed[] {
    return [...this.#byShape.values()].reverse()
  }

  /**
   * Notes how long it took. One that did no call here, asks for no picture, or is of the class `fast`, is passed over.
   */
  note({ model, family, input, stats }: DrawnStep): void {
    const { data } = Drawn.safeParse(input)
    const seconds = (stats.seconds ?? 0) - (stats.loadS ?? 0)
    if (!data || stats.fast || !stats.calls || seconds <= 0) return
    const { width, height } = data
    const rows = rowsOf(data.guidance)
    const shape = `${model} ${width} ${height} ${rows}`
    this.#byShape.delete(shape)
    this.#byShape.set(shape, {
      model,
      family,
      width,
      height,
      rows,
      callsPerS: Number((stats.calls / seconds).toPrecision(4)),
      peakBytes: stats.peakBytes ?? null,
      measuredAt: Date.now(),
    })
    const [oldest] = this.#byShape.keys()
    if (this.#byShape.size > maxShapes && oldest !== undefined) this.#byShape.delete(oldest)
  }
}

/** Whether its pictures of the class `fast` may have a step cache. */
export const hasStepCache = (family: string): boolean => (stepCached as readonly string[]).includes(family)

const isFamily = (name: string): name is Family => (families as readonly string[]).includes(name)

/** What this worker draws of a family: UNets are replayed (python/darkroom/families/unet.py), transformers are not. */
export function capabilitiesOf(family: string, { hardware, settings }: Pick<Ready, 'hardware' | 'settings'>): FamilyCapabilities[] {
  if (!isFamily(family)) return []
  const flow = isFlow(family)
  return [
    {
      family,
      dtype: (flow ? settings.transformer : undefined) ?? settings.dtype,
      samplers: [...(flow ? flowSamplers : samplers)],
      schedules: flow ? ['Automatic'] : [...schedules],
      graphs: !flow && hardware.kind === 'cuda',
    },
  ]
}
