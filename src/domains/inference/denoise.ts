import { z } from 'zod'
import { operation } from '../operation.ts'
import { Exactness, ImageRequest, Sha256 } from '../values.ts'
import { fileOf, onDevice } from './device-step.ts'

/** Noise to latents, call by call, with checkpoints on the way. */
export const denoise = operation({
  ...onDevice,
  timeoutMs: 24 * 3_600_000,
  /** `conditioning` is a hint: without it, or with a broken one, the prompt is encoded again. */
  input: ImageRequest.extend({ conditioning: Sha256.nullable() }),
  /** `latents`: safetensors, [1, channels, height / scale, width / scale]. */
  output: z.strictObject({ latents: Sha256, exactness: Exactness }),
  python: { input: ImageRequest, files: ['conditioning'], makes: ['latents'], resumes: true },
  async run({ conditioning, ...request }, tools) {
    return { latents: fileOf(await tools.python(request, { conditioning }), 'latents'), exactness: tools.exactness }
  },
})
