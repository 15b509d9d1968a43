/** Sizes that no device here draws, or that a model is not told, are refused at submit. */
import type { PictureLimits } from '../../domains/device/status.ts'
import type { ImageRequest, Sizes } from '../../domains/values.ts'
import { invalidFields } from '../../errors.ts'
import type { Model } from '../../models/entry.ts'

/**
 * A picture that is too large for a device would hold it up: no pause and no cancel is heard within a call.
 * @param scale pixels of one latent cell's side
 * @param at the field that a refusal names the size within
 * @throws DarkroomError `api.invalid`, with the figures
 */
export function checkSize(
  { model, steps, width, height }: { model: string } & Pick<ImageRequest, 'steps' | 'width' | 'height'>,
  scale: number,
  limits: PictureLimits | null,
  at = 'input',
): void {
  if (!limits) return
  const [pixels, most, mostPixelSteps] = [width * height, limits.cells * scale ** 2, limits.cellSteps * scale ** 2]
  const more = `of ${model} on every device that may take it; name a \`device\` whose \`limits\` in GET /v1/devices are higher`
  if (pixels > most)
    throw invalidFields([
      { field: `${at}.width`, message: `width · height must be at most ${most} pixels, not ${pixels}: so much is drawn ${more}` },
    ])
  if (pixels * steps > mostPixelSteps)
    throw invalidFields([
      {
        field: `${at}.steps`,
        message: `width · height · steps must be at most ${mostPixelSteps}, not ${pixels * steps}: so much is drawn ${more}`,
      },
    ])
}

/** @throws DarkroomError `api.invalid` for sizes that the model is not told */
export function checkTold(sizes: Sizes | undefined, { id, family }: Pick<Model, 'id' | 'family'>): void {
  if (!sizes) return
  const problem = (field: string, message: string) => invalidFields([{ field: `input.sizes${field}`, message }])
  if (family !== 'sdxl' && family !== 'sdxl-refiner')
    throw problem('', `model ${id} is told no sizes, as only Stable Diffusion XL is: leave them out`)
  const told = Object.entries({ ...sizes, ...sizes.negative }).find(([name, value]) => name.startsWith('target') && value !== undefined)
  if (family === 'sdxl-refiner' && told) throw problem(`.${told[0]}`, `a refiner such as ${id} is not told the target’s size: leave it out`)
}
