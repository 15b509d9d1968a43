/** What is done to the images of a session once they are saved: each step is spawned behind the one before. Pure. */
import { z } from 'zod'
import { Measures, PictureRef, seeded } from '../../domains/postprocessing/settings.ts'
import { SavedImage } from '../../domains/postprocessing/save.ts'
import { keepEnlarged, type Enlarged } from './enlarged.ts'
import { pinnedUpscaler, type Pinned } from './pinning.ts'
import type { Stages } from './postprocess-input.ts'

/** What was done to an image. `picture`: what came out of it, where that is kept beside the finished image. */
const Stage = z.strictObject({
  step: z.enum(['draw', 'upscale', 'enhance', 'convert']),
  picture: PictureRef.optional(),
  before: Measures.optional(),
  after: Measures.optional(),
  quality: z.int().nullable().optional(),
})

/** `stages`: of an image that something was done to, in order; the first is its drawing. */
export const FinishedImage = SavedImage.extend({ mediaType: PictureRef.shape.mediaType, stages: z.array(Stage).optional() })
export type FinishedImage = z.infer<typeof FinishedImage>

interface Made {
  images: PictureRef[]
  before?: Measures
  after?: Measures
  quality?: number | null
}
/**
 * A save, or a step behind it, has ended: its actor is `save.<image>`, or `save.<image>.<number of the step>`; where a
 * step leaves pixels, the one that makes a file of them has `.file` behind that.
 */
export interface Saved {
  actorId: string
  output: SavedImage | Made | Enlarged | PictureRef
}

interface Context extends Pick<Pinned, 'hashes'> {
  input: { postprocess?: Stages | undefined; count: number }
  images: Record<number, FinishedImage>
}

const numberOf = ({ actorId }: Pick<Saved, 'actorId'>): [image: number, stage: number] => {
  const [, image, stage = 0] = actorId.split('.').map(Number)
  return [image ?? 0, stage]
}
const isSave = ({ actorId }: Pick<Saved, 'actorId'>): boolean => numberOf({ actorId })[1] === 0

/** Whether a policy has it blurred or blocked: then nothing is done to it, and nothing names what was drawn. */
const isKeptBack = ({ safety }: Pick<SavedImage, 'safety'>): boolean => safety?.action === 'blur' || safety?.action === 'block'

/** The image as far as it is now. */
export function imageAfter({ input: { postprocess = [] }, images }: Context, saved: Saved): FinishedImage {
  const [image, number] = numberOf(saved)
  const { output } = saved
  if (isSave(saved)) {
    const drawn = output as SavedImage
    const { seed: _, safety: _safety, ...picture } = drawn
    return postprocess.length === 0 || isKeptBack(drawn) ? drawn : { ...drawn, stages: [{ step: 'draw', picture }] }
  }
  const before = images[image] as FinishedImage
  // Pixels are no picture yet.
  if ('pixels' in output) return before
  const { does, keep = false } = postprocess[number - 1] ?? {}
  const {
    images: [picture],
    ...figures
  } = 'images' in output ? output : { images: [output as PictureRef] }
  const isKept = keep && number < postprocess.length
  const stage = { step: nameOf(does), ...(isKept && { picture }), ...figures }
  return { ...before, ...picture, stages: [...(before.stages ?? []), stage] } as FinishedImage
}

const nameOf = (does: Stages[number]['does'] | undefined): 'upscale' | 'enhance' | 'convert' =>
  does && 'upscale' in does ? 'upscale' : does && 'convert' in does ? 'convert' : 'enhance'

/** The step that is to be spawned next for an image that is so far, if any is. */
export function stepAfter(context: Context, { actorId, output }: Saved, image: FinishedImage) {
  const { postprocess = [] } = context.input
  const [number, done] = numberOf({ actorId })
  const [stage, isOpen] = 'pixels' in output ? [done, true] : [done + 1, false]
  const next = postprocess[stage - 1]
  if (!next || isKeptBack(image)) return undefined
  const { sha256, width, height, seed } = image
  const { does } = next
  const picture = { sha256, width, height }
  const keep = next.keep || stage === postprocess.length
  const id = `save.${number}.${stage}`
  if ('convert' in does) return ['postprocessing.convert', { id, input: { ...does, picture, keep } }] as const
  if ('enhance' in does)
    return ['postprocessing.enhance', { id, input: { enhance: seeded(does.enhance, () => seed), picture, keep } }] as const
  const { upscaler, ...size } = does.upscale
  const asked = { ...size, picture, upscaler: typeof upscaler === 'string' ? upscaler : pinnedUpscaler(context, upscaler) }
  return isOpen
    ? (['postprocessing.keep', { id: `${id}.file`, input: keepEnlarged(asked, output as Enlarged, keep) }] as const)
    : (['postprocessing.upscale', { id, input: asked }] as const)
}

/** Whether all images are there, and all is done to them. */
export const isFinished = ({ input: { postprocess = [], count }, images }: Context): boolean => {
  const all = Object.values(images)
  return (
    all.length === count &&
    all.every((image) => isKeptBack(image) || postprocess.length === 0 || (image.stages ?? []).length === 1 + postprocess.length)
  )
}
