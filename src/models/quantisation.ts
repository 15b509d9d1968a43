/**
 * How weights are packed: which tensors are weights and which belong to their packing, the shape a packed weight
 * stands for, and the scheme by its name. All from names, element types and shapes.
 */
import type { Header, Tensor } from './header.ts'
import type { Weight } from './rules/match.ts'
import type { Precision, Quantisation, Verdict } from './verdict.ts'

const precisionsByType: ReadonlyMap<string, Precision> = new Map(
  Object.entries({
    F64: 'fp64',
    F32: 'fp32',
    F16: 'fp16',
    BF16: 'bf16',
    F8_E4M3: 'fp8-e4m3',
    F8_E5M2: 'fp8-e5m2',
    I8: 'int8',
  }),
)
/** Types of GGUF's blocks that are made numbers of (`python/darkroom/ggml_blocks.py`). */
export const unpackable: readonly string[] = [
  'Q4_0',
  'Q4_1',
  'Q5_0',
  'Q5_1',
  'Q8_0',
  'Q2_K',
  'Q3_K',
  'Q4_K',
  'Q5_K',
  'Q6_K',
  'IQ4_NL',
  'IQ4_XS',
]

/** Types that are numbers as they lie there. */
export const plainTypes: readonly string[] = ['F64', 'F32', 'F16', 'BF16']

/** A packing as people name it: `gguf Q4_K`, `bnb-nf4`, `fp8-scaled float8_e4m3fn`. */
export const packingName = ({ scheme, type }: Quantisation): string => (scheme.endsWith(type) ? scheme : `${scheme} ${type}`)

/** Of a model's files, with the packing of the network that draws: `diffusers`, `gguf Q4_K`, `safetensors bnb-nf4`. */
export function formatName({ format, components, quantisation }: Pick<Verdict, 'format' | 'components' | 'quantisation'>): string {
  const packed = components.find(({ kind }) => kind === 'diffusion-model')?.quantisation ?? quantisation
  if (!packed) return format
  return packed.scheme === format ? packingName(packed) : `${format} ${packingName(packed)}`
}

const types8 = new Map([
  ['F8_E4M3', 'float8_e4m3fn'],
  ['F8_E5M2', 'float8_e5m2'],
])

/** Ends of names that belong to the packing of the weight before them. */
const companions = [
  '.scale_weight',
  '.scale_input',
  '.weight_scale',
  '.weight_scale_2',
  '.weight_scale_inv',
  '.input_scale',
  '.comfy_quant',
  '.absmax',
  '.quant_map',
  '.nested_absmax',
  '.nested_quant_map',
  '.quant_state.bitsandbytes__nf4',
  '.quant_state.bitsandbytes__fp4',
  '.SCB',
  '.weight_format',
  '.wscales',
  '.wzeros',
  '.smooth_factor',
  '.smooth_factor_orig',
  '.qzeros',
  '.scales',
  '.g_idx',
  '._scale',
  '._zeropoint',
  '.weight_s_rel',
  '.weight_s_channel',
  '.weight_codebook',
] as const
type Companion = (typeof companions)[number]

/** Companions by their last word, so that a name is looked up once. */
const byLastWord = new Map(companions.map((end) => [end.slice(end.lastIndexOf('.') + 1), end]))
function companionOf(name: string): Companion | undefined {
  // As nearly all are named.
  if (name.endsWith('.weight') || name.endsWith('.bias')) return undefined
  const end = byLastWord.get(name.slice(name.lastIndexOf('.') + 1))
  return end !== undefined && name.endsWith(end) ? end : undefined
}
/** What lies beside a packed weight. */
type Companions = ReadonlyMap<Companion, Tensor>

/** Tensors that say how a file is to be read, and counters and tables that libraries saved beside the weights. */
const noWeights =
  /^(?:scaled_fp8|v_pred|ztsnr|edm_.*|position_ids|num_batches_tracked|logit_scale|inv_freq|alphas_cumprod.*|betas|log_.*|sqrt_.*|posterior_.*|__.*__)$/
/** Whether it counts among the weights; by the last word of its name, which is `weight` or `bias` of nearly all. */
function isWeight(name: string): boolean {
  if (name.startsWith('model_ema.')) return false
  if (name.endsWith('.weight') || name.endsWith('.bias')) return true
  return !noWeights.test(name.slice(name.lastIndexOf('.') + 1)) && !name.startsWith('edm_')
}

