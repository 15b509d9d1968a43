/** The part of a form that asks for a larger picture, and how it is completed. */
import { z } from 'zod'
import type { Catalogue } from '../../domains/operation.ts'
import type { PlannedEnlargement } from '../../domains/postprocessing/settings.ts'
import { pixelUpscalers, TileSide, type PicturePin } from '../../domains/values.ts'
import { invalidFields, type FieldProblem } from '../../errors.ts'

type Size = Pick<PicturePin, 'width' | 'height'>

/** Pixels of a result, and of what a network makes on the way to it; Python's own limit is the same. */
export const mostUpscaled = 8192 ** 2

const side = z.int().min(1, 'must be at least 1').max(16_384, 'must be at most 16384')

export const upscaleFields = {
  upscaler: z
    .string()
    .min(1)
    .max(200)
    .default('lanczos')
    .describe(`${pixelUpscalers.join(', ')}, or the name of an upscaler, as GET /v1/models?kind=upscaler lists it`),
  factor: z
    .number()
    .min(1, 'must be at least 1')
    .max(8, 'must be at most 8')
    .optional()
    .describe('how many times larger; default: as the upscaler is made for, a filter 2'),
  width: side.optional().describe('pixels, in place of `factor`; one side alone keeps the proportions'),
  height: side.optional().describe('pixels, in place of `factor`'),
  tile: TileSide.optional().describe('side of the tiles that an upscaler computes, pixels; default: 256, less where memory is short'),
}

const isFilter = (name: string): name is (typeof pixelUpscalers)[number] => (pixelUpscalers as readonly string[]).includes(name)

/**
 * What is asked for, with everything filled in.
 * @param size of the picture that is enlarged
 * @param at the field that the form stands in
 * @throws DarkroomError `api.invalid`, `model.unknown`, `model.unusable`
 */
export async function completeUpscale(
  { upscaler, factor, width, height, tile }: z.output<z.ZodObject<typeof upscaleFields>>,
  size: Size,
  catalogue: Pick<Catalogue, 'ofKind'>,
  at = 'input',
): Promise<PlannedEnlargement> {
  const problems: FieldProblem[] = []
  const problem = (field: string, message: string): void => void problems.push({ field: `${at}.${field}`, message })
  const model = isFilter(upscaler) ? undefined : await catalogue.ofKind('upscaler', upscaler, `${at}.upscaler`)
  const own = model?.entry.verdict.figures.factor
  if (factor !== undefined && (width ?? height) !== undefined) problem('factor', 'stands beside a width or a height: say one of them')
  if (tile !== undefined && !model) problem('tile', `must be left out: ${upscaler} computes no tiles`)
  const wanted = sizeOf({ factor: factor ?? own ?? 2, width, height }, size)
  const pixels = wanted.width * wanted.height
  if (pixels > mostUpscaled)
    problem(
      factor === undefined ? (width === undefined && height !== undefined ? 'height' : 'width') : 'factor',
      `the picture would have ${wanted.width} · ${wanted.height} = ${pixels} pixels, and ${mostUpscaled} are the most`,
    )
  const made = own === undefined ? 0 : size.width * size.height * own ** (2 * passesOf(own, size, wanted))
  if (pixels <= mostUpscaled && made > mostUpscaled)
    problem(
      'upscaler',
      `makes ${made} pixels of it on the way, ${own} times larger a pass, and ${mostUpscaled} are the most: name one of a smaller factor`,
    )
  if (problems.length > 0) throw invalidFields(problems)
  return {
    upscaler: model ? { id: model.id, bodyHash: model.bodyHash } : (upscaler as (typeof pixelUpscalers)[number]),
    ...wanted,
    ...(tile !== undefined && { tile }),
  }
}

/** How often a network of that factor runs. */
function passesOf(factor: number, size: Size, wanted: Size): number {
  let passes = 1
  while (factor > 1 && (size.width * factor ** passes < wanted.width || size.height * factor ** passes < wanted.height)) passes++
  return passes
}

function sizeOf({ factor, width, height }: { factor: number; width?: number | undefined; height?: number | undefined }, size: Size): Size {
  const times = width !== undefined ? width / size.width : height !== undefined ? height / size.height : factor
  const rounded = (pixels: number): number => Math.max(1, Math.round(pixels * times))
  return { width: width ?? rounded(size.width), height: height ?? rounded(size.height) }
}
