/** What operations share that draw a picture to see how long it takes, and throw it away. */
import { z } from 'zod'
import { invalidFields } from '../../errors.ts'
import { wantedOf } from '../../models/entry.ts'
import { modelError } from './errors.ts'
import type { Catalogue } from '../operation.ts'
import { ImageRequest, ModelKind, ModelName, Pass, WantedModel } from '../values.ts'

/** A picture without a negative prompt, of a model that may not have been hashed. */
export const Measured = Pass.omit({ negativePrompt: true }).extend({ model: WantedModel })

/** A measure needs no more. */
const maxCalls = 50
const maxPixels = 2048 ** 2

/** What a client may send; the size that it leaves out is the model's own. */
export const MeasureModel = ImageRequest.pick({ width: true, height: true })
  .partial()
  .extend({ model: ModelName, kind: ModelKind, calls: z.int().min(2).max(maxCalls).default(8).describe('denoise steps of the picture') })

/**
 * The picture, with the model's own settings where the client says none.
 * @throws DarkroomError `model.unknown`, `model.unusable`; `api.invalid` for a picture that no device may draw
 */
export async function measured(
  { model, kind, calls, ...size }: z.infer<typeof MeasureModel>,
  catalogue: Catalogue,
): Promise<z.infer<typeof Measured>> {
  const found = await catalogue.model(model, kind)
  const { id, bodyHash, recommended, scale } = found
  const { width = recommended.width, height = recommended.height } = size
  const limits = await catalogue.limits({ id, bodyHash })
  const most = Math.min(maxPixels, limits ? Math.min(limits.cells, limits.cellSteps / calls) * scale ** 2 : maxPixels)
  if (width * height > most)
    throw invalidFields([
      { field: 'input.width', message: `width · height must be at most ${Math.floor(most)} pixels, not ${width * height}` },
    ])
  const { guidance } = recommended
  const sampler = ImageRequest.shape.sampler.safeParse(recommended.sampler)
  if (!sampler.success)
    throw modelError('unusable', `the own sampler of model ${id} is ${JSON.stringify(recommended.sampler)}, which Darkroom does not have`, {
      field: 'input.model',
      remedy: 'Annotate the model with another one, as a setting.',
    })
  return {
    model: wantedOf(found),
    prompt: 'a red circle on a white table, in the light of the morning',
    width,
    height,
    steps: calls,
    guidance,
    seed: 0,
    sampler: sampler.data,
  }
}

/** Seconds of one picture: both texts, its first denoise call, the median of those after it, and its pixels. */
export const Pace = z.strictObject({ encodeS: z.number(), firstCallS: z.number(), callS: z.number(), decodeS: z.number() })
