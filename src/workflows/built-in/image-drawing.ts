/** What an image generation takes of a device, by its request alone. Pure. */
import { wantedOf } from '../../models/entry.ts'
import type { Drawing } from '../define.ts'
import type { ResolvedInput } from './image-state.ts'
import { besideOf } from './pinning.ts'

/** Each pass with as many steps as are drawn of it. */
export function drawingOf(input: ResolvedInput): Drawing {
  const { model: id, modelHash: bodyHash, vae, width, height, steps, guidance, strength = 1, hires, detail = [], count } = input
  const pass = (size: { width: number; height: number }, calls: number): Drawing['passes'][number] => ({
    width: size.width,
    height: size.height,
    steps: Math.max(1, Math.round(calls)),
    guidance,
  })
  return {
    model: wantedOf({ id, bodyHash, vae }),
    beside: besideOf(input),
    passes: [
      pass({ width, height }, steps * strength),
      ...(hires ? [pass(hires, hires.steps)] : []),
      ...detail.map((region) => pass(region, steps * region.strength)),
    ],
    count,
  }
}
