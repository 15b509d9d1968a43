/** What steps take of a device's memory beside the weights: by their shape until it was measured, then as measured. */
import { MemoryProfile } from '../../domains/values.ts'
import type { PicturePeak } from '../../farm/record.ts'

/** Bytes a pixel until anything was measured, by step: what the usual networks keep of activations in fp32. */
const firstGuess: Readonly<Record<string, number>> = { 'inference.denoise': 1024, 'inference.decode': 4096, 'inference.enlarge': 4096 }

/** Shapes that are told to the farm. */
const maxTold = 32

/** A step by what its memory follows from. */
export type Shape = Omit<PicturePeak, 'bytes'>

/** The shape of a step; undefined of one that draws nothing. */
export function shapeOf(step: string, input: unknown): Shape | undefined {
  const { height, model, width, ...rest } = input as {
    height?: unknown
    model?: { id?: unknown }
    width?: unknown
    memoryProfile?: unknown
  }
  if (typeof width !== 'number' || typeof height !== 'number' || typeof model?.id !== 'string') return undefined
  return { step, model: model.id, pixels: width * height, profile: MemoryProfile.catch('auto').parse(rest.memoryProfile) }
}

const keyOf = ({ step, profile, model }: Omit<Shape, 'pixels'>): string => `${step} ${profile} ${model}`

export class PictureMemory {
  /** The highest peak by step, memory profile and model, then by pixels. */
  readonly #peaks = new Map<string, Map<number, number>>()
  /** The shapes that were measured last, the newest one at the end. */
  readonly #last = new Map<string, PicturePeak>()

  /** The highest peaks of the shapes that were measured last. */
  get told(): PicturePeak[] {
    return [...this.#last.values()]
  }

  /** A step has taken so many bytes at most. */
  measured(shape: Shape, bytes: number): void {
    const { pixels } = shape
    const key = keyOf(shape)
    const peaks = this.#peaks.get(key) ?? new Map<number, number>()
    const highest = Math.max(bytes, peaks.get(pixels) ?? 0)
    this.#peaks.set(key, peaks.set(pixels, highest))
    const name = `${key} ${pixels}`
    this.#last.delete(name)
    this.#last.set(name, { ...shape, bytes: highest })
    const [oldest] = this.#last.keys()
    if (this.#last.size > maxTold && oldest !== undefined) this.#last.delete(oldest)
  }

  /**
   * Bytes that the step will take: as measured; by its pixels from the nearest size that was measured; else a guess, of
   * no more than there is `room` for: nothing is refused for the sake of a guess.
   */
  bytesOf({ pixels, ...shape }: Shape, room: number): number {
    const peaks = this.#peaks.get(keyOf(shape))
    const known = peaks?.get(pixels)
    if (known !== undefined) return known
    const [nearest] = [...(peaks ?? [])].toSorted(([a], [b]) => Math.abs(a - pixels) - Math.abs(b - pixels))
    const guess = nearest ? (nearest[1] / nearest[0]) * pixels : (firstGuess[shape.step] ?? 0) * pixels
    return Math.min(Math.ceil(guess), Math.max(0, room))
  }
}
