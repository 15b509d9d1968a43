/** The part of an image generation's form that asks for regions to be drawn again, and how it is completed. */
import { z } from 'zod'
import type { Catalogue } from '../../domains/operation.ts'
import { Box, mostDetails, type Detail, type ImageRequest } from '../../domains/values.ts'
import { invalidFields, type FieldProblem } from '../../errors.ts'
import type { Model } from '../../models/entry.ts'
import { Prompt, side } from './form-values.ts'

const Region = z.strictObject({
  box: Box.optional().describe('where, in pixels of the finished picture'),
  mask: z
    .string()
    .regex(/^[0-9a-f]{64}$/, 'must be the id of a picture: 64 hex digits, as POST /v1/artifacts answers them')
    .optional()
    .describe('in place of a box: id of a picture of its size, white is drawn again'),
  prompt: Prompt.optional().describe('what to draw there; default: the same'),
  negativePrompt: Prompt.optional().describe('what not to draw there; default: the same'),
  strength: z.number().gt(0, 'must be above 0').max(1, 'must be at most 1').default(0.5).describe('how much is drawn over what is there'),
  padding: z.int().min(0, 'must be at least 0').max(1024, 'must be at most 1024').default(32).describe('pixels around it that are seen'),
  blur: z.int().min(0, 'must be at least 0').max(64, 'must be at most 64').default(4).describe('half the softness of its edge, inwards'),
  size: z.strictObject({ width: side, height: side }).optional().describe('at which it is drawn; default: `width` · `height`'),
})

export const detailFields = {
  detail: z
    .array(Region)
    .min(1, 'must name a region, or be left out')
    .max(mostDetails, `must be at most ${mostDetails} regions`)
    .optional()
    .describe('regions that are drawn again by themselves, at full size, and pasted back, one after the other'),
}

type Given = z.output<z.ZodObject<typeof detailFields>>
type Drawn = Pick<ImageRequest, 'width' | 'height' | 'steps'>

/**
 * The regions with everything filled in; nothing where there are none.
 * @param drawn the request that they belong to
 * @param finished size of the picture that they lie in, pixels
 * @throws DarkroomError `api.invalid`, `artifact.unknown`
 */
export async function completeDetail(
  { detail }: Given,
  drawn: Drawn,
  finished: { width: number; height: number },
  { id, limits }: Pick<Model, 'id' | 'limits'>,
  catalogue: Pick<Catalogue, 'picture'>,
): Promise<Pick<ImageRequest, 'detail'>> {
  if (!detail) return {}
  const problems: FieldProblem[] = []
  const problem = (field: string, message: string): void => void problems.push({ field: `input.detail${field}`, message })
  if (limits?.fromText) problem('', `must be left out for ${id}, which draws from text alone`)
  const done: Detail[] = []
  for (const [i, { box, mask, size = { width: drawn.width, height: drawn.height }, ...rest }] of detail.entries()) {
    if ((box === undefined) === (mask === undefined)) problem(`.${i}`, 'must have one of `box` and `mask`')
    if (box && !isInside(box, finished))
      problem(
        `.${i}.box`,
        `${box.width} × ${box.height} at ${box.left}, ${box.top} is not inside the picture, which has ${finished.width} × ${finished.height} pixels`,
      )
    if (Math.floor(drawn.steps * rest.strength) < 1)
      problem(
        `.${i}.strength`,
        `${rest.strength} of ${drawn.steps} steps is less than one: nothing would be drawn; send at least ${1 / drawn.steps}`,
      )
    const picture = mask === undefined || box ? undefined : await catalogue.picture(mask, `input.detail.${i}.mask`)
    if (picture && (picture.width !== finished.width || picture.height !== finished.height))
      problem(
        `.${i}.mask`,
        `the mask is ${picture.width} × ${picture.height} pixels, and the picture ${finished.width} × ${finished.height}: they must be of one size`,
      )
    const source = picture ? { sha256: picture.sha256, width: picture.width, height: picture.height } : box
    const said = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined)) as typeof rest
    if (source) done.push({ source, ...said, ...size } as Detail)
  }
  if (problems.length > 0) throw invalidFields(problems)
  return { detail: done }
}

const isInside = ({ left, top, width, height }: Box, whole: { width: number; height: number }): boolean =>
  left + width <= whole.width && top + height <= whole.height
