/** How far one image is, by the step at work. */
import { costsOf, type Shape } from './passes.ts'

/** Share of one image's time that each step takes, roughly; its passes take nearly all of it. */
const shares: Record<string, { from: number; to: number }> = {
  'model.hash': { from: 0, to: 0.01 },
  'model.resolve': { from: 0, to: 0.01 },
  'inference.encode': { from: 0.01, to: 0.03 },
  'inference.encode_picture': { from: 0.03, to: 0.03 },
  'inference.denoise': { from: 0.03, to: 0.93 },
  'inference.enlarge': { from: 0.93, to: 0.93 },
  'inference.decode': { from: 0.93, to: 0.97 },
  'postprocessing.check': { from: 0.97, to: 0.97 },
  'postprocessing.save': { from: 0.97, to: 1 },
  'postprocessing.upscale': { from: 1, to: 1 },
  'postprocessing.keep': { from: 1, to: 1 },
  'postprocessing.enhance': { from: 1, to: 1 },
  'postprocessing.convert': { from: 1, to: 1 },
}
const ofPasses = { from: 0.03, to: 0.93 }

/** What tells which pass is at work: what those before it have left. */
interface Left {
  enlarged?: string | null
  drawn?: object | null
  region?: number
}

/** 0 to 1. `fraction`: how far the step is. */
export function withinImage(
  request: Pick<Shape, 'width' | 'height' | 'steps' | 'strength' | 'hires' | 'detail'>,
  { enlarged, drawn, region = 0 }: Left,
  step: string,
  fraction: number,
): number {
  const { from, to } = shares[step] ?? { from: 0, to: 0 }
  const { hires, detail } = request
  if ((!hires && !detail) || !step.startsWith('inference.') || step === 'inference.encode') return from + fraction * (to - from)
  const second = hires && (enlarged || drawn) ? 1 : 0
  const pass = drawn ? second + 1 + region : second
  // What stands before a pass is none of it, what stands behind it has all of it done.
  const done = step === 'inference.denoise' ? fraction : Number(step !== 'inference.encode_picture')
  const costs = costsOf(request)
  const sum = (list: readonly number[]): number => list.reduce((total, cost) => total + cost, 0)
  return ofPasses.from + ((sum(costs.slice(0, pass)) + done * (costs[pass] ?? 0)) / sum(costs)) * (ofPasses.to - ofPasses.from)
}
