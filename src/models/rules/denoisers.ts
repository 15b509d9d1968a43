/**
 * Networks that draw, one row a family and layout. Within a table the first row that fits is the verdict, so a row
 * that asks for more stands above one that asks for less.
 */
import { any, type Row, type VariantRow } from './match.ts'

const kind = 'diffusion-model' as const

/** Cross-attention of a UNet: the first block that listens to the text, and what it is called in each layout. */
const original1 = 'input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight'
const original4 = 'input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight'
const diffusers0 = 'down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight'
const diffusers1 = 'down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight'

const unetFigures = (input: string, context: string) => ({
  latentChannels: 4,
  inputChannels: [input, 1] as const,
  contextSize: [context, 1] as const,
  channels: [input, 0] as const,
})
const original = (context: string) => ({
  kind,
  dialect: 'original' as const,
  figures: unetFigures('input_blocks.0.0.weight', context),
})
const diffusers = (context: string) => ({
  kind,
  dialect: 'diffusers' as const,
  figures: unetFigures('conv_in.weight', context),
})

const kontext = 'Kontext and dev have the same tensors: only its name or its author tells them apart.'
const qwenEdit = 'Qwen-Image and its edit models have the same tensors: only its name or its author tells them apart.'
const zTurbo = 'Z-Image and its Turbo have the same tensors: only its name or its author tells them apart.'
const kleinBase = 'Klein and its undistilled base have the same tensors: only its name or its author tells them apart.'
const schnell = 'It has no input for guidance: it is schnell, or a dev from which the distillation was taken out.'
const largeTurbo = 'Large and Large Turbo have the same tensors: only its name or its author tells them apart.'

