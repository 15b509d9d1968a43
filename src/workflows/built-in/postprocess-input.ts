/** The part of an image generation's form that says what is done to its images once they are drawn. */
import { z } from 'zod'
import {
  completeConversion,
  completeEnhancement,
  convertFields,
  enhanceFields,
  problemOfSize,
  problemsOfConversion,
  seeded,
  UnseededPostprocess,
  type Postprocess,
} from '../../domains/postprocessing/settings.ts'
import { invalidFields } from '../../errors.ts'

/** Most things that are done to one image. */
const mostStages = 8

const Kept = z.boolean().default(false).describe('whether what it makes is a picture of its own beside the finished one')

const StageForm = z
  .strictObject({
    enhance: z.strictObject(enhanceFields).optional().describe('as of image-enhance'),
    convert: z.strictObject(convertFields).optional().describe('as of image-convert; it stands last'),
    keep: Kept,
  })
  .superRefine(({ enhance, convert }, context) => {
    if ((enhance === undefined) === (convert === undefined))
      context.addIssue({ code: 'custom', message: 'must have one of `enhance` and `convert`' })
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

/** What is done, with everything filled in but the seed of grain that an image has of its own. */
export const Stages = z.array(z.strictObject({ does: UnseededPostprocess, keep: z.boolean() }))
export type Stages = z.infer<typeof Stages>

/**
 * Nothing where nothing is to be done.
 * @param size of the finished image, in pixels
 * @throws DarkroomError `api.invalid`
 */
export function completePostprocess({ postprocess }: Given, size: { width: number; height: number }): { postprocess?: Stages } {
  if (!postprocess) return {}
  return {
    postprocess: postprocess.map(({ enhance, convert, keep }, i) => {
      if (!convert) return { does: { enhance: completeEnhancement(enhance ?? {}) }, keep }
      const tooLong = problemOfSize(convert.format, size)
      if (tooLong) throw invalidFields([{ field: `input.postprocess.${i}.convert.format`, message: tooLong }])
      return { does: { convert: completeConversion(convert) }, keep }
    }),
  }
}

/** What is done to the image of this seed. */
export const doneTo = (seed: number, does: UnseededPostprocess): Postprocess =>
  'convert' in does ? does : { enhance: seeded(does.enhance, () => seed) }
