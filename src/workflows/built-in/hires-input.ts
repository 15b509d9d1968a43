/** The part of an image generation's form that asks for a second, larger pass, and how it is completed. */
import { z } from 'zod'
import type { Catalogue } from '../../domains/operation.ts'
import { upscalers, type Hires, type ImageRequest, type WantedModel } from '../../domains/values.ts'
import { invalidFields, type FieldProblem } from '../../errors.ts'
import type { Model } from '../../models/entry.ts'
import { SamplerForm, ScheduleForm, withPair } from '../sampler-form.ts'
import { maxPixels, Prompt, side } from './form-values.ts'

export const hiresFields = {
  hires: z
    .strictObject({
      scale: z.number().min(1, 'must be at least 1').max(8, 'must be at most 8').optional().describe('how many times larger; default: 2'),
      width: side.optional().describe('pixels, in place of `scale`; one side alone keeps the proportions'),
      height: side.optional().describe('pixels, in place of `scale`'),
      upscaler: z
        .string()
        .min(1)
        .max(200)
        .default('latent')
        .describe(`how it is enlarged: ${upscalers.join(', ')}, or the name of an upscaler; latents need a strength of 0.5 or more`),
      steps: z.int().min(1).max(200).optional().describe('steps that are drawn over it; default: those of the first pass'),
      strength: z
        .number()
        .gt(0, 'must be above 0')
        .max(1, 'must be at most 1')
        .default(0.6)
        .describe('how much is drawn over what the first pass drew'),
      sampler: SamplerForm.optional(),
      schedule: ScheduleForm.optional(),
      prompt: Prompt.optional().describe('what to draw in the second pass; default: the same'),
      negativePrompt: Prompt.optional().describe('what not to draw in it; default: the same'),
    })
    .transform(withPair)
    .optional()
    .describe('a second pass: what was drawn is enlarged, and drawn over'),
}

/** Steps of the longest schedule: so many times a model was trained on. */
const mostScheduled = 1000

/** How many steps a schedule has of which `strength` leaves as many as are to be drawn. */
export function scheduledSteps({ steps, strength }: Pick<Hires, 'steps' | 'strength'>): number {
  let scheduled = Math.ceil(steps / strength)
  // Rounding may leave one less.
  while (Math.floor(scheduled * strength) < steps) scheduled++
  return scheduled
}

const isNamed = (name: string): name is (typeof upscalers)[number] => (upscalers as readonly string[]).includes(name)

/** As `Hires`, with a network whose hash may not be known yet. */
type WantedHires = Omit<Hires, 'upscaler'> & { upscaler: (typeof upscalers)[number] | Pick<WantedModel, 'id' | 'bodyHash'> }

type Given = z.output<z.ZodObject<typeof hiresFields>>
type First = Pick<ImageRequest, 'width' | 'height' | 'steps' | 'sampler'>

/**
 * The second pass with everything filled in; nothing where there is none.
 * @param first what is drawn before it
 * @throws DarkroomError `api.invalid`, `model.unknown`, `model.unusable`
 */
export async function completeHires(
  { hires, picture }: Given & { picture?: unknown },
  first: First,
  { id, limits }: Pick<Model, 'id' | 'limits'>,
  catalogue: Pick<Catalogue, 'ofKind'>,
): Promise<{ hires?: WantedHires }> {
  if (!hires) return {}
  const problems: FieldProblem[] = []
  const problem = (field: string, message: string): void => void problems.push({ field: `input.hires${field}`, message })
  if (limits?.fromText) problem('', `must be left out for ${id}, which draws from text alone`)
  if (picture !== undefined)
    problem('', 'enlarges what was drawn from text: leave it out, and say the `width` and `height` that the picture is to be drawn over at')
  const { scale, width, height, steps = first.steps, sampler, schedule, ...rest } = hires
  if (scale !== undefined && (width ?? height) !== undefined) problem('.scale', 'stands beside a width or a height: say one of them')
  const size = sizeOf({ scale, width, height }, first, limits?.multiple ?? 8)
  for (const each of ['width', 'height'] as const)
    if (size[each] < first[each]) problem(`.${each}`, `must be at least that of the first pass, which is ${first[each]}, not ${size[each]}`)
  if (size.width * size.height > maxPixels)
    problem('.width', `width · height must be at most ${maxPixels} pixels, not ${size.width} · ${size.height}`)
  const scheduled = scheduledSteps({ steps, strength: rest.strength })
  if (scheduled > mostScheduled)
    problem(
      '.strength',
      `${steps} steps at ${rest.strength} are a schedule of ${scheduled}, and ${mostScheduled} are the most: say more, or fewer \`steps\``,
    )
  if (problems.length > 0) throw invalidFields(problems)
  const upscaler = isNamed(rest.upscaler) ? rest.upscaler : await catalogue.ofKind('upscaler', rest.upscaler, 'input.hires.upscaler')
  const isPair = sampler !== undefined || schedule !== undefined
  const said = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined)) as typeof rest
  return {
    hires: {
      ...said,
      ...size,
      steps,
      upscaler: typeof upscaler === 'string' ? upscaler : { id: upscaler.id, bodyHash: upscaler.bodyHash },
      ...(isPair && { sampler: sampler ?? first.sampler, ...(schedule && { schedule }) }),
    } as WantedHires,
  }
}

/** Rounded to what the model draws. */
function sizeOf(
  { scale, width, height }: { scale?: number | undefined; width?: number | undefined; height?: number | undefined },
  first: Pick<First, 'width' | 'height'>,
  multiple: number,
): Pick<Hires, 'width' | 'height'> {
  const rounded = (pixels: number): number => Math.round(pixels / multiple) * multiple
  const times = scale ?? (width !== undefined ? width / first.width : height !== undefined ? height / first.height : 2)
  return { width: width ?? rounded(first.width * times), height: height ?? rounded(first.height * times) }
}
