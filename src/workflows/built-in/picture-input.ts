/** The part of an image generation's form that speaks of a picture to begin from, and how it is completed. */
import { z } from 'zod'
import type { Catalogue } from '../../domains/operation.ts'
import { areas, fills, ownMasks, resizes, type ImageRequest, type Mask, PictureId } from '../../domains/values.ts'
import { invalidFields, type FieldProblem } from '../../errors.ts'
import type { Model } from '../../models/entry.ts'

const pixels = (most: number) => z.int().min(0, 'must be at least 0').max(most, `must be at most ${most}`)

const MaskInput = z.strictObject({
  source: z
    .string()
    .regex(new RegExp(`^([0-9a-f]{64}|${ownMasks.join('|')})$`), 'must be the id of a picture, or `alpha`, or `border`')
    .describe('id of a picture of the same size, white is drawn anew; `alpha`: what is transparent; `border`: what `pad` adds'),
  invert: z.boolean().default(false).describe('draw what the mask leaves, and keep what it covers'),
  grow: pixels(512).default(0).describe('pixels that the mask is grown by'),
  blur: pixels(64).default(4).describe('half the pixels over which its edge becomes softer, inwards'),
  fill: z.enum(fills).default('original').describe('what lies under the noise where the mask is'),
  area: z
    .enum(areas)
    .default('whole')
    .describe('masked: the masked region alone is drawn at width · height, and the picture keeps its size'),
  padding: pixels(1024).default(32).describe('pixels around a region that is drawn by itself'),
})

/** What a form of a workflow that draws may say of a picture. */
export const pictureFields = {
  picture: PictureId.optional().describe('id of the picture to begin from: uploaded by POST /v1/artifacts, or one of your sessions’'),
  strength: z
    .number()
    .min(0, 'must be at least 0')
    .max(1, 'must be at most 1')
    .optional()
    .describe('how much is drawn over the picture; 1 begins from noise alone, as without a picture; default: 0.75'),
  resize: z.enum(resizes).optional().describe('how the picture comes to width · height; default: crop, with a mask of its border pad'),
  mask: MaskInput.optional().describe('what of the picture is drawn anew; all else keeps its bytes'),
}

const usualStrength = 0.75

type Given = z.output<z.ZodObject<typeof pictureFields>> & { steps?: number | undefined }
type Completed = Pick<ImageRequest, 'picture' | 'strength' | 'resize' | 'mask'>

/**
 * What is said of a picture, with everything filled in; nothing where there is none.
 * @throws DarkroomError `api.invalid`, `artifact.unknown`
 */
export async function completePicture(
  given: Given,
  { id, recommended, needs, limits }: Pick<Model, 'id' | 'recommended' | 'needs' | 'limits'>,
  catalogue: Pick<Catalogue, 'picture'>,
): Promise<Completed> {
  const { strength = usualStrength, mask, steps = recommended.steps } = given
  const problems = contradictions(given)
  if (limits?.fromText && given.picture !== undefined)
    problems.push({ field: 'input.picture', message: `must be left out for ${id}, which draws from text alone` })
  if (needs === 'picture' && given.picture === undefined)
    problems.push({ field: 'input.picture', message: `is missing: model ${id} draws over pictures alone; send \`picture\`` })
  if (needs === 'mask' && mask === undefined)
    problems.push({ field: 'input.mask', message: `is missing: model ${id} draws behind masks alone; send \`picture\` and \`mask\`` })
  if (given.picture !== undefined && Math.floor(steps * strength) < 1)
    problems.push({
      field: 'input.strength',
      message: `${strength} of ${steps} steps is less than one: nothing would be drawn; send at least ${1 / steps}`,
    })
  if (problems.length > 0) throw invalidFields(problems)
  if (given.picture === undefined) return {}
  const { hasAlpha, ...picture } = await catalogue.picture(given.picture, 'input.picture')
  if (mask?.source === 'alpha' && !hasAlpha)
    throw invalidFields([{ field: 'input.mask.source', message: `picture ${picture.sha256} has nothing transparent` }])
  const resize = given.resize ?? (mask?.source === 'border' ? 'pad' : 'crop')
  return {
    picture,
    strength,
    ...(mask?.area !== 'masked' && { resize }),
    ...(mask && { mask: { ...mask, source: await sourceOf(mask.source, picture, catalogue) } }),
  }
}

/** What cannot be meant, whatever the pictures are. */
function contradictions({ picture, strength, resize, mask }: Given): FieldProblem[] {
  const problems: FieldProblem[] = []
  const problem = (field: string, message: string): void => void problems.push({ field: `input.${field}`, message })
  if (picture === undefined)
    for (const [field, value] of Object.entries({ strength, resize, mask }))
      if (value !== undefined) problem(field, 'is said of a picture, and there is none: send `picture` too')
  if (mask && resize === 'latent') problem('resize', 'must be stretch, crop or pad with a mask: what it keeps is pixels')
  if (mask?.area === 'masked' && resize !== undefined)
    problem('resize', 'is not used where the masked area alone is drawn: leave it out, the picture keeps its size')
  if (mask?.source === 'border' && mask.area === 'masked') problem('mask.area', 'must be whole where the mask is the border: `pad` adds it')
  if (mask?.source === 'border' && resize !== undefined && resize !== 'pad')
    problem('resize', 'must be pad where the mask is the border: nothing else adds one')
  return problems
}

/** @throws DarkroomError `artifact.unknown`, and `api.invalid` for a mask of another size */
async function sourceOf(
  source: string,
  { width, height }: { width: number; height: number },
  catalogue: Pick<Catalogue, 'picture'>,
): Promise<Mask['source']> {
  if (source === 'alpha' || source === 'border') return source
  const { hasAlpha: _, ...pin } = await catalogue.picture(source, 'input.mask.source')
  if (pin.width === width && pin.height === height) return pin
  const message = `the mask is ${pin.width} × ${pin.height} pixels, and the picture ${width} × ${height}: they must be of one size`
  throw invalidFields([{ field: 'input.mask.source', message }])
}
