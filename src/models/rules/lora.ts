/**
 * LoRA and its kin: files that hold differences to the weights of another model. The family follows from which modules
 * they name and how large those are, in the names of kohya, diffusers, peft, ComfyUI and XLabs alike.
 */
import type { Algorithm, Dialect, KnownFamily } from '../verdict.ts'
import type { Weight } from './match.ts'

export interface Lora {
  algorithms: Algorithm[]
  dialect: Dialect
  /** Absent where the modules at hand fit several families. */
  family?: KnownFamily
  /** `denoiser`, `text_encoder`, `text_encoder_2` … */
  targets: string[]
  rank?: number
  contextSize?: number
  note?: string
}

type Role = 'down' | 'up' | 'whole'
/** What a word behind a module's name says: the algorithm, and what a matrix does in it. */
type Said = readonly [algorithm: Algorithm | undefined, role?: Role]
const words: ReadonlyMap<string, Said> = new Map<string, Said>([
  ['lora_down', ['lora', 'down']],
  ['lora_up', ['lora', 'up']],
  ['lora_mid', ['locon']],
  ['lora_A', ['lora', 'down']],
  ['lora_B', ['lora', 'up']],
  ['lora_embedding_A', ['lora', 'down']],
  ['lora_embedding_B', ['lora', 'up']],
  ['dora_scale', ['dora']],
  ['lora_magnitude_vector', ['dora']],
  ['hada_w1_a', ['loha', 'up']],
  ['hada_w1_b', ['loha', 'down']],
  ['hada_w2_a', ['loha']],
  ['hada_w2_b', ['loha']],
  ['hada_t1', ['loha']],
  ['hada_t2', ['loha']],
  ...['lokr_w1', 'lokr_w1_a', 'lokr_w1_b', 'lokr_w2', 'lokr_w2_a', 'lokr_w2_b', 'lokr_t2'].map((word) => [word, ['lokr']] as const),
  ...['oft_blocks', 'oft_diag', 'oft_R'].map((word) => [word, ['oft']] as const),
  ...['boft_R', 'boft_s'].map((word) => [word, ['boft']] as const),
  ...['a1', 'a2', 'b1', 'b2'].map((word) => [word, ['glora']] as const),
  ...['on_input', 'ia3_l'].map((word) => [word, ['ia3']] as const),
  ['diff', ['diff', 'whole']],
  ['diff_b', ['diff']],
  ['set_weight', ['diff', 'whole']],
  ['reshape_weight', ['diff']],
  ['w_norm', ['norm']],
  ['b_norm', ['norm']],
  ['alpha', [undefined]],
  ['rescale', [undefined]],
])
/** `to_q.lora.down`, `to_q_lora.down`, `to_q.lora_linear_layer.down`, `processor.qkv_lora1.down`; then `.weight`. */
const halves: ReadonlyMap<string, Role> = new Map([
  ['down', 'down'],
  ['up', 'up'],
])
const halved = /(?:\.lora|_lora|\.lora_linear_layer|\.processor\.(?:qkv|proj)_lora[12])$/

const prefixes: readonly [prefix: RegExp, target: string, dialect?: Dialect][] = [
  [/^lora_unet_|^lora_transformer_|^lycoris_/, 'denoiser', 'kohya'],
  [/^lora_te_|^lora_te1_/, 'text_encoder', 'kohya'],
  [/^lora_te2_/, 'text_encoder_2', 'kohya'],
  [/^lora_te3_/, 'text_encoder_3', 'kohya'],
  [/^lora_prior_(?:unet|te)_/, 'denoiser', 'kohya'],
  [/^unet\.|^transformer\./, 'denoiser', 'diffusers'],
  [/^text_encoder\.|^text_encoders?\.clip_l\.|^clip_l\./, 'text_encoder', 'diffusers'],
  [/^text_encoder_2\.|^text_encoders?\.clip_g\.|^clip_g\./, 'text_encoder_2', 'diffusers'],
  [/^text_encoder_3\.|^text_encoders?\.t5xxl\.|^t5xxl\./, 'text_encoder_3', 'diffusers'],
  [/^text_encoders\.\w+\./, 'text_encoder', 'diffusers'],
  [/^base_model\.model\.(?:text_model|encoder)\./, 'text_encoder', 'peft'],
  [/^base_model\.model\./, 'denoiser', 'peft'],
  [/^(?:model\.)?diffusion_model\./, 'denoiser', 'original'],
  [/^text_model\./, 'text_encoder', 'peft'],
]

/** A module's size, as far as its tensors tell. */
interface Sizes {
  in?: number
  out?: number
}

