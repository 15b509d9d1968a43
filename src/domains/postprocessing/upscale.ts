import { z } from 'zod'
import { operation } from '../operation.ts'
import { fileBytesOf, fileOf } from '../python-files.ts'
import { Drawn, Exactness, ModelPin, PicturePin, pixelUpscalers, Sha256, TileSide, upscalerOf } from '../values.ts'

const size = PicturePin.pick({ width: true, height: true })
/**
 * `width` and `height` are those of the result, pixels; `upscaler` a filter by its name, or a network. `tile`: the side
 * of the tiles that a network computes, where somebody wants another than the usual one.
 */
const input = size.extend({
  picture: PicturePin,
  drawn: Drawn,
  upscaler: z.union([z.enum(pixelUpscalers), ModelPin]),
  tile: TileSide.optional(),
})
/**
 * `network`: its architecture, null for a filter. `tile`: the side of its tiles where that decides pixels, which it
 * does for a network that sees further than a tile; null where a tile of any size makes the same bytes.
 */
const made = z.strictObject({ hasAlpha: z.boolean(), network: z.string().nullable(), tile: TileSide.nullable() })

/**
 * A picture to one of another size, tile by tile, with checkpoints between them.
 * @throws DarkroomError `artifact.missing` when pixels that were drawn are gone: the machine draws them again.
 */
export const upscale = operation({
  lane: 'gpu',
  attempts: 3,
  timeoutMs: 24 * 3_600_000,
  needs: ({ upscaler, ...pixels }) => ({ models: upscalerOf(upscaler), fileBytes: fileBytesOf(pixels) }),
  input,
  /** `pixels`: raw RGB or RGBA, 8 bits each, row by row. */
  output: size.extend({ ...made.shape, pixels: Sha256, exactness: Exactness }),
  python: { input, output: made, files: ['picture'], makes: ['pixels'], resumes: true },
  async run(request, tools) {
    const result = await tools.python(request, { picture: request.picture.sha256 })
    const { width, height } = request
    return { ...made.parse(result.output), pixels: fileOf(result, 'pixels'), width, height, exactness: tools.exactness }
  },
})
