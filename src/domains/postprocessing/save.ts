import { z } from 'zod'
import { artifactError } from '../../errors.ts'
import { operation } from '../operation.ts'
import { Exactness, ImageRef, ImageRequest, Sha256 } from '../values.ts'
import { writePng } from './png.ts'

/**
 * Pixels to a PNG with its own receipt.
 * @throws DarkroomError `artifact.missing` when the pixels are gone: the machine draws them again.
 */
export const save = operation({
  lane: 'host',
  attempts: 3,
  timeoutMs: 600_000,
  /**
   * `request` is the image request alone: it goes into the file, so it holds nothing of the session. `workflow` is the
   * one that draws, `name@version`; without it, as sessions of an older version of Darkroom ask, the receipt names
   * `image-generation@1`.
   */
  input: ImageRequest.pick({ width: true, height: true }).extend({
    pixels: Sha256,
    workflow: z.string().default('image-generation@1'),
    request: ImageRequest,
    exactness: Exactness,
  }),
  output: ImageRef,
  async run({ pixels: sha256OfPixels, width, height, workflow, request, exactness }, tools) {
    const pixels = await tools.artifacts.read(sha256OfPixels)
    if (pixels.length !== width * height * 3)
      throw artifactError('corrupt', `pixels ${sha256OfPixels} hold ${pixels.length} bytes, not ${width} · ${height} · 3`)
    const receipt = { workflow, input: request, exactness }
    const png = writePng(pixels, width, height, { parameters: infotext(request), darkroom: JSON.stringify(receipt) })
    const sha256 = await tools.keep(png, 'image')
    return { sha256, mediaType: 'image/png' as const, width, height, seed: request.seed, bytes: png.byteLength }
  },
})

/**
 * The `parameters` text as AUTOMATIC1111's web UI writes it, which other tools read: prompt, negative prompt, then one
 * line of settings.
 */
function infotext(request: ImageRequest): string {
  const settings = [
    `Steps: ${request.steps}`,
    `Sampler: ${request.sampler}`,
    `CFG scale: ${request.guidance}`,
    `Seed: ${request.seed}`,
    `Size: ${request.width}x${request.height}`,
    `Model hash: ${request.model.bodyHash.slice(0, 10)}`,
    `Model: ${request.model.id}`,
  ]
  return [request.prompt, ...(request.negativePrompt ? [`Negative prompt: ${request.negativePrompt}`] : []), settings.join(', ')].join('\n')
}
