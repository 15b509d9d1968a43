import { operation } from '../operation.ts'
import { ImageRequest, Sha256 } from '../values.ts'
import { fileOf, onDevice } from './device-step.ts'

const request = ImageRequest.pick({ model: true, width: true, height: true })

/**
 * Latents to pixels.
 * @throws DarkroomError `artifact.missing` when the latents are gone: the machine draws them again.
 */
export const decode = operation({
  ...onDevice,
  timeoutMs: 600_000,
  input: request.extend({ latents: Sha256 }),
  /** `pixels`: raw RGB, 8 bits each, row by row, width · height · 3 bytes. */
  output: ImageRequest.pick({ width: true, height: true }).extend({ pixels: Sha256 }),
  python: { input: request, files: ['latents'], makes: ['pixels'] },
  async run({ latents, ...size }, tools) {
    return { pixels: fileOf(await tools.python(size, { latents }), 'pixels'), width: size.width, height: size.height }
  },
})
