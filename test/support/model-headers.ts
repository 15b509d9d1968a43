/** Headers as real models have them, cut down to the tensors that tell them apart, by what they are. */
import type { Tensors } from './headers.ts'

type Shape = readonly number[]

/** All tensors of one element type. */
export const of = (type: string, shapes: Record<string, Shape>): Tensors =>
  Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name, [type, shape] as const]))
export const under = (prefix: string, tensors: Tensors): Tensors =>
  Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [prefix + name, tensor]))

interface Unet {
  input?: number
  type?: string
  isLinear?: boolean
}
const attention = (at: string, hidden: number, context: number, isLinear: boolean): Record<string, Shape> => ({
  [`${at}.norm.weight`]: [hidden],
  [`${at}.proj_in.weight`]: isLinear ? [hidden, hidden] : [hidden, hidden, 1, 1],
  [`${at}.transformer_blocks.0.attn1.to_k.weight`]: [hidden, hidden],
  [`${at}.transformer_blocks.0.attn2.to_k.weight`]: [hidden, context],
})

export const unet = {
  original: {
    sd: (context: number, { input = 4, type = 'F16', isLinear = context === 1024 }: Unet = {}): Tensors =>
      of(type, {
        'time_embed.0.weight': [1280, 320],
        'input_blocks.0.0.weight': [320, input, 3, 3],
        ...attention('input_blocks.1.1', 320, context, isLinear),
        'out.2.weight': [4, 320, 3, 3],
      }),
    sdxl: ({ input = 4, type = 'F16', isLinear = true }: Unet = {}): Tensors =>
      of(type, {
        'input_blocks.0.0.weight': [320, input, 3, 3],
        ...attention('input_blocks.4.1', 640, 2048, isLinear),
        'input_blocks.7.1.transformer_blocks.9.attn1.to_k.weight': [1280, 1280],
        'label_emb.0.0.weight': [1280, 2816],
      }),
    refiner: (): Tensors =>
      of('F16', {
        'input_blocks.0.0.weight': [384, 4, 3, 3],
        ...attention('input_blocks.4.1', 768, 1280, true),
        'label_emb.0.0.weight': [1536, 2560],
      }),
    upscaler: (): Tensors => of('F16', { 'input_blocks.0.0.weight': [256, 7, 3, 3], 'label_emb.weight': [1000, 1024] }),
    tiny: (): Tensors => of('F16', { 'input_blocks.0.0.weight': [32, 4, 3, 3], ...attention('input_blocks.3.1', 64, 96, false) }),
  },
  diffusers: {
    sd: (context: number, { input = 4, isLinear = context === 1024 }: Unet = {}): Tensors =>
      of('F16', {
        'conv_in.weight': [320, input, 3, 3],
        ...attention('down_blocks.0.attentions.0', 320, context, isLinear),
        'conv_out.weight': [4, 320, 3, 3],
      }),
    sdxl: ({ input = 4 }: Unet = {}): Tensors =>
      of('F16', {
        'conv_in.weight': [320, input, 3, 3],
        ...attention('down_blocks.1.attentions.0', 640, 2048, true),
        'down_blocks.2.attentions.0.transformer_blocks.9.attn1.to_k.weight': [1280, 1280],
        'add_embedding.linear_1.weight': [1280, 2816],
      }),
    refiner: (): Tensors =>
      of('F16', {
        'conv_in.weight': [384, 4, 3, 3],
        ...attention('down_blocks.1.attentions.0', 768, 1280, true),
        'add_embedding.linear_1.weight': [1536, 2560],
      }),
    upscaler: (): Tensors => of('F16', { 'conv_in.weight': [256, 7, 3, 3], 'class_embedding.weight': [1000, 1024] }),
  },
}

