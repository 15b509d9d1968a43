/** How a row of the tables is compared with the tensors of a header: by their names and shapes alone. */
import type { Tensor } from '../header.ts'
import type { Algorithm, Dialect, Figures, Kind, KnownFamily, TextEncoder, Variant } from '../verdict.ts'

/** A dimension that may be anything. */
export const any = 0

/**
 * Dimensions a tensor must have, `any` for those that do not matter. Ones at the tensor's end count as absent, because
 * a linear layer may be kept as a convolution of one pixel.
 */
export type Pattern = readonly number[]

/** A dimension of a tensor: its name and the place in its shape. */
export type DimensionOf = readonly [name: string, place: number]

/** A verdict and what must be there for it. Names are relative to the part's prefix. */
export interface Row {
  readonly kind: Kind
  readonly family?: KnownFamily
  readonly variants?: readonly Variant[]
  readonly dialect?: Dialect
  readonly encoder?: TextEncoder
  readonly architecture?: string
  readonly algorithms?: readonly Algorithm[]
  /** Tensors that must be there, with their shapes; `[]` for any shape. */
  readonly has: Readonly<Record<string, Pattern>>
  readonly lacks?: readonly string[]
  readonly figures?: { readonly [F in keyof Figures]?: number | DimensionOf }
  readonly note?: string
}

/** A variant within a family, told by tensors besides the family's own. */
export interface VariantRow {
  readonly family: KnownFamily
  readonly variant: Variant
  readonly has?: Readonly<Record<string, Pattern>>
  readonly lacks?: readonly string[]
}

/** A weight as it is meant, whatever it is packed as: `shape` is absent where packing has lost it. */
export interface Weight extends Omit<Tensor, 'shape'> {
  readonly shape: readonly number[] | undefined
}

/** The tensors under one prefix, by the rest of their names. */
export class Part {
  readonly prefix: string
  readonly #weights: ReadonlyMap<string, Weight>

  constructor(weights: ReadonlyMap<string, Weight>, prefix: string) {
    this.#weights = weights
    this.prefix = prefix
  }

  has(name: string): boolean {
    return this.#weights.has(this.prefix + name)
  }

  shape(name: string): readonly number[] | undefined {
    return this.#weights.get(this.prefix + name)?.shape
  }

  fits(name: string, pattern: Pattern): boolean {
    const weight = this.#weights.get(this.prefix + name)
    if (!weight) return false
    if (pattern.length === 0) return true
    const { shape, count } = weight
    if (!shape) return pattern.every((size) => size !== any) && pattern.reduce((a, b) => a * b) === count
    return (
      pattern.every((size, i) => (size === any ? shape[i] !== undefined : shape[i] === size)) &&
      shape.slice(pattern.length).every((size) => size === 1)
    )
  }

  matches({ has = {}, lacks = [] }: { has?: Readonly<Record<string, Pattern>>; lacks?: readonly string[] }): boolean {
    for (const name in has) if (!this.fits(name, has[name] ?? [])) return false
    return lacks.every((name) => !this.has(name))
  }

  figures(row: Row): Figures {
    const figures: Figures = {}
    for (const [name, value] of Object.entries(row.figures ?? {})) {
      const figure = typeof value === 'number' ? value : this.shape(value[0])?.[value[1]]
      if (figure !== undefined) figures[name as keyof Figures] = figure
    }
    return figures
  }
}

export const rowOf = (part: Part, rows: readonly Row[]): Row | undefined => rows.find((row) => part.matches(row))
