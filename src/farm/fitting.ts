/**
 * How a model and a picture fit into a device's memory under the profile `auto`: every way, in the order in which the
 * child goes down (`python/darkroom/profiles.py`). Pure.
 */
import type { Component } from '../models/verdict.ts'

/** Where the networks are: all on the device, one at a time, or block by block. */
export type Offload = 'none' | 'component' | 'blocks'

export interface Load {
  /** Weights as they compute, bytes, one part at least. */
  parts: readonly { kind: Component['kind']; bytes: number }[]
  /** What is computed beside them, bytes: a call of the network, a decode of the whole picture, and of a tile. */
  working: { denoise: number; decode: number; tile: number }
}

export interface Fit {
  offload: Offload
  /** Whether the picture is decoded in tiles, which moves bits. */
  inTiles: boolean
  /** At the highest. */
  bytes: number
}

/** Of a network in blocks what is on the device: what is in no block, and two of at most a sixteenth. */
const shareInBlocks = 1 / 4

/** Every way, the fastest first. On a CPU blocks would save nothing: what waits is in the same memory. */
export function waysOf({ parts, working }: Load, isCpu: boolean): [Fit, ...Fit[]] {
  const all = parts.reduce((sum, { bytes }) => sum + bytes, 0)
  const inTurn = (share: number, decode: number): number =>
    Math.max(
      ...parts.map(
        ({ kind, bytes }) =>
          bytes * (kind === 'vae' ? 1 : share) + (kind === 'diffusion-model' ? working.denoise : kind === 'vae' ? decode : 0),
      ),
    )
  const tile = Math.min(working.tile, working.decode)
  const whole: Fit = { offload: 'none', inTiles: false, bytes: all + Math.max(working.denoise, working.decode) }
  // Of a model whose parts nobody knows nothing else can be reckoned.
  if (!parts.some(({ kind }) => kind === 'diffusion-model')) return [whole]
  return [
    whole,
    { offload: 'component', inTiles: false, bytes: inTurn(1, working.decode) },
    { offload: 'component', inTiles: true, bytes: inTurn(1, tile) },
    ...(isCpu ? [] : [{ offload: 'blocks' as const, inTiles: true, bytes: inTurn(shareInBlocks, tile) }]),
  ]
}
