/** What is done to the images of a session once they are saved: each step is spawned behind the one before. Pure. */
import { z } from 'zod'
import { Measures, PictureRef } from '../../domains/postprocessing/settings.ts'
import { SavedImage } from '../../domains/postprocessing/save.ts'
import { doneTo, type Stages } from './postprocess-input.ts'

/** What was done to an image. `picture`: what came out of it, where that is kept beside the finished image. */
const Stage = z.strictObject({
  step: z.enum(['draw', 'enhance', 'convert']),
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
/** A save, or a step behind it, has ended: its actor is `save.<image>`, or `save.<image>.<number of the step>`. */
export interface Saved {
  actorId: string
  output: SavedImage | Made
}

interface Context {
  input: { postprocess?: Stages | undefined; count: number }
  images: Record<number, FinishedImage>
}

const numberOf = ({ actorId }: Pick<Saved, 'actorId'>): [image: number, stage: number] => {
  const [, image, stage = 0] = actorId.split('.').map(Number)
  return [image ?? 0, stage]
}

/** Whether a policy has it blurred or blocked: then nothing is done to it, and nothing names what was drawn. */
const isKeptBack = ({ safety }: Pick<SavedImage, 'safety'>): boolean => safety?.action === 'blur' || safety?.action === 'block'

/** The image as far as it is now. */
export function imageAfter({ input: { postprocess = [] }, images }: Context, { actorId, output }: Saved): FinishedImage {
  const [image, number] = numberOf({ actorId })
  if (!('images' in output)) {
    const { seed: _, safety: _safety, ...picture } = output
    return postprocess.length === 0 || isKeptBack(output) ? output : { ...output, stages: [{ step: 'draw', picture }] }
  }
  const { does, keep = false } = postprocess[number - 1] ?? {}
  const {
    images: [picture],
    ...figures
  } = output
  const isKept = keep && number < postprocess.length
  const stage = { step: does && 'convert' in does ? 'convert' : 'enhance', ...(isKept && { picture }), ...figures } as const
  const before = images[image]
  return { ...before, ...picture, stages: [...(before?.stages ?? []), stage] } as FinishedImage
}

/** The step that is to be spawned next for an image that is so far, if any is. */
export function stepAfter({ postprocess = [] }: Context['input'], { actorId }: Pick<Saved, 'actorId'>, image: FinishedImage) {
  const [number, done] = numberOf({ actorId })
  const next = postprocess[done]
  if (!next || isKeptBack(image)) return undefined
  const { sha256, width, height, seed } = image
  const what = doneTo(seed, next.does)
  const common = { picture: { sha256, width, height }, keep: next.keep || done === postprocess.length - 1 }
  const id = `save.${number}.${done + 1}`
  return 'convert' in what
    ? (['postprocessing.convert', { id, input: { ...what, ...common } }] as const)
    : (['postprocessing.enhance', { id, input: { ...what, ...common } }] as const)
}

/** Whether all images are there, and all is done to them. */
export const isFinished = ({ input: { postprocess = [], count }, images }: Context): boolean => {
  const all = Object.values(images)
  return (
    all.length === count &&
    all.every((image) => isKeptBack(image) || postprocess.length === 0 || (image.stages ?? []).length === 1 + postprocess.length)
  )
}