export const denoisers: readonly Row[] = [
  // UNets
  { ...original(original1), family: 'sd1', has: { 'input_blocks.0.0.weight': [320, any, 3, 3], [original1]: [320, 768] } },
  { ...diffusers(diffusers0), family: 'sd1', has: { 'conv_in.weight': [320, any, 3, 3], [diffusers0]: [320, 768] } },
  { ...original(original1), family: 'sd2', has: { 'input_blocks.0.0.weight': [320, any, 3, 3], [original1]: [320, 1024] } },
  { ...diffusers(diffusers0), family: 'sd2', has: { 'conv_in.weight': [320, any, 3, 3], [diffusers0]: [320, 1024] } },
  {
    ...original(original1),
    family: 'sd2',
    variants: ['upscaling'],
    has: { 'input_blocks.0.0.weight': [256, 7, 3, 3], 'label_emb.weight': [1000, any] },
  },
  {
    ...diffusers(diffusers1),
    family: 'sd2',
    variants: ['upscaling'],
    has: { 'conv_in.weight': [256, 7, 3, 3], 'class_embedding.weight': [1000, any] },
  },
  { ...original(original4), family: 'sdxl', has: { [original4]: [640, 2048], 'label_emb.0.0.weight': [1280, 2816] } },
  { ...diffusers(diffusers1), family: 'sdxl', has: { [diffusers1]: [640, 2048], 'add_embedding.linear_1.weight': [1280, 2816] } },
  {
    ...original(original4),
    family: 'sdxl',
    variants: ['refiner'],
    has: { [original4]: [768, 1280], 'label_emb.0.0.weight': [1536, 2560] },
  },
  {
    ...diffusers(diffusers1),
    family: 'sdxl',
    variants: ['refiner'],
    has: { [diffusers1]: [768, 1280], 'add_embedding.linear_1.weight': [1536, 2560] },
  },
  // Darkroom's own tiny family: the first block has no attention, and the text vectors have 96 numbers.
  {
    ...original('input_blocks.3.1.transformer_blocks.0.attn2.to_k.weight'),
    family: 'sd1',
    has: { 'input_blocks.0.0.weight': [32, any, 3, 3], 'input_blocks.3.1.transformer_blocks.0.attn2.to_k.weight': [64, 96] },
  },
  { ...diffusers(diffusers1), family: 'sd1', has: { 'conv_in.weight': [32, any, 3, 3], [diffusers1]: [64, 96] } },

  // Transformers
  {
    kind,
    family: 'chroma',
    dialect: 'original',
    has: { 'distilled_guidance_layer.in_proj.bias': [], 'double_blocks.0.img_attn.proj.bias': [3072] },
    figures: { latentChannels: 16, contextSize: 4096 },
  },
  {
    kind,
    family: 'chroma',
    dialect: 'diffusers',
    has: { 'distilled_guidance_layer.in_proj.bias': [], 'single_transformer_blocks.0.proj_mlp.bias': [] },
    figures: { latentChannels: 16, contextSize: 4096 },
  },
  {
    kind,
    family: 'flux2',
    dialect: 'original',
    has: { 'double_stream_modulation_img.lin.weight': [], 'single_stream_modulation.lin.weight': [], 'img_in.weight': [any, 128] },
    figures: { latentChannels: 32, inputChannels: 128, contextSize: ['txt_in.weight', 1], hiddenSize: ['img_in.weight', 0] },
  },
  {
    kind,
    family: 'flux2',
    dialect: 'diffusers',
    has: {
      'double_stream_modulation_img.linear.weight': [],
      'single_stream_modulation.linear.weight': [],
      'x_embedder.weight': [any, 128],
    },
    figures: { latentChannels: 32, inputChannels: 128, contextSize: ['context_embedder.weight', 1], hiddenSize: ['x_embedder.weight', 0] },
  },
  ...(['scale', 'weight'] as const).map((norm): Row => ({
    kind,
    family: 'flux1',
    dialect: 'original',
    has: { [`double_blocks.0.img_attn.norm.key_norm.${norm}`]: [128], 'vector_in.in_layer.bias': [3072], 'img_in.bias': [3072] },
    lacks: ['controlnet_blocks.0.weight', 'controlnet_blocks.0.linear.weight'],
    figures: { latentChannels: 16, inputChannels: ['img_in.weight', 1], contextSize: 4096 },
  })),
  {
    kind,
    family: 'flux1',
    dialect: 'diffusers',
    has: { 'x_embedder.bias': [3072], 'time_text_embed.text_embedder.linear_1.bias': [3072], 'context_embedder.weight': [3072, 4096] },
    lacks: ['controlnet_blocks.0.weight', 'controlnet_x_embedder.weight'],
    figures: { latentChannels: 16, inputChannels: ['x_embedder.weight', 1], contextSize: 4096 },
  },
  {
    kind,
    family: 'z-image',
    dialect: 'original',
    has: {
      'cap_embedder.1.bias': [3840],
      'noise_refiner.0.attention.k_norm.weight': [128],
      'layers.0.adaLN_modulation.0.weight': [15_360, 256],
    },
    figures: { latentChannels: 16, contextSize: ['cap_embedder.0.weight', 0], hiddenSize: 3840 },
    note: zTurbo,
  },
  {
    kind,
    family: 'z-image',
    dialect: 'diffusers',
    has: { 'all_x_embedder.2-1.bias': [3840], 'cap_embedder.1.bias': [3840], 'noise_refiner.0.attention.norm_k.weight': [128] },
    figures: { latentChannels: 16, contextSize: ['cap_embedder.0.weight', 0], hiddenSize: 3840 },
    note: zTurbo,
  },
  {
    kind,
    family: 'qwen-image',
    dialect: 'diffusers',
    has: { 'txt_norm.weight': [3584], 'img_in.bias': [3072], 'transformer_blocks.0.attn.norm_added_k.weight': [128] },
    lacks: ['controlnet_blocks.0.weight'],
    figures: { latentChannels: 16, contextSize: 3584, hiddenSize: 3072 },
    note: qwenEdit,
  },
  {
    kind,
    family: 'sd3',
    dialect: 'original',
    has: { 'x_embedder.proj.weight': [any, 16, 2, 2], 'joint_blocks.0.context_block.attn.qkv.bias': [], 'context_embedder.bias': [] },
    figures: { latentChannels: 16, contextSize: 4096, hiddenSize: ['x_embedder.proj.weight', 0] },
  },
  {
    kind,
    family: 'sd3',
    dialect: 'diffusers',
    has: { 'pos_embed.proj.weight': [any, 16, 2, 2], 'transformer_blocks.0.attn.add_q_proj.bias': [], 'context_embedder.bias': [] },
    lacks: ['controlnet_blocks.0.weight'],
    figures: { latentChannels: 16, contextSize: 4096, hiddenSize: ['pos_embed.proj.weight', 0] },
  },
  {
    kind,
    family: 'lumina2',
    dialect: 'original',
    has: { 'cap_embedder.1.bias': [2304], 'noise_refiner.0.attention.k_norm.weight': [] },
    figures: { latentChannels: 16, contextSize: 2304, hiddenSize: 2304 },
  },
  {
    kind,
    family: 'lumina2',
    dialect: 'diffusers',
    has: { 'time_caption_embed.caption_embedder.1.bias': [2304], 'noise_refiner.0.attn.norm_k.weight': [] },
    figures: { latentChannels: 16, contextSize: 2304, hiddenSize: 2304 },
  },
  {
    kind,
    family: 'sana',
    dialect: 'original',
    has: { 'blocks.0.cross_attn.q_linear.weight': [], 'blocks.0.cross_attn.kv_linear.weight': [], 'attention_y_norm.weight': [] },
    figures: { latentChannels: 32 },
  },
  {
    kind,
    family: 'pixart',
    dialect: 'original',
    has: { 't_block.1.weight': [], 'y_embedder.y_embedding': [], 'blocks.0.scale_shift_table': [] },
    figures: { latentChannels: 4, contextSize: 4096 },
  },
  {
    kind,
    family: 'auraflow',
    dialect: 'original',
    has: { 'double_layers.0.attn.w1q.weight': [], 'double_layers.0.attn.w2q.weight': [], 'cond_seq_linear.weight': [] },
    figures: { latentChannels: 4 },
  },
  {
    kind,
    family: 'hidream',
    dialect: 'original',
    has: { 'double_stream_blocks.0.block.adaLN_modulation.1.bias': [], 'caption_projection.0.linear.weight': [] },
    figures: { latentChannels: 16 },
  },
  { kind, family: 'cascade', dialect: 'original', has: { 'clip_txt_mapper.weight': [], 'clf.1.weight': [] } },
  { kind, family: 'cascade', dialect: 'original', has: { 'clip_mapper.weight': [], 'clf.1.weight': [] } },
  {
    kind,
    family: 'wan',
    dialect: 'original',
    has: { 'head.modulation': [], 'patch_embedding.weight': [], 'blocks.0.cross_attn.k.weight': [] },
  },
  {
    kind,
    family: 'hunyuan-video',
    dialect: 'original',
    has: { 'txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1.bias': [], 'double_blocks.0.img_attn_qkv.bias': [] },
  },
  {
    kind,
    family: 'hunyuan-video',
    dialect: 'original',
    has: { 'txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1.bias': [], 'double_blocks.0.img_attn.qkv.bias': [] },
  },
  {
    kind,
    family: 'ltx-video',
    dialect: 'original',
    has: {
      'patchify_proj.weight': [],
      'adaln_single.emb.timestep_embedder.linear_1.bias': [],
      'transformer_blocks.0.scale_shift_table': [],
    },
  },
]

