/** What the Python child says of itself: what it is, once, and how it fares, with every heartbeat. */
import { z } from 'zod'
import { ResidentPart } from '../../domains/memory/figures/report.ts'
import { loadable } from '../../models/families.ts'
import { Count } from '../../domains/values.ts'

export const protocolVersion = 1

export const Seconds = z.number().min(0)

const Facts = z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.null()]))

/** What the child is, once its imports are done: everything that decides the bits of an image, and what it can run. */
export const Ready = z.strictObject({
  protocol: z.literal(protocolVersion),
  pid: z.int().min(1),
  build: z.strictObject({
    python: z.string(),
    torch: z.string(),
    diffusers: z.string(),
    transformers: z.string(),
    tokenizers: z.string(),
    safetensors: z.string(),
    numerics: z.int(),
  }),
  hardware: z.strictObject({
    kind: z.string(),
    name: z.string(),
    uuid: z.string().nullable(),
    index: Count,
    capability: z.string().nullable(),
    driver: z.string().nullable(),
    totalBytes: Count.nullable(),
    arch: z.string(),
    vector: z.string(),
    math: z.string(),
    threads: z.int().min(1),
  }),
  settings: z.strictObject({
    /** Of UNets, and where it differs of transformers with flow matching. */
    dtype: z.string(),
    transformer: z.string().optional(),
    /** Whose kernels compute group norms and gated units on a GPU: `darkroom` or `torch`. */
    kernels: z.string().optional(),
    attention: z.string(),
    deterministic: z.boolean(),
    tf32: z.boolean(),
    /** How the autoencoder computes, where that differs from all else. */
    vae: z.string().optional(),
    /** How the text encoders of UNets compute, likewise. */
    text: z.string().optional(),
    tiling: z.boolean(),
    offload: z.string(),
  }),
  /** Of the class `fast`: why it compiles nothing, and why what it compiles is not kept; null where it does and is. */
  fast: z.strictObject({ why: z.string().nullable(), uncached: z.string().nullable() }),
  /**
   * Of build, hardware and settings: what decides the bits of a picture, as Python compares it; the exactness key is
   * made of it.
   */
  facts: z.record(z.enum(['hardware', 'build', 'settings']), Facts),
})
export type Ready = z.infer<typeof Ready>

/** The child's own figures, every 2 s and on request. */
export const Heartbeat = z.strictObject({
  uptimeS: Seconds,
  rssBytes: Count,
  /** Bytes its allocator holds on the device; null where there is no device but the CPU. */
  deviceBytes: Count.nullable(),
  /** The part of them that is in tensors; null likewise. */
  allocatedBytes: Count.nullable(),
  /** What the device thread does now; `advancedS` is how long ago it last got on with it. */
  busy: z.strictObject({ requestId: z.string(), action: z.string(), call: Count.nullable(), advancedS: Seconds }).nullable(),
  /** Session id → bytes of tensors held for it. */
  sessions: z.record(z.string(), Count),
  /** The resident models, the one used longest ago first. Idle: no request uses it or waits for it. */
  models: z.array(
    z.strictObject({
      id: z.string(),
      family: z.enum(loadable),
      bytes: Count,
      isIdle: z.boolean(),
      usedS: Seconds,
      /** Its networks that are on the device. */
      parts: z.array(ResidentPart.required()),
    }),
  ),
})
export type Heartbeat = z.infer<typeof Heartbeat>
