import { z } from 'zod'
import { operation } from '../operation.ts'
import { fileBytesOf, fileOf } from '../python-files.ts'
import { Control, Exactness, networkOf, PicturePin, Preprocessor, Sha256 } from '../values.ts'
import { onDevice } from './device-step.ts'

/** As a ControlNet's; `width` and `height` are those of what is made. */
const input = Control.pick({ picture: true, resize: true }).extend({
  preprocessor: Preprocessor,
  ...PicturePin.pick({ width: true, height: true }).shape,
})

/** What a ControlNet would be shown: of the picture as `resize` brings it to the size, or of joints. */
export const preprocess = operation({
  ...onDevice,
  needs: ({ preprocessor, ...size }) => ({ models: networkOf(preprocessor), fileBytes: fileBytesOf(size) }),
  timeoutMs: 600_000,
  input,
  /**
   * `pixels`: raw RGB, 8 bits each, row by row, width · height · 3 bytes. `exactness` where a network sees it: all else
   * is the same bytes on every machine.
   */
  output: z.strictObject({ pixels: Sha256, exactness: Exactness.optional() }),
  python: { input, files: ['picture'], makes: ['pixels'] },
  run: async (request, tools) => ({
    pixels: fileOf(await tools.python(request, request.picture ? { picture: request.picture.sha256 } : {}), 'pixels'),
    ...(networkOf(request.preprocessor).length > 0 && { exactness: tools.exactness }),
  }),
})