interface Flux {
  isGuided?: boolean
  input?: number
  type?: string
  blocks?: number
}
export const transformer = {
  flux1: ({ isGuided = true, input = 64, type = 'BF16', blocks = 19 }: Flux = {}): Tensors =>
    of(type, {
      'img_in.weight': [3072, input],
      'img_in.bias': [3072],
      'txt_in.weight': [3072, 4096],
      'vector_in.in_layer.weight': [3072, 768],
      'vector_in.in_layer.bias': [3072],
      ...(isGuided && { 'guidance_in.in_layer.weight': [3072, 256], 'guidance_in.in_layer.bias': [3072] }),
      ...Object.fromEntries(
        Array.from({ length: blocks }, (_, i) => [
          [`double_blocks.${i}.img_attn.proj.bias`, [3072]],
          [`double_blocks.${i}.img_attn.norm.key_norm.scale`, [128]],
          [`double_blocks.${i}.img_attn.qkv.weight`, [9216, 3072]],
        ]).flat() as [string, Shape][],
      ),
    }),
  flux1Diffusers: ({ isGuided = true, input = 64 }: Flux = {}): Tensors =>
    of('BF16', {
      'x_embedder.weight': [3072, input],
      'x_embedder.bias': [3072],
      'context_embedder.weight': [3072, 4096],
      'time_text_embed.text_embedder.linear_1.bias': [3072],
      ...(isGuided && { 'time_text_embed.guidance_embedder.linear_1.bias': [3072] }),
      'transformer_blocks.0.attn.to_q.bias': [3072],
      'transformer_blocks.18.attn.to_q.bias': [3072],
    }),
  flux2: (hidden: number, context: number, isGuided = false): Tensors =>
    of('BF16', {
      'img_in.weight': [hidden, 128],
      'txt_in.weight': [hidden, context],
      'double_stream_modulation_img.lin.weight': [hidden * 6, hidden],
      'single_stream_modulation.lin.weight': [hidden * 3, hidden],
      'double_blocks.0.img_attn.norm.key_norm.scale': [128],
      ...(isGuided && { 'guidance_in.in_layer.weight': [hidden, 256] }),
    }),
  flux2Diffusers: (hidden: number, context: number): Tensors =>
    of('BF16', {
      'x_embedder.weight': [hidden, 128],
      'context_embedder.weight': [hidden, context],
      'double_stream_modulation_img.linear.weight': [hidden * 6, hidden],
      'single_stream_modulation.linear.weight': [hidden * 3, hidden],
    }),
  zImage: (): Tensors =>
    of('BF16', {
      'x_embedder.weight': [3840, 64],
      'cap_embedder.0.weight': [2560],
      'cap_embedder.1.weight': [3840, 2560],
      'cap_embedder.1.bias': [3840],
      'noise_refiner.0.attention.k_norm.weight': [128],
      'layers.0.adaLN_modulation.0.weight': [15_360, 256],
      'layers.0.attention.qkv.weight': [11_520, 3840],
    }),
  zImageDiffusers: (): Tensors =>
    of('BF16', {
      'all_x_embedder.2-1.weight': [3840, 64],
      'all_x_embedder.2-1.bias': [3840],
      'cap_embedder.0.weight': [2560],
      'cap_embedder.1.bias': [3840],
      'noise_refiner.0.attention.norm_k.weight': [128],
    }),
  qwenImage: (type = 'BF16'): Tensors =>
    of(type, {
      'img_in.weight': [3072, 64],
      'img_in.bias': [3072],
      'txt_in.weight': [3072, 3584],
      'txt_norm.weight': [3584],
      'transformer_blocks.0.attn.norm_added_k.weight': [128],
      'transformer_blocks.0.img_mod.1.weight': [18_432, 3072],
    }),
  sd3: (hidden: number, isDual = false): Tensors =>
    of('F16', {
      'x_embedder.proj.weight': [hidden, 16, 2, 2],
      'context_embedder.bias': [hidden],
      'joint_blocks.0.context_block.attn.qkv.bias': [hidden * 3],
      ...(isDual && { 'joint_blocks.0.x_block.attn2.qkv.weight': [hidden * 3, hidden] }),
    }),
  sd3Diffusers: (hidden: number, isDual = false): Tensors =>
    of('F16', {
      'pos_embed.proj.weight': [hidden, 16, 2, 2],
      'context_embedder.bias': [hidden],
      'transformer_blocks.0.attn.add_q_proj.bias': [hidden],
      ...(isDual && { 'transformer_blocks.0.attn2.to_q.weight': [hidden, hidden] }),
    }),
}

