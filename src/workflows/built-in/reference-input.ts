/** The part of an image generation's form that shows a model pictures beside the text, and how it is completed. */
import type { z } from 'zod'
import type { Catalogue } from '../../domains/operation.ts'
import { maxReferences, PictureId, type ImageRequest } from '../../domains/values.ts'
import { invalidFields, type FieldProblem } from '../../errors.ts'
import type { Model } from '../../models/entry.ts'

export const referenceFields = {
  references: PictureId.array()
    .min(1, 'must name a picture, or be left out')
    .max(maxReferences, `must be at most ${maxReferences}`)
    .optional()
    .describe('ids of pictures that an edit is shown: FLUX.1 Kontext takes one, FLUX.2 klein four, Qwen-Image-Edit one or three'),
}

/** What the models were trained with, and what their authors' own programs refuse. */
const leastSide = 64
const mostRatio = 8

type Given = z.output<z.ZodObject<typeof referenceFields>>

/**
 * The pictures with their sizes; nothing where there are none.
 * @throws DarkroomError `api.invalid`, `artifact.unknown`
 */
export async function completeReferences(
  { references }: Given,
  { id, needs, limits }: Pick<Model, 'id' | 'needs' | 'limits'>,
  catalogue: Pick<Catalogue, 'picture'>,
): Promise<Pick<ImageRequest, 'references'>> {
  const problems: FieldProblem[] = []
  const problem = (field: string, message: string): void => void problems.push({ field: `input.references${field}`, message })
  const most = limits?.references ?? 0
  if (!references && needs === 'references') problem('', `is missing: model ${id} edits pictures; send the ids of one or more`)
  if (references && most === 0)
    problem('', `must be left out for ${id}, which sees no pictures: FLUX.1 Kontext, FLUX.2 klein and Qwen-Image-Edit do`)
  else if (references && references.length > most) problem('', `must be at most ${most} for ${id}, not ${references.length}`)
  if (problems.length > 0) throw invalidFields(problems)
  if (!references) return {}
  const pins = await Promise.all(
    references.map(async (picture, i) => {
      const { hasAlpha: _, ...pin } = await catalogue.picture(picture, `input.references.${i}`)
      const { width, height } = pin
      const [less, more] = [Math.min(width, height), Math.max(width, height)]
      if (less < leastSide) problem(`.${i}`, `has ${width} × ${height} pixels: both sides must be at least ${leastSide}`)
      else if (more > mostRatio * less)
        problem(`.${i}`, `has ${width} × ${height} pixels: no side may be over ${mostRatio} times the other`)
      return pin
    }),
  )
  if (problems.length > 0) throw invalidFields(problems)
  return { references: pins }
}

/**
 * The model with another size of its own for an edit: as large in the proportions of the first picture, where the
 * request says no side.
 */
export function sizedLike<Drawn extends Pick<Model, 'recommended' | 'limits'>>(
  model: Drawn,
  { references: [first] = [] }: Pick<ImageRequest, 'references'>,
  given: { width?: number | undefined; height?: number | undefined },
): Drawn {
  if (!first || given.width !== undefined || given.height !== undefined) return model
  const { width, height } = model.recommended
  const multiple = model.limits?.multiple ?? 8
  const scale = Math.sqrt((width * height) / (first.width * first.height))
  const rounded = (pixels: number): number => Math.max(multiple, Math.round((pixels * scale) / multiple) * multiple)
  return { ...model, recommended: { ...model.recommended, width: rounded(first.width), height: rounded(first.height) } }
}
