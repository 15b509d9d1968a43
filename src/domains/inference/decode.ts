import { z } from 'zod'
import { operation } from '../operation.ts'
import { fileOf } from '../python-files.ts'
import { Count, Drawn, Exactness, ImageRequest, PicturePin, Sha256 } from '../values.ts'
import { classFacts, onDevice } from './device-step.ts'
import { filesOfPicture, sizeOf } from './picture.ts'

/** `picture`, `resize` and `mask` where the pixels are pasted back. */
const fields = {
  model: true,
  width: true,
  height: true,
  picture: true,
  resize: true,
  mask: true,
  memoryProfile: true,
  class: true,
} as const
const request = ImageRequest.pick(fields).extend({ drawn: Drawn })
/** In how many pieces the autoencoder computed; 0 in none. */
const made = z.strictObject({ tiles: Count })

/**
 * Latents to pixels; with a mask, the picture with them in it.
 * @throws DarkroomError `artifact.missing` when the latents or the drawn pixels are gone: the machine draws them again.
 */
export const decode = operation({
  ...onDevice,
  needs: (input) => onDevice.needs({ model: input.model, ...sizeOf(input) }),
  timeoutMs: 600_000,
  leavesDevice: true,
  input: request.extend({ latents: Sha256 }),
  /**
   * `pixels`: raw RGB, 8 bits each, row by row, width · height · 3 bytes. `exactness`: where the way it was decoded has
   * moved bits, so that it is not the denoise's.
   */
  output: PicturePin.pick({ width: true, height: true }).extend({ pixels: Sha256, exactness: Exactness.optional() }),
  python: { input: request, output: made, files: ['latents', 'picture', 'mask'], makes: ['pixels'] },
  async run({ latents, ...given }, tools) {
    const files = { latents, ...filesOfPicture(given) }
    const result = await tools.python(given, files)
    const isTiled = made.parse(result.output).tiles > 0
    const exactness = tools.exactnessWith({ ...classFacts(given), tiling: true })
    return { pixels: fileOf(result, 'pixels'), ...sizeOf(given), ...(isTiled && { exactness }) }
  },
})