/** A module by its name, `_` for `.`, and its sizes; the first row that fits any module names the family. */
const families: readonly { family: KnownFamily; module: RegExp; in?: number; out?: number }[] = [
  ...(
    [
      ['sd1', 768],
      ['sd2', 1024],
      ['sdxl', 2048],
      // Darkroom's own tiny family.
      ['sd1', 96],
    ] as const
  ).map(([family, size]) => ({
    family,
    module: /(?:blocks_\d+_.*|middle_block_1_|mid_block_.*)transformer_blocks_\d+_attn2_to_[kv]$/,
    in: size,
  })),
  // Where no text layer is changed: SDXL's deep blocks have up to ten layers, and SD's first block has attention.
  {
    family: 'sdxl',
    module: /(?:down_blocks|up_blocks|mid_block|input_blocks|output_blocks|middle_block)_.*transformer_blocks_[2-9]_attn[12]_/,
  },
  { family: 'sd1', module: /^(?:unet_)?down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q$/, in: 64 },

  // HunyuanVideo names its blocks as Flux.1 does, and has 20 and 40 of them where Flux.1 has 19 and 38.
  { family: 'hunyuan-video', module: /(?:^|_)(?:double_blocks_19|single(?:_transformer)?_blocks_3[89])_/, in: 3072 },
  { family: 'hunyuan-video', module: /(?:^|_)double_blocks_\d+_(?:img|txt)_(?:mod_linear|mlp_fc1)$/ },
  { family: 'chroma', module: /(?:^|_)distilled_guidance_layer_/ },
  { family: 'flux1', module: /(?:^|_)double_blocks_\d+_(?:img|txt)_mod_lin$/ },
  { family: 'flux1', module: /(?:^|_)double_blocks_\d+_(?:img|txt)_mlp_0$/, out: 12_288 },
  { family: 'flux1', module: /(?:^|_)single_blocks_\d+_linear1$/, out: 21_504 },
  { family: 'flux1', module: /(?:^|_)single_blocks_\d+_linear2$/, in: 15_360 },
  { family: 'flux1', module: /(?:^|_)single_blocks_\d+_modulation_lin$/ },
  { family: 'flux1', module: /(?:^|_)double_blocks_18_/, in: 3072 },
  // XLabs names the block alone.
  { family: 'flux1', module: /^(?:double|single)_blocks_\d+$/, in: 3072 },
  { family: 'flux1', module: /single_transformer_blocks_\d+_(?:proj_mlp|norm_linear)$/, in: 3072 },
  { family: 'flux1', module: /single_transformer_blocks_\d+_proj_out$/, in: 15_360 },
  { family: 'flux1', module: /single_transformer_blocks_\d+_attn_to_[qkv]$/, in: 3072 },
  { family: 'flux1', module: /transformer_blocks_\d+_(?:norm1(?:_context)?_linear|ff_net_0_proj|ff_context_net_0_proj)$/, in: 3072 },
  ...[6144, 4096].map((size) => ({ family: 'flux2' as const, module: /(?:^|_)double_blocks_\d+_img_attn_(?:qkv|proj)$/, in: size })),
  ...[6144, 4096, 3072].flatMap((size) => [
    { family: 'flux2' as const, module: /(?:^|_)double_blocks_\d+_(?:img|txt)_mlp_0$/, in: size, out: size * 6 },
    { family: 'flux2' as const, module: /(?:^|_)single_blocks_\d+_linear1$/, in: size, out: size * 9 },
    { family: 'flux2' as const, module: /(?:^|_)single_blocks_\d+_linear2$/, in: size * 4, out: size },
    { family: 'flux2' as const, module: /transformer_blocks_\d+_attn_to_qkv_mlp_proj$/, in: size, out: size * 9 },
    { family: 'flux2' as const, module: /transformer_blocks_\d+_ff(?:_context)?_linear_in$/, in: size },
  ]),
  { family: 'qwen-image', module: /transformer_blocks_\d+_(?:img|txt)_(?:mod_1|mlp_net_0_proj|mlp_net_2)$/ },
  { family: 'qwen-image', module: /(?:^|_)transformer_blocks_[2-5]\d_attn_(?:to_|add_)/, in: 3072 },
  { family: 'z-image', module: /(?:^|_)(?:layers|noise_refiner|context_refiner)_\d+_(?:attention|feed_forward|adaLN)/, in: 3840 },
  { family: 'lumina2', module: /(?:^|_)(?:layers|noise_refiner|context_refiner)_\d+_(?:attention|feed_forward)/, in: 2304 },
  { family: 'sd3', module: /(?:^|_)joint_blocks_\d+_/ },
  ...[1536, 2432].map((size) => ({ family: 'sd3' as const, module: /(?:^|_)transformer_blocks_\d+_attn_(?:to_|add_)/, in: size })),
  { family: 'wan', module: /(?:^|_)blocks_\d+_(?:self|cross)_attn_[qkvo]$/ },

  // Text encoders alone.
  { family: 'sdxl', module: /^text_encoder_2_/, in: 1280 },
  { family: 'sd2', module: /^text_encoder_.*layers_\d+_(?:mlp_fc1|self_attn_\w+_proj)$/, in: 1024 },
]

