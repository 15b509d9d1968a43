import { z } from 'zod'
import { operation } from '../operation.ts'
import { fileOf } from '../python-files.ts'
import { Drawn, ImageRequest, PicturePin, Sha256 } from '../values.ts'
import { onDevice } from './device-step.ts'
import { filesOfPicture, sizeOf } from './picture.ts'

const fields = { model: true, width: true, height: true, resize: true, mask: true, memoryProfile: true, class: true } as const
const input = ImageRequest.pick(fields).extend({ picture: PicturePin, drawn: Drawn })

/** The picture that an image begins from, to latents; with the latents of its mask. */
export const encodePicture = operation({
  ...onDevice,
  needs: (request) => onDevice.needs({ model: request.model, ...sizeOf(request) }),
  timeoutMs: 600_000,
  input,
  /** `pictureLatents`: safetensors, `latents`, with a mask `mask`, for a network for inpainting `masked`. */
  output: z.strictObject({ pictureLatents: Sha256 }),
  python: { input, files: ['picture', 'mask'], makes: ['pictureLatents'] },
  run: async (request, tools) => ({
    pictureLatents: fileOf(await tools.python(request, filesOfPicture(request)), 'pictureLatents'),
  }),
})
