/** Networks that draw faces anew, by names of tensors that only they have. */
import type { Part } from './match.ts'

const named: readonly [architecture: string, ...names: string[]][] = [
  ['gfpgan', 'toRGB.0.weight', 'final_linear.weight', 'stylegan_decoder.style_mlp.1.weight'],
  // An autoencoder with a codebook, whose attention has several heads and so a second norm.
  ['restoreformer', 'quantize.embedding.weight', 'encoder.conv_in.weight', 'decoder.mid.attn_1.norm2.weight'],
]

/** Its architecture; undefined for what is none. */
export const restorerOf = (part: Part): string | undefined => named.find(([, ...all]) => all.every((name) => part.has(name)))?.[0]
