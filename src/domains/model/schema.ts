import { z } from 'zod'

/** A model as a session is pinned to it: a display name and the hash of its body. */
export const ModelPin = z.strictObject({ id: z.string(), bodyHash: z.string().regex(/^[0-9a-f]{64}$/) })
export type ModelPin = z.infer<typeof ModelPin>

export const ResolveInput = z.strictObject({ model: ModelPin })
export type ResolveInput = z.infer<typeof ResolveInput>

export const ResolveOutput = z.strictObject({ model: ModelPin, family: z.string() })
export type ResolveOutput = z.infer<typeof ResolveOutput>
