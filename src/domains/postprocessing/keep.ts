import { z } from 'zod'
import { operation } from '../operation.ts'
import { Exactness, ImageRef, PicturePin, Sha256 } from '../values.ts'
import { textsAfter } from './editing.ts'
import { pictureOf } from './png.ts'
import { Postprocess } from './settings.ts'

/** With `hasAlpha` they are RGBA. */
const Pixels = PicturePin.pick({ width: true, height: true }).extend({ pixels: Sha256, hasAlpha: z.boolean().optional() })
/**
 * Pixels that follow from a request. `workflow`: `name@version`; `request`: what they follow from; `exactness`: where
 * their bytes are promised.
 */
const OfRequest = Pixels.extend({
  workflow: z.string(),
  request: z.record(z.string(), z.unknown()),
  exactness: Exactness.optional(),
})
/**
 * Pixels that were made of a picture, whose own texts go on. `keep`: whether they are a result; else they last as long
 * as their session runs.
 */
const OfPicture = Pixels.extend({ of: PicturePin, done: Postprocess, exactness: Exactness, keep: z.boolean() })

/**
 * Pixels that were not drawn to a PNG, which says what made it.
 * @throws DarkroomError `artifact.missing` when the pixels are gone, `artifact.corrupt`
 */
export const keep = operation({
  lane: 'host',
  ahead: true,
  attempts: 3,
  timeoutMs: 600_000,
  input: z.union([OfPicture, OfRequest]),
  output: ImageRef.omit({ seed: true }),
  async run(asked, tools) {
    const { width, height } = asked
    const texts =
      'of' in asked
        ? Object.fromEntries(textsAfter(await tools.artifacts.read(asked.of.sha256), asked.of, asked.done, { exactness: asked.exactness }))
        : { darkroom: receiptOf(asked) }
    const png = await pictureOf(tools, asked, texts)
    const sha256 = await tools.keep(png, 'of' in asked && !asked.keep ? 'scratch' : 'image')
    return { sha256, mediaType: 'image/png' as const, width, height, bytes: png.byteLength }
  },
})

const receiptOf = ({ workflow, request, exactness }: z.infer<typeof OfRequest>): string =>
  JSON.stringify({ workflow, input: request, ...(exactness && { exactness }) })
