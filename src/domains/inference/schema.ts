import { z } from 'zod'

/** Samplers by their usual names; Python's table is compared with this one by a test. */
export const samplers = ['Euler', 'Euler a', 'DPM++ 2M', 'DPM++ 2M Karras', 'DDIM', 'UniPC', 'Heun', 'LCM'] as const
export const Sampler = z.enum(samplers)

const Hash = z.string().regex(/^[0-9a-f]{64}$/)
const Model = z.strictObject({ id: z.string(), bodyHash: Hash })

export const EncodeInput = z.strictObject({ model: Model, prompt: z.string(), negativePrompt: z.string() })
export type EncodeInput = z.infer<typeof EncodeInput>
/** `conditioning`: safetensors, `positive` and `negative`, [1, tokens, width] fp32. */
export const EncodeOutput = z.strictObject({ conditioning: Hash })
export type EncodeOutput = z.infer<typeof EncodeOutput>

/** One image: what its pixels depend on, and nothing else. */
export const ImageRequest = z.strictObject({
  model: Model,
  prompt: z.string(),
  negativePrompt: z.string(),
  width: z.int(),
  height: z.int(),
  steps: z.int(),
  guidance: z.number(),
  seed: z.int(),
  sampler: Sampler,
})
export type ImageRequest = z.infer<typeof ImageRequest>

/** `conditioning` is a hint: without it, or with a broken one, the prompt is encoded again. */
export const DenoiseInput = ImageRequest.extend({ conditioning: Hash.nullable() })
export type DenoiseInput = z.infer<typeof DenoiseInput>
/** `latents`: safetensors, [1, channels, height / scale, width / scale]. */
export const DenoiseOutput = z.strictObject({
  latents: Hash,
  exactness: z.strictObject({ key: z.string(), facts: z.record(z.string(), z.unknown()) }),
})
export type DenoiseOutput = z.infer<typeof DenoiseOutput>

export const DecodeInput = z.strictObject({ model: Model, width: z.int(), height: z.int(), latents: Hash })
export type DecodeInput = z.infer<typeof DecodeInput>
/** `pixels`: raw RGB, 8 bits each, row by row, width · height · 3 bytes. */
export const DecodeOutput = z.strictObject({ pixels: Hash, width: z.int(), height: z.int() })
export type DecodeOutput = z.infer<typeof DecodeOutput>
