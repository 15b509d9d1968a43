/** Which parts a picture of a family needs: text encoders by name, and a VAE by the latents it must take. */
import type { Component, KnownFamily, Lack, TextEncoder, Variant } from './verdict.ts'

interface Needs {
  /** In the order in which diffusers numbers them. */
  encoders: readonly TextEncoder[]
  latentChannels: number
  /** What its pipeline's `model_index.json` says decides pictures. */
  readsIndex?: true
}

const needs: Partial<Record<KnownFamily, Needs>> = {
  sd1: { encoders: ['clip-l'], latentChannels: 4 },
  sd2: { encoders: ['clip-h'], latentChannels: 4 },
  sdxl: { encoders: ['clip-l', 'clip-g'], latentChannels: 4, readsIndex: true },
  sd3: { encoders: ['clip-l', 'clip-g', 't5-xxl'], latentChannels: 16 },
  flux1: { encoders: ['clip-l', 't5-xxl'], latentChannels: 16 },
  chroma: { encoders: ['t5-xxl'], latentChannels: 16 },
  'z-image': { encoders: ['qwen3-4b'], latentChannels: 16 },
  'qwen-image': { encoders: ['qwen2.5-vl-7b'], latentChannels: 16, readsIndex: true },
  lumina2: { encoders: ['gemma2-2b'], latentChannels: 16 },
}

/** Flux.2's encoder follows from its size. */
const flux2: readonly [variant: Variant, encoder: TextEncoder][] = [
  ['klein-4b', 'qwen3-4b'],
  ['klein-9b', 'qwen3-8b'],
  ['dev', 'mistral-small-24b'],
]

/** What a family needs; undefined where that is not known. `contextSize` tells Darkroom's tiny family from SD1. */
export function needsOf(family: KnownFamily, variants: readonly Variant[], contextSize?: number): Needs | undefined {
  if (family === 'flux2') {
    const encoder = flux2.find(([variant]) => variants.includes(variant))?.[1]
    return encoder && { encoders: [encoder], latentChannels: 32 }
  }
  if (family === 'sdxl' && variants.includes('refiner')) return { encoders: ['clip-g'], latentChannels: 4, readsIndex: true }
  if (family === 'sd1' && contextSize === 96) return { encoders: ['darkroom-tiny'], latentChannels: 4 }
  return needs[family]
}

/** diffusers counts encoders from the first without a number; the refiner has the second alone. */
export const encoderName = (at: number, isRefiner = false): string =>
  at === 0 && !isRefiner ? 'text_encoder' : `text_encoder_${isRefiner ? 2 : at + 1}`

export function lacksOf(family: KnownFamily, variants: readonly Variant[], components: readonly Component[], contextSize?: number): Lack[] {
  const needed = needsOf(family, variants, contextSize)
  if (!needed) return []
  const isRefiner = variants.includes('refiner')
  const encoders = needed.encoders.flatMap((encoder, i): Lack[] =>
    components.some((component) => component.encoder === encoder)
      ? []
      : [{ name: encoderName(i, isRefiner), kind: 'text-encoder', encoder }],
  )
  const hasVae = components.some(({ kind }) => kind === 'vae')
  return [...encoders, ...(hasVae ? [] : [{ name: 'vae', kind: 'vae' as const, latentChannels: needed.latentChannels }])]
}