export interface Unpacked {
  /** Every tensor that is a weight or a mark, by its name. */
  readonly weights: ReadonlyMap<string, Weight>
  /** Sums over the weights whose names begin with `prefix`. */
  sum(prefix: string): { parameters: number; bytes: number; precision?: Precision; quantisation?: Quantisation }
}

export function unpack(header: Header, isGguf: boolean): Unpacked {
  const owned = new Map<string, Map<Companion, Tensor>>()
  for (const [name, tensor] of header.tensors) {
    const companion = isGguf ? undefined : companionOf(name)
    if (!companion) continue
    // `x.scale_weight` and `x.weight_scale` belong to `x.weight`, `x.weight.absmax` to the name before it.
    const owner = name.slice(0, -companion.length)
    const known = owned.get(owner)
    if (known) known.set(companion, tensor)
    else owned.set(owner, new Map([[companion, tensor]]))
  }
  const weights = owned.size === 0 && !isGguf ? header.tensors : weightsOf(header, owned)
  return {
    weights,
    sum: (prefix) => ({
      ...summed(weights, owned, prefix, { isGguf, hasMark: header.tensors.has('scaled_fp8') || header.tensors.has(`${prefix}scaled_fp8`) }),
      bytes: bytesOf(header, prefix),
    }),
  }
}

/** Of all tensors, scales and marks too: they are loaded as well. */
function bytesOf({ tensors }: Header, prefix: string): number {
  let bytes = 0
  for (const [name, tensor] of tensors) if (name.startsWith(prefix)) bytes += tensor.bytes
  return bytes
}

/** The tensors without the companions, in the shapes that they stand for. */
function weightsOf({ tensors, metadata }: Header, owned: ReadonlyMap<string, Companions>): Map<string, Weight> {
  const weights = new Map<string, Weight>()
  for (const [name, tensor] of tensors) {
    if (owned.size > 0 && companionOf(name)) continue
    weights.set(name, weightOf(tensor, companionsOf(owned, name), metadata.get(`comfy.gguf.orig_shape.${name}`)))
  }
  return weights
}

const companionsOf = (owned: ReadonlyMap<string, Companions>, name: string): Companions | undefined =>
  owned.size === 0 ? undefined : (owned.get(name) ?? owned.get(name.replace(/\.q?weight$/, '')))

/** The weight a tensor stands for: two of 4 bits in a byte, and bitsandbytes flattens its own. */
function weightOf(tensor: Tensor, companions: Companions | undefined, original: string | undefined): Weight {
  const { shape, count } = tensor
  if (original !== undefined) {
    const numbers = original.split(',').map(Number)
    if (numbers.every(Number.isInteger) && numbers.reduce((a, b) => a * b, 1) === count) return { ...tensor, shape: numbers }
  }
  if (!companions || tensor.type !== 'U8') return tensor
  if (companions.has('.absmax') || companions.has('.quant_map')) return { ...tensor, shape: undefined, count: count * 2 }
  if (companions.has('.weight_scale_2')) return { ...tensor, shape: [...shape.slice(0, -1), (shape.at(-1) ?? 0) * 2], count: count * 2 }
  return tensor
}

function summed(
  weights: ReadonlyMap<string, Weight>,
  owned: ReadonlyMap<string, Companions>,
  prefix: string,
  { isGguf, hasMark }: { isGguf: boolean; hasMark: boolean },
): Omit<ReturnType<Unpacked['sum']>, 'bytes'> {
  let parameters = 0
  const byType = new Map<string, number>()
  const schemes = new Map<string, { bytes: number; quantisation: Quantisation }>()
  for (const [name, tensor] of weights) {
    if (!name.startsWith(prefix)) continue
    if (!isWeight(name)) continue
    parameters += tensor.count
    byType.set(tensor.type, (byType.get(tensor.type) ?? 0) + tensor.bytes)
    const quantisation: Quantisation | undefined = isGguf
      ? { scheme: 'gguf', type: tensor.type }
      : schemeOf(tensor, companionsOf(owned, name), hasMark)
    if (!quantisation) continue
    const key = `${quantisation.scheme} ${quantisation.type} ${quantisation.scales}`
    const known = schemes.get(key)
    if (known) known.bytes += tensor.bytes
    else schemes.set(key, { bytes: tensor.bytes, quantisation })
  }
  const type = greatest(byType, (value) => value)?.[0]
  // Of GGUF what is packed is told, however many convolutions and norms are not.
  const packed = new Map([...schemes].filter(([, { quantisation }]) => !plainTypes.includes(quantisation.type)))
  const scheme = greatest(packed.size > 0 ? packed : schemes, (value) => value.bytes)?.[1].quantisation
  const precision =
    type === undefined ? undefined : (packedPrecision(scheme, type) ?? precisionsByType.get(type) ?? (isGguf ? undefined : 'other'))
  return { parameters, ...(precision && { precision }), ...(scheme && { quantisation: scheme }) }
}

