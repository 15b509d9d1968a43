/**
 * Whether a model draws on a device: in which precision, how much memory a picture takes, how long it takes, and what
 * is in the way. Pure: devices are what their workers published, models what their headers say.
 */
import { z } from 'zod'
import { Bytes, Count } from '../domains/values.ts'
import type { Entry } from '../models/entry.ts'
import type { Component } from '../models/verdict.ts'
import type { WorkerRecord } from './record.ts'
import { waysOf } from './fitting.ts'
import { rowsOf, type Run } from './runs.ts'

/** `measured`: of pictures of that shape on such hardware; `estimate`: by the formulas of this file. */
const basis = z.enum(['measured', 'estimate'])

export const Compatible = z
  .strictObject({
    device: z.string(),
    worker: z.string(),
    name: z.string(),
    fits: z.boolean(),
    why: z.string().nullable().meta({ description: 'why not, in words' }),
    precision: z.string().nullable().meta({ description: 'in which the network computes that draws' }),
    offload: z
      .enum(['none', 'component', 'blocks'])
      .nullable()
      .meta({ description: 'how `auto` draws it there: all parts stay, one at a time, or block by block; null where it does not fit' }),
    parts: z.array(z.strictObject({ name: z.string(), bytes: Count })).meta({ description: 'its weights on the device' }),
    peakBytes: z.strictObject({ value: Count, basis }),
    totalBytes: Bytes.nullable().meta({ description: 'what the device has for it' }),
    seconds: z
      .strictObject({ value: z.number().min(0), basis })
      .nullable()
      .meta({ description: 'of all calls of the network; null where no picture of this model was drawn yet on such hardware' }),
  })
  .meta({ id: 'Compatible' })
export type Compatible = z.infer<typeof Compatible>

/** A picture. `guidance` above 1 takes two rows, the prompt's and the negative one's. */
export interface Picture {
  width: number
  height: number
  steps: number
  guidance: number
}

type Device = Pick<WorkerRecord, 'id' | 'device' | 'exactnessKey' | 'settings' | 'shelf' | 'report'> &
  Partial<Pick<WorkerRecord, 'pictures'>>

/** Bytes of an element, by torch's names. */
const widths: Readonly<Record<string, number>> = { float32: 4, float16: 2, bfloat16: 2, float8_e4m3fn: 1, float8_e5m2: 1 }
/** What a process of torch takes of its device by itself: the driver's context, kernels, libraries. */
const processBytes = 512 * 2 ** 20
/**
 * Tensors of 256 channels at the picture's full size that the last block of an autoencoder has at its highest, in fp32.
 * An SD 1.5 picture of 512² took 2.5 GB beside weights and context: 262,144 pixels × 256 × 4 bytes, 9 times.
 */
const decodeBytes = 9 * 256 * 4
/** Latent cells of a tile's side (`python/darkroom/families/tiles.py`). */
const tileCells = 64
/** Values of a network for each latent cell and row at its highest: 40 tensors of the 320 channels of SD's UNet. */
const cellValues = 40 * 320

/** Which part computes in the device's own precision; text encoders and autoencoders do in fp32. */
const isNetwork = ({ kind }: Pick<Component, 'kind'>): boolean => kind === 'diffusion-model'

