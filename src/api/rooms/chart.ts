/** A figure over time as an area. Nothing is drawn where nobody looked. */
import { el, type Element } from './markup.ts'

const [across, down] = [300, 72] as const
/** Longer than this between two points, nobody looked, ms. */
const gapMs = 180_000

export type Point = readonly [at: number, value: number]

export interface Chart {
  title: string
  points: readonly Point[]
  /** The top of it. */
  most: number
  /** What is shown up to now, ms. */
  spanMs: number
  /** Drawn as lines. */
  levels?: readonly number[]
}

export function chart({ title, points, most, spanMs, levels = [] }: Chart): Element {
  const now = points.at(-1)?.[0] ?? 0
  const x = (at: number): string => (across - ((now - at) / spanMs) * across).toFixed(1)
  const y = (value: number): string => (down - Math.max(0, Math.min(1, value / most)) * down).toFixed(1)
  const runs: Point[][] = []
  for (const point of points) {
    const last = runs.at(-1)?.at(-1)
    if (now - point[0] > spanMs) continue
    if (last && point[0] - last[0] < gapMs) runs.at(-1)?.push(point)
    else runs.push([point])
  }
  const area = (run: readonly Point[]): string =>
    `M${x(run[0]?.[0] ?? now)} ${down}L${run.map(([at, value]) => `${x(at)} ${y(value)}`).join('L')}V${down}Z`
  return el(
    'svg',
    { class: 'chart', viewBox: `0 0 ${across} ${down}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': title },
    levels.map((level) => el('line', { key: level, x1: 0, x2: across, y1: y(level), y2: y(level) })),
    el('path', { d: runs.map(area).join('') }),
  )
}
