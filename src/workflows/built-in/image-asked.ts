/** What a client would say of the completed input of an image generation. */
import { askedOf } from '../../domains/postprocessing/texts/receipt.ts'
import { askedPostprocess } from '../../domains/postprocessing/settings.ts'
import type { ImageRequest } from '../../domains/values.ts'
import type { ResolvedInput } from './image-state.ts'

type Fields = Record<string, unknown>

/** The request as a client would send it. */
export function askedAgain(input: Fields): Fields {
  const { model, modelHash, vae: _, count, pin, postprocess, safety, ...rest } = input as ResolvedInput
  // A VAE is a preference of the model's, which no request names.
  const asked = askedOf({ ...rest, model: { id: model, bodyHash: modelHash ?? '' } } as ImageRequest)
  return {
    ...asked,
    count,
    pin,
    ...(postprocess && { postprocess: postprocess.map(({ keep, does }) => ({ ...askedPostprocess(does), ...(keep && { keep }) })) }),
    // The last is the one that the request names, if it names one; those that apply anyway do so again.
    ...(safety && { safety: { policy: safety.policies.at(-1)?.name, redraws: safety.redraws } }),
  }
}
