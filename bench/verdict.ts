/** Two commits beside one another: what their figures, measured in turn, say of the change between them. */
import type { Figure } from './figure.ts'
import { medianRatio, rounded } from './statistics.ts'

/** More than this share worse is a loss. */
const tolerance = 0.05

/** What one run of one side measured. */
export type Run = readonly Pick<Figure, 'name' | 'value' | 'unit' | 'target'>[]

export interface Verdict {
  name: string
  unit: string
  /** As its target says it: at least so much, or at most. */
  better: 'higher' | 'lower'
  /** Values of the base and of the head, a pair a round. */
  pairs: [base: number, head: number][]
  /** Median of the pairs' head ÷ base; NaN without a pair. */
  ratio: number
  isLoss: boolean
}

/** Compares round by round the figures that both sides have; a round in which one side has no figure makes no pair. */
export function verdicts(base: readonly Run[], head: readonly Run[]): Verdict[] {
  const named = new Map([...base, ...head].flat().map((figure) => [figure.name, figure]))
  return [...named.values()].map(({ name, unit, target }) => {
    const of = (run: Run | undefined): number | undefined => run?.find((figure) => figure.name === name)?.value
    const pairs = base.flatMap((run, round): [number, number][] => {
      const [before, after] = [of(run), of(head[round])]
      return before === undefined || after === undefined ? [] : [[before, after]]
    })
    const better = target.startsWith('>=') ? 'higher' : 'lower'
    const ratio =
      pairs.length > 0
        ? medianRatio(
            pairs.map(([, after]) => after),
            pairs.map(([before]) => before),
          )
        : NaN
    // A ratio that is no number proves nothing, so it counts as a loss.
    const isLoss = !((better === 'higher' ? 1 / ratio : ratio) <= 1 + tolerance)
    return { name, unit, better, pairs, ratio, isLoss }
  })
}

export function describe({ name, unit, better, pairs, ratio, isLoss }: Verdict): string {
  if (pairs.length === 0) return `✗ ${name.padEnd(22)} no round has it of both sides`
  const values = pairs.map(([base, head]) => `${base}→${head}`).join(' ')
  return `${isLoss ? '✗' : '✓'} ${name.padEnd(22)} ${String(rounded(ratio)).padEnd(6)} ${better} is better   ${`${values} ${unit}`.trim()}`
}
