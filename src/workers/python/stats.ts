/** How a request to the Python child went: figures that end up in the receipt of its session. */
import { z } from 'zod'
import { Count, Fraction, MemoryProfile } from '../../domains/values.ts'
import { Seconds } from './described.ts'

/** Ways of the class `fast`. */
const fastWays = ['compile', 'step-cache', 'co-batch'] as const

/**
 * What of a text was read, counted in tokens; `droppedText` is the part that the dropped ones stand for. `chunks`: how
 * many windows of the text encoder it fills, where it may have any length; `parts`: its words by weight, where it has
 * weights.
 */
const Tokens = z.strictObject({
  read: Count,
  dropped: Count,
  droppedText: z.string(),
  chunks: Count.optional(),
  parts: z.array(z.strictObject({ text: z.string(), weight: z.number(), tokens: Count })).optional(),
})

/**
 * What a picture of the class `fast` used, and why not the rest. `functions`: compiled for it, of which `fromCache`
 * were found on disk. `computed`: passes through the network in which all blocks ran; `reused`: in which the first one
 * did. `calls` of `coBatch`: computed together with those of other pictures. `rows`: pictures that were drawn in one
 * pass, at most.
 */
export const FastUsed = z.strictObject({
  used: z.array(z.enum(fastWays)),
  notUsed: z.array(z.strictObject({ way: z.enum(fastWays), why: z.string() })),
  compile: z
    .strictObject({
      blocks: z.array(z.strictObject({ kind: z.string(), count: Count })),
      build: z.string(),
      functions: Count,
      fromCache: Count,
      seconds: Seconds,
    })
    .optional(),
  stepCache: z.strictObject({ threshold: Fraction, computed: Count, reused: Count }).optional(),
  coBatch: z.strictObject({ calls: Count }).optional(),
  rows: Count,
})

/** How a request went, for the receipt; a field that does not concern it is left out. */
export const Stats = z.strictObject({
  /** Seconds of the work, and of the load of its model before it; 0 when that was resident. */
  seconds: Seconds.optional(),
  loadS: Seconds.optional(),
  /** The most device memory that it took beyond the weights that were there; on a CPU, of the tensors that it names. */
  peakBytes: Count.optional(),
  /** Which memory profile it was asked for, and where that left the model's networks. */
  memory: z.strictObject({ profile: MemoryProfile, offload: z.enum(['none', 'component', 'blocks']) }).optional(),
  /** In how many pieces the autoencoder computed, 0 in none; or a network that enlarges. */
  tiles: Count.optional(),
  /** Denoise calls that were done here. */
  calls: Count.optional(),
  /** CUDA graphs that were recorded for them, and calls that were replays of one. */
  graphCaptures: Count.optional(),
  graphReplays: Count.optional(),
  /** Of a picture of the class `fast`. */
  fast: FastUsed.optional(),
  /** The call it began at. */
  resumedFrom: Count.optional(),
  /** Why a checkpoint was not used; null when none was refused. */
  checkpointRefused: z.string().nullable().optional(),
  /** Files that were given and could not be used, so that they were made again. */
  remade: z.array(z.string()).optional(),
  /** What was read of the texts, where they were encoded. */
  tokens: z.strictObject({ prompt: Tokens, negativePrompt: Tokens }).optional(),
})
export type Stats = z.infer<typeof Stats>
