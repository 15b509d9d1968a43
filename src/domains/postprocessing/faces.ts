import { z } from 'zod'
import { operation } from '../operation.ts'
import { fileBytesOf, fileOf } from '../python-files.ts'
import { Count, Exactness, Fraction, ModelPin, PicturePin, Sha256 } from '../values.ts'

const Network = ModelPin.pick({ id: true, bodyHash: true })
/** `strength`: how much of a restored face takes the place of the one that was there. */
const input = z.strictObject({ picture: PicturePin, detector: Network, restorer: Network, strength: Fraction })
const made = z.strictObject({ faces: Count, hasAlpha: z.boolean() })

/**
 * A picture whose faces are drawn anew, each by itself; what is no face keeps its bytes.
 * @throws DarkroomError `postprocessing.needs_onnxruntime`, `.needs_spandrel`, `.weights_unfit`, `.diverged`
 */
export const faces = operation({
  lane: 'gpu',
  attempts: 3,
  timeoutMs: 3_600_000,
  needs: ({ picture, detector, restorer }) => ({
    models: [
      { ...detector, kind: 'face-detector' as const },
      { ...restorer, kind: 'face-restorer' as const },
    ],
    fileBytes: fileBytesOf(picture),
  }),
  input,
  /** `pixels`: raw RGB or RGBA, 8 bits each, row by row. */
  output: PicturePin.pick({ width: true, height: true }).extend({ ...made.shape, pixels: Sha256, exactness: Exactness }),
  python: { input, output: made, files: ['picture'], makes: ['pixels'] },
  async run(request, tools) {
    const result = await tools.python(request, { picture: request.picture.sha256 })
    const { width, height } = request.picture
    return { ...made.parse(result.output), pixels: fileOf(result, 'pixels'), width, height, exactness: tools.exactness }
  },
})
