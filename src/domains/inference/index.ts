/**
 * Diffusion: text to conditioning, noise to latents, latents to pixels. Owns: what the Python child computes.
 * Never touches: files of models, pictures as files, sessions.
 */
import { decode } from './decode.ts'
import { denoise } from './denoise.ts'
import { encode } from './encode.ts'

export { inferenceError } from './errors.ts'

export const inference = {
  'inference.encode': encode,
  'inference.denoise': denoise,
  'inference.decode': decode,
}
