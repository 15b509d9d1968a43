/** The part of an image generation's form that says what is done to its images once they are drawn. */
import { z } from 'zod'
import {
  completeConversion,
  completeEnhancement,
  convertFields,
  enhanceFields,
  PlannedPostprocess,
  problemOfSize,
  problemsOfConversion,
} from '../../domains/postprocessing/settings.ts'
import type { Catalogue } from '../../domains/operation.ts'
import { invalidFields } from '../../errors.ts'
import { completeUpscale, upscaleFields } from './upscale-input.ts'

/** Most things that are done to one image. */
const mostStages = 8

const Kept = z.boolean().default(false).describe('whether what it makes is a picture of its own beside the finished one')

const StageForm = z
  .strictObject({
    upscale: z.strictObject(upscaleFields).optional().describe('as of image-upscale'),
    enhance: z.strictObject(enhanceFields).optional().describe('as of image-enhance'),
    convert: z.strictObject(convertFields).optional().describe('as of image-convert; it stands last'),
    keep: Kept,
  })
  .superRefine(({ upscale, enhance, convert }, context) => {
    if ([upscale, enhance, convert].filter((each) => each !== undefined).length !== 1)
      context.addIssue({ code: 'custom', message: 'must have one of `upscale`, `enhance` and `convert`' })
    for (const { field, message } of convert ? problemsOfConversion(convert) : [])
      context.addIssue({ code: 'custom', path: ['convert', field], message })
  })

export const postprocessFields = {
  postprocess: z
    .array(StageForm)
    .min(1, 'must name something to do: leave it out for none')
    .max(mostStages, `must be at most ${mostStages}`)
    .superRefine((stages, context) => {
      for (const [i, { convert }] of stages.entries())
        if (convert && i < stages.length - 1)
          context.addIssue({
            code: 'custom',
            path: [i, 'convert'],
            message: 'must stand last: what follows it would write the picture anew',
          })
    })
    .optional()
    .describe('what is done to each image once it is saved, one after the other; what is drawn is kept too'),
}
type Given = z.output<z.ZodObject<typeof postprocessFields>>

/** What is done, with everything filled in but the seeds of grain that images have of their own, and unknown hashes. */
export const Stages = z.array(z.strictObject({ does: PlannedPostprocess, keep: z.boolean() }))
export type Stages = z.infer<typeof Stages>

/**
 * Nothing where nothing is to be done.
 * @param size of the finished image, in pixels
 * @throws DarkroomError `api.invalid`, and as `completeUpscale`
 */
export async function completePostprocess(
  { postprocess }: Given,
  size: { width: number; height: number },
  catalogue: Pick<Catalogue, 'ofKind'>,
): Promise<{ postprocess?: Stages }> {
  if (!postprocess) return {}
  const stages: Stages = []
  let now = size
  for (const [i, { upscale, enhance, convert, keep }] of postprocess.entries()) {
    const at = `input.postprocess.${i}`
    if (upscale) {
      const does = { upscale: await completeUpscale(upscale, now, catalogue, `${at}.upscale`) }
      stages.push({ does, keep })
      now = does.upscale
    } else if (convert) {
      const tooLong = problemOfSize(convert.format, now)
      if (tooLong) throw invalidFields([{ field: `${at}.convert.format`, message: tooLong }])
      stages.push({ does: { convert: completeConversion(convert) }, keep })
    } else stages.push({ does: { enhance: completeEnhancement(enhance ?? {}) }, keep })
  }
  return { postprocess: stages }
}

/** The networks that enlarge. */
export const upscalersOf = (stages: Stages = []): { id: string; bodyHash: string | null }[] =>
  stages.flatMap(({ does }) => ('upscale' in does && typeof does.upscale.upscaler === 'object' ? [does.upscale.upscaler] : []))
