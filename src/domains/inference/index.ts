/**
 * Diffusion: text to conditioning, pictures and noise to latents, latents to pixels. Owns: what the Python child
 * computes. Never touches: files of models, pictures as files, sessions.
 */
import { decode } from './decode.ts'
import { denoise } from './denoise.ts'
import { encode } from './encode.ts'
import { encodePicture } from './encode_picture.ts'
import { enlarge } from './enlarge.ts'
import { preprocess } from './preprocess.ts'
import { train } from './train.ts'

export { inferenceError } from './errors.ts'

export const inference = {
  'inference.encode': encode,
  'inference.encode_picture': encodePicture,
  'inference.preprocess': preprocess,
  'inference.denoise': denoise,
  'inference.enlarge': enlarge,
  'inference.decode': decode,
  'inference.train': train,
}
