/** Values that several domains speak of, each declared once. */
import { z } from 'zod'

/** A whole number from 0 on. */
export const Count = z.int().min(0)
/** How many bytes, at least one. */
export const Bytes = z.int().min(1)
/** A share, 0 to 1. */
export const Fraction = z.number().min(0).max(1)

/** Milliseconds since 1970. The HTTP API knows it by its mark and shows it as ISO 8601 text. */
export const Instant = Object.assign(z.int().min(0), { isInstant: true } as const)

/** SHA-256 as 64 hex digits in lower case; the name of an artifact. */
export const Sha256 = z.string().regex(/^[0-9a-f]{64}$/)
/** CRC-32 (IEEE 802.3) as 8 hex digits in lower case. */
export const Crc32 = z.string().regex(/^[0-9a-f]{8}$/)

/** A model as a client names it. */
export const ModelName = z.string().min(1).max(200).describe('name of the model')

/** A model as a session is pinned to it: its name and the SHA-256 of its body. */
export const ModelPin = z.strictObject({ id: z.string(), bodyHash: Sha256 })
export type ModelPin = z.infer<typeof ModelPin>

/** A model as it is asked for: its body hash is null until it has been hashed, and any body of that name will do. */
export const WantedModel = z.strictObject({ id: z.string(), bodyHash: Sha256.nullable() })
export type WantedModel = z.infer<typeof WantedModel>

/** One worker of one device, in one epoch: whom a command is for. What it speaks of goes when the epoch ends. */
export const Target = z.strictObject({ device: z.string(), worker: z.string(), epoch: z.string() })
export type Target = z.infer<typeof Target>

/** `<deviceId>.<first 8 hex of the device epoch>.<n>`: unique in the farm, and never used twice. */
export const AllocationId = z
  .string()
  .regex(/^[a-z0-9-]{1,120}\.[0-9a-f]{8}\.\d{1,15}$/, 'must be the id of an allocation, as GET /v1/memory/allocations gives it')

/** The parts of an allocation's id; `epoch` is the first 8 hex digits of the device epoch. */
export function splitAllocationId(id: string): { device: string; epoch: string; n: number } {
  const [device = '', epoch = '', n] = id.split('.')
  return { device, epoch, n: Number(n) }
}

/** What decides the bits of a picture: equal keys, equal bytes. `facts` is what the key is the hash of. */
export const Exactness = z.strictObject({ key: z.string(), facts: z.record(z.string(), z.unknown()) })
export type Exactness = z.infer<typeof Exactness>

/** Samplers by their usual names; Python's table is compared with this one by a test. */
export const samplers = ['Euler', 'Euler a', 'DPM++ 2M', 'DPM++ 2M Karras', 'DDIM', 'UniPC', 'Heun', 'LCM'] as const
export const Sampler = z.enum(samplers)

/**
 * Where the noise of an image begins: any whole number that JSON and JavaScript hold exactly. PyTorch's generator on
 * the CPU, which draws it on every device, starts from the low 32 bits: seeds that differ by a multiple of 2^32 draw
 * one picture, as in diffusers and ComfyUI (`init_with_uint32` in ATen/core/MT19937RNGEngine.h).
 */
export const maxSeed = Number.MAX_SAFE_INTEGER
export const Seed = z.int().min(0).max(maxSeed, `must be at most 2^53 - 1, which is ${maxSeed}`)

/** Pixels of an image's side. */
const Side = z.int().min(8).multipleOf(8)

/** One image: what its pixels depend on, and nothing else. */
export const ImageRequest = z.strictObject({
  model: ModelPin,
  prompt: z.string(),
  negativePrompt: z.string(),
  width: Side,
  height: Side,
  steps: z.int().min(1),
  guidance: z.number(),
  seed: Seed,
  sampler: Sampler,
})
export type ImageRequest = z.infer<typeof ImageRequest>

/** A picture as an artifact: what a workflow hands out, and what the API puts a link beside. */
export const ImageRef = z.strictObject({
  sha256: Sha256,
  mediaType: z.literal('image/png'),
  width: z.int(),
  height: z.int(),
  seed: Seed,
  bytes: z.int(),
})
export type ImageRef = z.infer<typeof ImageRef>