function greatest<V>(map: ReadonlyMap<string, V>, weigh: (value: V) => number): [string, V] | undefined {
  let best: [string, V] | undefined
  for (const entry of map) if (!best || weigh(entry[1]) > weigh(best[1])) best = entry
  return best
}

/** The element type inside bytes whose own type says nothing. */
function packedPrecision(scheme: Quantisation | undefined, type: string): Precision | undefined {
  if (type !== 'U8' && type !== 'I8') return undefined
  const packed: Partial<Record<Quantisation['scheme'], Precision>> = { 'bnb-nf4': 'nf4', 'bnb-fp4': 'fp4', nvfp4: 'fp4', svdquant: 'int4' }
  return scheme && packed[scheme.scheme]
}

/** How many weights share a scale: all of a tensor, those of an output, or a block of them. */
function per(tensor: Weight, scale: Tensor): Pick<Quantisation, 'per'> {
  const { count } = scale
  if (count === 1) return { per: 'tensor' }
  return { per: count === tensor.shape?.[0] ? 'row' : 'block' }
}

/** How one tensor is packed, by its element type and what lies beside it. */
function schemeOf(tensor: Weight, companions: Companions | undefined, hasMark: boolean): Quantisation | undefined {
  const { type } = tensor
  const float8 = types8.get(type)
  // A mark alone: scales are 1 where none is written.
  if (!companions) return float8 === undefined ? undefined : { scheme: hasMark ? 'fp8-scaled' : 'fp8', type: float8 }
  if (companions.has('.quant_state.bitsandbytes__nf4')) return { scheme: 'bnb-nf4', type: 'nf4', scales: 'absmax' }
  if (companions.has('.quant_state.bitsandbytes__fp4')) return { scheme: 'bnb-fp4', type: 'fp4', scales: 'absmax' }
  if (companions.has('.SCB')) return { scheme: 'bnb-int8', type: 'int8', scales: 'SCB' }
  if (companions.has('.wscales')) return { scheme: 'svdquant', type, scales: 'wscales' }
  if (float8 !== undefined) {
    if (companions.has('.weight_scale_inv')) return { scheme: 'unknown', type: float8, scales: 'weight_scale_inv' }
    const scale = companions.get('.weight_scale')
    if (scale?.type === 'U8' || scale?.type === 'F8_E8M0') return { scheme: 'mxfp8', type: 'mxfp8', scales: 'weight_scale', per: 'block' }
    if (scale) return { scheme: 'fp8-scaled', type: float8, scales: 'weight_scale', ...per(tensor, scale) }
    const earlier = companions.get('.scale_weight')
    if (earlier) return { scheme: 'fp8-scaled', type: float8, scales: 'scale_weight', ...per(tensor, earlier) }
    if (companions.has('._scale')) return { scheme: 'unknown', type: float8, scales: '_scale' }
    return { scheme: hasMark ? 'fp8-scaled' : 'fp8', type: float8 }
  }
  if (type === 'U8' && companions.has('.weight_scale_2')) return { scheme: 'nvfp4', type: 'nvfp4', scales: 'weight_scale', per: 'block' }
  if (type === 'I8' && companions.has('.weight_scale')) return { scheme: 'int8', type: 'int8_tensorwise', scales: 'weight_scale' }
  const scales = companions.keys().next().value
  if (type === 'U8' || type === 'I8' || type === 'I32' || type === 'F4')
    return scales === undefined ? undefined : { scheme: 'unknown', type, scales: scales.slice(1) }
  return undefined
}
