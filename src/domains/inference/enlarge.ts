import { z } from 'zod'
import { operation } from '../operation.ts'
import { fileOf } from '../python-files.ts'
import { ImageRequest, Sha256, Upscaler } from '../values.ts'
import { onDevice } from './device-step.ts'

const size = ImageRequest.pick({ width: true, height: true })
/** `width` and `height` are those of the larger picture, `from` is the size that was drawn, in pixels. */
const request = ImageRequest.pick({ model: true, width: true, height: true, memoryProfile: true, class: true })
const input = request.extend({ from: size, upscaler: Upscaler })

/**
 * The latents of one pass to those that the next one draws over: stretched, or decoded, enlarged by a filter or a
 * network, and encoded.
 * @throws DarkroomError `artifact.missing` when the latents are gone: the machine draws them again.
 */
export const enlarge = operation({
  ...onDevice,
  timeoutMs: 600_000,
  input: input.extend({ latents: Sha256 }),
  /** `pictureLatents`: safetensors, `latents`, [1, channels, height / scale, width / scale]. */
  output: z.strictObject({ pictureLatents: Sha256 }),
  python: { input, files: ['latents'], makes: ['pictureLatents'] },
  run: async ({ latents, ...given }, tools) => ({
    pictureLatents: fileOf(await tools.python(given, { latents }), 'pictureLatents'),
  }),
})
