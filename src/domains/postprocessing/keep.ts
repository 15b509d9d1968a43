import { z } from 'zod'
import { operation } from '../operation.ts'
import { Exactness, ImageRef, PicturePin, Sha256 } from '../values.ts'
import { pngOf } from './png.ts'

/**
 * Pixels that were not drawn to a PNG, which says what made it.
 * @throws DarkroomError `artifact.missing` when the pixels are gone, `artifact.corrupt`
 */
export const keep = operation({
  lane: 'host',
  attempts: 3,
  timeoutMs: 600_000,
  /**
   * `workflow`: `name@version`; `request`: what the pixels follow from; `exactness`: where their bytes are promised.
   * With `hasAlpha` they are RGBA.
   */
  input: PicturePin.pick({ width: true, height: true }).extend({
    pixels: Sha256,
    workflow: z.string(),
    request: z.record(z.string(), z.unknown()),
    exactness: Exactness.optional(),
    hasAlpha: z.boolean().optional(),
  }),
  output: ImageRef.omit({ seed: true }),
  async run({ pixels, width, height, workflow, request, exactness, hasAlpha }, tools) {
    const texts = { darkroom: JSON.stringify({ workflow, input: request, ...(exactness && { exactness }) }) }
    const png = await pngOf(tools, { pixels, width, height, hasAlpha }, texts)
    return { sha256: await tools.keep(png, 'image'), mediaType: 'image/png' as const, width, height, bytes: png.byteLength }
  },
})