export const encoder = {
  /** CLIP's text encoders as transformers saves them. */
  clip: (hidden: number, layers: number, type = 'F16'): Tensors =>
    of(type, {
      'text_model.embeddings.token_embedding.weight': [49_408, hidden],
      'text_model.embeddings.position_embedding.weight': [77, hidden],
      [`text_model.encoder.layers.${layers - 1}.mlp.fc1.weight`]: [hidden * 4, hidden],
    }),
  /** The same as OpenCLIP trains them. */
  openClip: (hidden: number, layers: number): Tensors =>
    of('F16', {
      'token_embedding.weight': [49_408, hidden],
      'transformer.resblocks.0.mlp.c_fc.weight': [hidden * 4, hidden],
      [`transformer.resblocks.${layers - 2}.attn.in_proj_weight`]: [hidden * 3, hidden],
      [`transformer.resblocks.${layers - 1}.attn.in_proj_weight`]: [hidden * 3, hidden],
      text_projection: [hidden, hidden],
    }),
  t5: (type = 'F16'): Tensors =>
    of(type, { 'shared.weight': [32_128, 4096], 'encoder.block.23.layer.1.DenseReluDense.wi_1.weight': [10_240, 4096] }),
  language: (hidden: number, layers: number, key: number, norm?: 'query' | 'bias', prefix = 'model.'): Tensors =>
    of('BF16', {
      [`${prefix}embed_tokens.weight`]: [151_936, hidden],
      [`${prefix}layers.${layers - 1}.self_attn.k_proj.weight`]: [key, hidden],
      ...(norm === 'query' && { [`${prefix}layers.0.self_attn.q_norm.weight`]: [128] }),
      ...(norm === 'bias' && { [`${prefix}layers.0.self_attn.k_proj.bias`]: [key] }),
    }),
  vision: (hidden: number, layers: number): Tensors =>
    of('F16', {
      'vision_model.embeddings.patch_embedding.weight': [hidden, 3, 14, 14],
      [`vision_model.encoder.layers.${layers - 1}.layer_norm1.weight`]: [hidden],
    }),
}

export const vae = {
  original: (channels: number): Tensors =>
    of('F32', {
      'encoder.conv_in.weight': [128, 3, 3, 3],
      'decoder.conv_in.weight': [512, channels, 3, 3],
      'decoder.up.0.block.0.norm1.weight': [128],
      'decoder.conv_out.weight': [3, 128, 3, 3],
      ...(channels === 32 && { 'bn.running_mean': [128] }),
    }),
  diffusers: (channels: number): Tensors =>
    of('F32', {
      'encoder.conv_in.weight': [128, 3, 3, 3],
      'decoder.conv_in.weight': [512, channels, 3, 3],
      'decoder.up_blocks.0.resnets.0.norm1.weight': [512],
      'decoder.conv_out.weight': [3, 128, 3, 3],
      ...(channels === 32 && { 'bn.running_mean': [128] }),
    }),
  wan: (): Tensors => of('F32', { 'decoder.middle.0.residual.0.gamma': [384, 1, 1, 1], 'decoder.conv1.weight': [384, 16, 3, 3, 3] }),
  wanDiffusers: (): Tensors =>
    of('F32', { 'decoder.mid_block.resnets.0.norm1.gamma': [384, 1, 1, 1], 'decoder.conv_in.weight': [384, 16, 3, 3, 3] }),
}

/** Whole checkpoints, as people download them. */
export const checkpoint = {
  sd1: (options: Unet = {}): Tensors => ({
    ...under('model.diffusion_model.', unet.original.sd(768, options)),
    ...under('first_stage_model.', vae.original(4)),
    ...under('cond_stage_model.transformer.', encoder.clip(768, 12)),
    alphas_cumprod: ['F32', [1000]],
  }),
  sd2: (): Tensors => ({
    ...under('model.diffusion_model.', unet.original.sd(1024)),
    ...under('first_stage_model.', vae.original(4)),
    ...under('cond_stage_model.model.', encoder.openClip(1024, 24)),
  }),
  sdxl: (options: Unet = {}): Tensors => ({
    ...under('model.diffusion_model.', unet.original.sdxl(options)),
    ...under('first_stage_model.', vae.original(4)),
    ...under('conditioner.embedders.0.transformer.', encoder.clip(768, 12)),
    ...under('conditioner.embedders.1.model.', encoder.openClip(1280, 32)),
  }),
  refiner: (): Tensors => ({
    ...under('model.diffusion_model.', unet.original.refiner()),
    ...under('first_stage_model.', vae.original(4)),
    ...under('conditioner.embedders.0.model.', encoder.openClip(1280, 32)),
  }),
  sd3: (): Tensors => ({
    ...under('model.diffusion_model.', transformer.sd3(1536)),
    ...under('first_stage_model.', vae.original(16)),
    ...under('text_encoders.clip_l.transformer.', encoder.clip(768, 12)),
    ...under('text_encoders.clip_g.transformer.', encoder.clip(1280, 32)),
    ...under('text_encoders.t5xxl.transformer.', encoder.t5('F8_E4M3')),
  }),
  flux1: (): Tensors => ({
    ...under('model.diffusion_model.', transformer.flux1({ type: 'F8_E4M3' })),
    ...under('vae.', vae.original(16)),
    ...under('text_encoders.clip_l.transformer.', encoder.clip(768, 12)),
    ...under('text_encoders.t5xxl.transformer.', encoder.t5('F8_E4M3')),
  }),
}
