/**
 * Networks that enlarge pictures. How many times follows from shapes, so these are functions rather than rows: each
 * takes a part and says what it is, or nothing.
 */
import type { Part, Weight } from './match.ts'

export interface Upscaler {
  architecture: string
  /** Absent where the network's shapes do not tell. */
  factor?: number
  imageChannels?: number
}

/** Some files keep the weights, and the better averaged weights, under a name of their own. */
export const upscalerPrefixes = ['params_ema.', 'params.', 'module.', ''] as const

/** Numbers that stand where `pattern` has its group, in names behind the part's prefix; sorted. */
function numbered(part: Part, weights: ReadonlyMap<string, Weight>, pattern: RegExp): number[] {
  const numbers: number[] = []
  for (const name of weights.keys()) {
    const found = name.startsWith(part.prefix) ? pattern.exec(name.slice(part.prefix.length))?.[1] : undefined
    if (found !== undefined) numbers.push(Number(found))
  }
  return numbers.toSorted((a, b) => a - b)
}

/** A picture that goes in folded `n` by `n` has `n * n` times the channels, and comes out that much less enlarged. */
function folded(channelsIn: number, channelsOut: number, factor: number): number | undefined {
  const fold = Math.sqrt(channelsIn / channelsOut)
  return Number.isInteger(fold) && factor % fold === 0 ? factor / fold : undefined
}

const withFactor = (architecture: string, factor: number | undefined, imageChannels: number): Upscaler => ({
  architecture,
  ...(factor !== undefined && { factor }),
  imageChannels,
})

/** RRDB networks as BasicSR names them: two doublings, a third where there is a third convolution. */
function esrgan(part: Part): Upscaler | undefined {
  const isNew = part.has('body.0.rdb1.conv1.weight') && part.has('conv_up1.weight')
  const isFirst = part.has('RRDB_trunk.0.RDB1.conv1.weight') && part.has('upconv1.weight')
  const [first, last] = [part.shape('conv_first.weight'), part.shape('conv_last.weight')]
  if ((!isNew && !isFirst) || first?.length !== 4 || last?.length !== 4) return undefined
  const doublings = ['conv_up1', 'conv_up2', 'conv_up3', 'upconv1', 'upconv2', 'upconv3'].filter((name) => part.has(`${name}.weight`))
  const [channelsIn, channelsOut] = [first[1] ?? 0, last[0] ?? 0]
  return withFactor('esrgan', folded(channelsIn, channelsOut, 2 ** doublings.length), channelsOut)
}

/** RRDB networks as ESRGAN named them first: one sequence, in which all but the last two convolutions double. */
function esrganOld(part: Part, weights: ReadonlyMap<string, Weight>): Upscaler | undefined {
  const first = part.shape('model.0.weight')
  if (!part.has('model.1.sub.0.RDB1.conv1.0.weight') || first?.length !== 4) return undefined
  const convolutions = numbered(part, weights, /^model\.(\d{1,2})\.weight$/).filter((n) => n > 1)
  const last = part.shape(`model.${convolutions.at(-1)}.weight`)
  if (convolutions.length < 2 || last?.length !== 4) return undefined
  const [channelsIn, channelsOut] = [first[1] ?? 0, last[0] ?? 0]
  return withFactor('esrgan-old', folded(channelsIn, channelsOut, 2 ** (convolutions.length - 2)), channelsOut)
}

/** Compact: convolutions and their PReLUs in one sequence, the last unfolded into the larger picture. */
function compact(part: Part, weights: ReadonlyMap<string, Weight>): Upscaler | undefined {
  const first = part.shape('body.0.weight')
  if (first?.length !== 4 || part.shape('body.1.weight')?.length !== 1) return undefined
  const last = part.shape(`body.${numbered(part, weights, /^body\.(\d{1,3})\.weight$/).at(-1)}.weight`)
  if (last?.length !== 4) return undefined
  const [channels, unfolded] = [first[1] ?? 0, last[0] ?? 0]
  const factor = Math.sqrt(unfolded / channels)
  return withFactor('compact', Number.isInteger(factor) ? factor : undefined, channels)
}

/** Others by a name that only they have. */
const named: readonly [architecture: string, ...names: string[]][] = [
  ['hat', 'layers.0.residual_group.overlap_attn.relative_position_bias_table', 'conv_first.weight'],
  ['swinir', 'layers.0.residual_group.blocks.0.attn.relative_position_bias_table', 'conv_first.weight'],
  ['dat', 'layers.0.blocks.0.attn.attns.0.rpe_biases', 'conv_first.weight'],
  ['span', 'block_1.c1_r.sk.weight', 'conv_1.sk.weight'],
]

export function upscalerOf(part: Part, weights: ReadonlyMap<string, Weight>): Upscaler | undefined {
  const other = named.find(([, ...all]) => all.every((name) => part.has(name)))
  return esrgan(part) ?? esrganOld(part, weights) ?? compact(part, weights) ?? (other && { architecture: other[0] })
}
