import { z } from 'zod'

const Hash = z.string().regex(/^[0-9a-f]{64}$/)

/** `request` is the image request alone: it goes into the file, so it holds nothing of the session. */
export const SaveInput = z.strictObject({
  pixels: Hash,
  width: z.int(),
  height: z.int(),
  request: z.strictObject({
    model: z.strictObject({ id: z.string(), bodyHash: Hash }),
    prompt: z.string(),
    negativePrompt: z.string(),
    width: z.int(),
    height: z.int(),
    steps: z.int(),
    guidance: z.number(),
    seed: z.int(),
    sampler: z.string(),
  }),
  exactness: z.strictObject({ key: z.string(), facts: z.record(z.string(), z.unknown()) }),
})
export type SaveInput = z.infer<typeof SaveInput>

export const SaveOutput = z.strictObject({
  sha256: Hash,
  mediaType: z.literal('image/png'),
  width: z.int(),
  height: z.int(),
  seed: z.int(),
  bytes: z.int(),
})
export type SaveOutput = z.infer<typeof SaveOutput>
