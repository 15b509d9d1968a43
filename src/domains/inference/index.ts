/**
 * Diffusion: text to conditioning, noise to latents, latents to pixels. Owns: what the Python child computes.
 * Never touches: files of models, pictures as files, sessions.
 */
import './errors.ts'
import { operation } from '../operation.ts'
import type { ModelPin } from '../values.ts'
import { decode, denoise, encode } from './operations.ts'
import { DecodeInput, DecodeOutput, DenoiseInput, DenoiseOutput, EncodeInput, EncodeOutput } from './schema.ts'

const gpu = {
  lane: 'gpu',
  attempts: 3,
  needs: ({ model }: { model: ModelPin }) => ({ models: [model] }),
} as const

export const inference = {
  'inference.encode': operation({ ...gpu, run: encode, input: EncodeInput, output: EncodeOutput, timeoutMs: 600_000 }),
  'inference.denoise': operation({ ...gpu, run: denoise, input: DenoiseInput, output: DenoiseOutput, timeoutMs: 24 * 3_600_000 }),
  'inference.decode': operation({ ...gpu, run: decode, input: DecodeInput, output: DecodeOutput, timeoutMs: 600_000 }),
}