export function loraOf(weights: ReadonlyMap<string, Weight>): Lora | undefined {
  const modules = new Map<string, Sizes>()
  const algorithms = new Set<Algorithm>()
  const targets = new Set<string>()
  const dialects = new Map<Dialect, number>()
  let [others, ours, rank] = [0, 0, 0]
  let hasConvolution = false
  /** By the name that a module has in the file. */
  const owners = new Map<string, Sizes>()
  const ownerOf = (owner: string, end: string): Sizes => {
    const { target, module } = placed(owner, dialects, end)
    targets.add(target)
    const key = `${target === 'denoiser' ? '' : `${target}_`}${module}`
    const sizes = modules.get(key) ?? {}
    modules.set(key, sizes)
    owners.set(owner, sizes)
    return sizes
  }
  for (const [name, { shape = [] }] of weights) {
    const found = endOf(name)
    if (!found) {
      others++
      continue
    }
    const [at, algorithm, role] = found
    if (!algorithm) continue
    ours++
    algorithms.add(algorithm)
    const owner = name.slice(0, at)
    const sizes = owners.get(owner) ?? ownerOf(owner, name.slice(at))
    if (role === 'down') {
      rank = Math.max(rank, shape[0] ?? 0)
      if (shape[1] !== undefined) sizes.in = shape[1]
      if ((shape[2] ?? 1) > 1) hasConvolution = true
    } else if (role === 'up' && shape[0] !== undefined) sizes.out = shape[0]
    else if (role === 'whole' && shape.length > 1) Object.assign(sizes, { out: shape[0], in: shape[1] })
    else kronecker(name.slice(at), shape, sizes)
  }
  // Checkpoints may carry a tensor or two that are named so; a LoRA consists of them.
  if (ours === 0 || others > ours) return undefined
  if (hasConvolution && algorithms.has('lora')) {
    algorithms.delete('lora')
    algorithms.add('locon')
  }
  if (algorithms.has('locon')) algorithms.delete('lora')
  const family = familyOf(modules, targets)
  const isChromaToo =
    family === 'flux1' && !Array.from(modules.keys()).some((module) => /mod_lin$|modulation_lin$|norm1?(?:_context)?_linear$/.test(module))
  const dialect = [...dialects].toSorted((a, b) => b[1] - a[1])[0]?.[0] ?? 'original'
  const contextSize = [...modules].find(([module]) => /attn2_to_[kv]$/.test(module))?.[1].in
  return {
    algorithms: [...algorithms].toSorted(),
    dialect,
    ...(family && { family }),
    targets: [...targets].toSorted(),
    ...(rank > 0 && { rank }),
    ...(contextSize !== undefined && { contextSize }),
    ...(isChromaToo && { note: 'Flux.1 and Chroma have the modules that it changes: its name or its author says for which it is.' }),
  }
}

/** Where the module's name ends, and what the rest says: one word, behind it `weight` or the name of an adapter. */
function endOf(name: string): [at: number, algorithm: Algorithm | undefined, role: Role | undefined] | undefined {
  let end = name.length
  for (let n = 0; n < 3; n++) {
    const at = name.lastIndexOf('.', end - 1)
    if (at === -1) return undefined
    const word = name.slice(at + 1, end)
    const known = words.get(word)
    if (known) return [at, known[0], known[1]]
    const half = halves.get(word)
    if (half) {
      const owner = name.slice(0, at)
      const rest = halved.exec(owner)
      return rest ? [rest.index, 'lora', half] : undefined
    }
    end = at
  }
  return undefined
}

/** The module behind a prefix, `_` for `.`, and which part of the model it belongs to. */
function placed(owner: string, dialects: Map<Dialect, number>, end: string): { target: string; module: string } {
  const [prefix, target, dialect] = prefixes.find(([pattern]) => pattern.test(owner)) ?? []
  const told: Dialect = end.includes('.processor.') ? 'xlabs' : (dialect ?? (end.includes('lora_A') ? 'peft' : 'original'))
  dialects.set(told, (dialects.get(told) ?? 0) + 1)
  const module = (prefix ? owner.replace(prefix, '') : owner).replaceAll('.', '_')
  // diffusers' first LoRAs belong to the processor of an attention: `…attn2.processor.to_k_lora.down.weight`.
  return { target: target ?? 'denoiser', module: module.replace('_processor_', '_').replace(/^(?:model_)?diffusion_model_/, '') }
}

/** A Kronecker product's sizes are the products of its factors'. */
function kronecker(end: string, shape: readonly number[], sizes: Sizes): void {
  const factor = /^\.lokr_w([12])(_[ab])?$/.exec(end)
  if (!factor) return
  const [, , half] = factor
  if (half !== '_b' && shape[0] !== undefined) sizes.out = (sizes.out ?? 1) * shape[0]
  if (half !== '_a' && shape[1] !== undefined) sizes.in = (sizes.in ?? 1) * shape[1]
}

function familyOf(modules: ReadonlyMap<string, Sizes>, targets: ReadonlySet<string>): KnownFamily | undefined {
  const all = [...modules]
  const row = families.find((rule) =>
    all.some(([module, sizes]) => (rule.in ?? sizes.in) === sizes.in && (rule.out ?? sizes.out) === sizes.out && rule.module.test(module)),
  )
  return row?.family ?? (targets.has('text_encoder_2') && !targets.has('text_encoder_3') ? 'sdxl' : undefined)
}