/** Such a picture of a model on a device. `id`: of the model; `runs`: of this model, on whatever hardware. */
export function compatibleWith(
  { id, verdict, drawing, bytes }: Pick<Entry, 'verdict' | 'drawing' | 'bytes'> & { id: string },
  worker: Device,
  { has, picture, runs }: { has: boolean; picture: Picture; runs: readonly Run[] },
): Compatible {
  const { report, settings, device } = worker
  const precision = typeof settings['dtype'] === 'string' ? settings['dtype'] : null
  const width = widths[precision ?? ''] ?? 4
  const parts = verdict.components.map(({ name, kind, parameters }) => ({
    name,
    kind,
    bytes: parameters * (isNetwork({ kind }) ? width : 4),
  }))
  const weights = parts.length > 0 ? parts.reduce((sum, part) => sum + part.bytes, 0) : bytes
  const scale = drawing?.scale ?? 8
  const pixels = picture.width * picture.height
  const cells = pixels / scale ** 2
  const measured = measuredPeak(worker, id, pixels)
  const working = {
    denoise: measured ?? rowsOf(picture.guidance) * cells * cellValues * width,
    decode: measured ?? pixels * decodeBytes,
    tile: (tileCells * scale) ** 2 * decodeBytes,
  }
  const total = report.figures.budget ?? report.figures.total
  const load = { parts: parts.length > 0 ? parts : [{ kind: verdict.kind, bytes }], working }
  const ways = waysOf(load, device.kind === 'cpu')
  const fit = ways.find((way) => total === null || way.bytes + processBytes <= total)
  const peak = Math.round(processBytes + (fit ?? ways[0]).bytes)
  const { families, limits } = report.capabilities
  const why = obstacle()
  return {
    device: device.id,
    worker: worker.id,
    name: device.name,
    fits: why === null,
    why,
    precision,
    offload: fit?.offload ?? null,
    parts: parts.map(({ name, bytes: own }) => ({ name, bytes: own })),
    peakBytes: { value: peak, basis: measured === undefined ? 'estimate' : 'measured' },
    totalBytes: total,
    seconds: drawing ? secondsOf(runs, worker.exactnessKey, picture) : null,
  }

  function obstacle(): string | null {
    if (!drawing) return 'it does not draw'
    if (!families.includes(drawing.family)) return `its worker draws with ${families.join(', ') || 'no family'}, not with ${drawing.family}`
    if (!has) return 'the model folders of its host do not have this model'
    if (limits && cells > limits.cells)
      return `a picture of ${picture.width} × ${picture.height} is larger than the ${limits.cells * scale ** 2} pixels that it draws of this model`
    if (limits && cells * picture.steps > limits.cellSteps) return `${picture.steps} steps of such a picture are more than it draws`
    if (fit) return null
    const least = Math.round(processBytes + Math.min(...ways.map((way) => way.bytes)))
    return `it would take about ${peak} bytes, its weights are ${weights} of them, or ${least} where no more of it is there than computes; the device has ${total}`
  }
}

/**
 * What the steps of such a picture took there at most beside the weights, bytes; undefined until both were measured. On
 * a CPU nobody counts what lies between.
 */
function measuredPeak({ device, pictures = [] }: Device, model: string, pixels: number): number | undefined {
  if (device.kind === 'cpu') return undefined
  const peaks = ['inference.denoise', 'inference.decode'].map(
    (step) =>
      pictures.find((each) => each.profile === 'auto' && each.step === step && each.model === model && each.pixels === pixels)?.bytes,
  )
  return peaks.every((bytes) => bytes !== undefined) ? Math.max(...peaks) : undefined
}

/** The last run of that shape; else that of the nearest one, by pixels and rows, since a call's time goes by them. */
function secondsOf(runs: readonly Run[], exactnessKey: string, picture: Picture): Compatible['seconds'] {
  const rows = rowsOf(picture.guidance)
  const own = runs.filter((run) => run.exactnessKey === exactnessKey)
  const same = own.find((run) => run.width === picture.width && run.height === picture.height && run.rows === rows)
  const round = (value: number): number => Number(value.toPrecision(3))
  if (same) return { value: round(same.callS * picture.steps), basis: 'measured' }
  const size = picture.width * picture.height * rows
  const costs = own.map((run) => ({ run, size: run.width * run.height * run.rows }))
  const [nearest] = costs.toSorted((a, b) => Math.abs(Math.log(a.size / size)) - Math.abs(Math.log(b.size / size)))
  return nearest ? { value: round((nearest.run.callS * picture.steps * size) / nearest.size), basis: 'estimate' } : null
}
