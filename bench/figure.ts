/** What a benchmark prints: a number with the bound it is held to. */
import { rounded } from './statistics.ts'

export interface Figure {
  name: string
  value: number
  unit: string
  /** `>= 0.4` or `<= 25` */
  target: string
  pass: boolean
}

/** One measurement, which prints one figure or several. */
export interface Benchmark {
  /** Names of its figures, in the order that `measure` returns them. */
  figures: readonly string[]
  /** Takes minutes: only when `--only` asks for it. */
  isLong?: true
  /**
   * Measures; says on the way what the figures are made of.
   * @throws Error when the run is void: something was lost, or did not happen.
   */
  measure(say: (line: string) => void): Promise<Figure[]>
}

/**
 * A figure that must be at least, or at most, so much. The value is compared as it was measured and kept as it is
 * printed.
 */
export function figure(name: string, value: number, unit: string, bound: { atLeast: number } | { atMost: number }): Figure {
  const isMinimum = 'atLeast' in bound
  const pass = isMinimum ? value >= bound.atLeast : value <= bound.atMost
  return { name, value: rounded(value), unit, target: isMinimum ? `>= ${bound.atLeast}` : `<= ${bound.atMost}`, pass }
}

/** Whether `--only` means this figure: its name, or how it begins (`api`, `engine.hop`). */
export const isAsked = (name: string, only: string | undefined): boolean => only === undefined || name.startsWith(only)