const input = (channels: number) => [{ 'input_blocks.0.0.weight': [any, channels, 3, 3] }, { 'conv_in.weight': [any, channels, 3, 3] }]
const unets = ['sd1', 'sd2', 'sdxl'] as const

/** Within a family; every row that fits adds its variant. */
export const denoiserVariants: readonly VariantRow[] = [
  ...unets.flatMap((family): VariantRow[] => [
    ...input(9).map((has) => ({ family, variant: 'inpainting' as const, has })),
    ...input(8).map((has) => ({ family, variant: 'instruct' as const, has })),
    ...input(5).map((has) => ({ family, variant: 'control' as const, has })),
  ]),
  // SSD-1B, Vega and their kind: SDXL's deep blocks with fewer layers.
  {
    family: 'sdxl',
    variant: 'pruned',
    has: { 'label_emb.0.0.weight': [1280] },
    lacks: ['input_blocks.7.1.transformer_blocks.9.attn1.to_k.weight'],
  },
  {
    family: 'sdxl',
    variant: 'pruned',
    has: { [original4]: [640, 2048] },
    lacks: ['input_blocks.7.1.transformer_blocks.9.attn1.to_k.weight'],
  },
  {
    family: 'sdxl',
    variant: 'pruned',
    has: { [diffusers1]: [640, 2048] },
    lacks: ['down_blocks.2.attentions.0.transformer_blocks.9.attn1.to_k.weight'],
  },

  { family: 'sd3', variant: 'large', has: { 'x_embedder.proj.weight': [2432, 16, 2, 2] } },
  { family: 'sd3', variant: 'large', has: { 'pos_embed.proj.weight': [2432, 16, 2, 2] } },
  { family: 'sd3', variant: 'medium', has: { 'x_embedder.proj.weight': [1536, 16, 2, 2] } },
  { family: 'sd3', variant: 'medium', has: { 'pos_embed.proj.weight': [1536, 16, 2, 2] } },
  { family: 'sd3', variant: '3.5', has: { 'x_embedder.proj.weight': [2432, 16, 2, 2] } },
  { family: 'sd3', variant: '3.5', has: { 'pos_embed.proj.weight': [2432, 16, 2, 2] } },
  { family: 'sd3', variant: '3.5', has: { 'joint_blocks.0.x_block.attn2.qkv.weight': [] } },
  { family: 'sd3', variant: '3.5', has: { 'transformer_blocks.0.attn2.to_q.weight': [] } },

  { family: 'flux1', variant: 'guidance-distilled', has: { 'guidance_in.in_layer.bias': [] } },
  { family: 'flux1', variant: 'guidance-distilled', has: { 'time_text_embed.guidance_embedder.linear_1.bias': [] } },
  { family: 'flux1', variant: 'unguided', has: { 'img_in.bias': [] }, lacks: ['guidance_in.in_layer.bias'] },
  { family: 'flux1', variant: 'unguided', has: { 'x_embedder.bias': [] }, lacks: ['time_text_embed.guidance_embedder.linear_1.bias'] },
  { family: 'flux1', variant: 'fill', has: { 'img_in.weight': [3072, 384] } },
  { family: 'flux1', variant: 'fill', has: { 'x_embedder.weight': [3072, 384] } },
  { family: 'flux1', variant: 'control', has: { 'img_in.weight': [3072, 128] } },
  { family: 'flux1', variant: 'control', has: { 'x_embedder.weight': [3072, 128] } },
  { family: 'flux1', variant: 'pruned', has: { 'double_blocks.0.img_attn.proj.bias': [] }, lacks: ['double_blocks.18.img_attn.proj.bias'] },
  {
    family: 'flux1',
    variant: 'pruned',
    has: { 'transformer_blocks.0.attn.to_q.bias': [] },
    lacks: ['transformer_blocks.18.attn.to_q.bias'],
  },

  { family: 'flux2', variant: 'dev', has: { 'img_in.weight': [6144, 128] } },
  { family: 'flux2', variant: 'dev', has: { 'x_embedder.weight': [6144, 128] } },
  { family: 'flux2', variant: 'klein-9b', has: { 'img_in.weight': [4096, 128] } },
  { family: 'flux2', variant: 'klein-9b', has: { 'x_embedder.weight': [4096, 128] } },
  { family: 'flux2', variant: 'klein-4b', has: { 'img_in.weight': [3072, 128] } },
  { family: 'flux2', variant: 'klein-4b', has: { 'x_embedder.weight': [3072, 128] } },
  { family: 'flux2', variant: 'guidance-distilled', has: { 'guidance_in.in_layer.weight': [] } },
  { family: 'flux2', variant: 'guidance-distilled', has: { 'time_guidance_embed.guidance_embedder.linear_1.weight': [] } },
  // Every Flux.2 takes pictures beside the prompt.
  { family: 'flux2', variant: 'edit' },

  { family: 'z-image', variant: 'edit', has: { 'siglip_embedder.0.weight': [] } },
  // A mark that repacked edit models carry: reference pictures are at time 0.
  { family: 'qwen-image', variant: 'edit', has: { __index_timestep_zero__: [] } },
  { family: 'qwen-image', variant: 'layered', has: { 'time_text_embed.addition_t_embedding.weight': [] } },
]

/** Marks at the root of a file, beside the network: they say how it was trained. */
export const rootMarks = [
  ['v_pred', 'v-prediction'],
  ['ztsnr', 'zero-snr'],
  ['edm_mean', 'edm'],
  ['edm_vpred.sigma_max', 'edm'],
  ['edm_vpred.sigma_max', 'v-prediction'],
] as const

/** What the headers of a family and its variants leave open. */
export const openQuestions: readonly {
  family: Row['family']
  variant: VariantRow['variant']
  note: string
  unless?: VariantRow['variant'][]
}[] = [
  { family: 'flux1', variant: 'guidance-distilled', note: kontext, unless: ['fill', 'control'] },
  { family: 'flux1', variant: 'unguided', note: schnell },
  { family: 'flux2', variant: 'klein-4b', note: kleinBase },
  { family: 'flux2', variant: 'klein-9b', note: kleinBase },
  { family: 'sd3', variant: 'large', note: largeTurbo },
]
