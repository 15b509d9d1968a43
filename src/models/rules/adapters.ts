/** What steers a network that draws: ControlNets, T2I adapters, IP-Adapters. */
import { any, type Row } from './match.ts'
import type { KnownFamily } from '../verdict.ts'

type Net = Omit<Row, 'kind'>
const control = (row: Net): Row => ({ kind: 'controlnet', ...row })

/** UNets by where they first listen to the text: the block, its size, and the size of a text vector. */
const unets: readonly [family: KnownFamily, original: string, diffusers: string, hidden: number, context: number][] = [
  ['sd1', 'input_blocks.1.1', 'down_blocks.0.attentions.0', 320, 768],
  ['sd2', 'input_blocks.1.1', 'down_blocks.0.attentions.0', 320, 1024],
  ['sdxl', 'input_blocks.4.1', 'down_blocks.1.attentions.0', 640, 2048],
  // Darkroom's own tiny family.
  ['sd1', 'input_blocks.3.1', 'down_blocks.1.attentions.0', 64, 96],
]

/** Of Z-Image's first ControlNet, by which its configuration is known. */
export const zImageLayers = 6

const unetControls = unets.flatMap(([family, original, diffusers, hidden, context]): Row[] => {
  const listens = '.transformer_blocks.0.attn2.to_k.weight'
  return [
    ...['control_model.', ''].map((prefix) =>
      control({
        family,
        dialect: 'original',
        has: {
          [`${prefix}input_hint_block.0.weight`]: [],
          [`${prefix}zero_convs.0.0.weight`]: [],
          [`${prefix}${original}${listens}`]: [hidden, context],
        },
        figures: { contextSize: context, imageChannels: [`${prefix}input_hint_block.0.weight`, 1] },
      }),
    ),
    control({
      family,
      dialect: 'diffusers',
      variants: ['union'],
      has: {
        'controlnet_cond_embedding.conv_in.weight': [],
        'control_add_embedding.linear_1.bias': [],
        [`${diffusers}${listens}`]: [hidden, context],
      },
      figures: { contextSize: context, imageChannels: ['controlnet_cond_embedding.conv_in.weight', 1], modes: ['task_embedding', 0] },
    }),
    control({
      family,
      dialect: 'diffusers',
      has: { 'controlnet_cond_embedding.conv_in.weight': [], [`${diffusers}${listens}`]: [hidden, context] },
      figures: { contextSize: context, imageChannels: ['controlnet_cond_embedding.conv_in.weight', 1] },
    }),
  ]
})

export const controlRows: readonly Row[] = [
  ...unetControls,
  // The small ones of SDXL have no attention at all.
  control({
    family: 'sdxl',
    dialect: 'diffusers',
    has: { 'controlnet_cond_embedding.conv_in.weight': [], 'add_embedding.linear_1.weight': [1280, 2816] },
    figures: { imageChannels: ['controlnet_cond_embedding.conv_in.weight', 1] },
  }),
  // A ControlNet as the difference of low rank to the network itself.
  control({ family: 'sdxl', dialect: 'original', algorithms: ['lora'], has: { lora_controlnet: [], 'label_emb.0.0.down': [] } }),
  control({
    family: 'flux1',
    dialect: 'diffusers',
    variants: ['union'],
    has: {
      'controlnet_x_embedder.weight': [3072, any],
      'context_embedder.weight': [3072, 4096],
      'controlnet_mode_embedder.weight': [any, 3072],
    },
    figures: { contextSize: 4096, modes: ['controlnet_mode_embedder.weight', 0] },
  }),
  control({
    family: 'flux1',
    dialect: 'diffusers',
    variants: ['inpainting'],
    has: { 'controlnet_x_embedder.weight': [3072, 68], 'context_embedder.weight': [3072, 4096] },
    figures: { contextSize: 4096 },
  }),
  control({
    family: 'flux1',
    dialect: 'diffusers',
    has: { 'controlnet_x_embedder.weight': [3072, any], 'context_embedder.weight': [3072, 4096] },
    figures: { contextSize: 4096 },
  }),
  control({
    family: 'flux1',
    dialect: 'xlabs',
    has: { 'controlnet_blocks.0.weight': [], 'double_blocks.0.img_attn.norm.key_norm.scale': [128], 'input_hint_block.0.weight': [] },
    figures: { contextSize: 4096 },
  }),
  control({
    family: 'sd3',
    dialect: 'diffusers',
    variants: ['inpainting'],
    has: { 'controlnet_blocks.0.weight': [], 'pos_embed_input.proj.weight': [any, 17, 2, 2] },
  }),
  control({ family: 'sd3', dialect: 'diffusers', has: { 'controlnet_blocks.0.weight': [], 'pos_embed_input.proj.weight': [] } }),
  control({
    family: 'qwen-image',
    dialect: 'diffusers',
    variants: ['inpainting'],
    has: { 'controlnet_x_embedder.weight': [3072, 68], 'transformer_blocks.0.img_mlp.net.0.proj.weight': [] },
    figures: { contextSize: 3584 },
  }),
  control({
    family: 'qwen-image',
    dialect: 'diffusers',
    has: { 'controlnet_x_embedder.weight': [3072, any], 'transformer_blocks.0.img_mlp.net.0.proj.weight': [] },
    figures: { contextSize: 3584 },
  }),
  control({ family: 'qwen-image', dialect: 'original', has: { 'control_blocks.0.after_proj.weight': [], 'control_img_in.weight': [] } }),
  // Z-Image-Turbo-Fun-Controlnet-Union, the first: six layers, shown 16 channels of 2 · 2 cells. From 2.0 on no tensor
  // tells the versions apart, so no figure is said of them.
  control({
    family: 'z-image',
    dialect: 'diffusers',
    has: { 'control_all_x_embedder.2-1.weight': [3840, 64], 'control_layers.5.after_proj.weight': [] },
    lacks: ['control_layers.6.after_proj.weight', 'control_noise_refiner.0.after_proj.weight'],
    figures: { layers: zImageLayers },
  }),
  control({ family: 'z-image', dialect: 'diffusers', has: { 'control_all_x_embedder.2-1.weight': [3840, any] } }),
]

/** SD1's are fed with a picture folded 8 by 8, SDXL's 16 by 16, of one channel or three. */
const folded: readonly [family: KnownFamily, channels: number, imageChannels: number][] = [
  ['sd1', 64, 1],
  ['sd1', 192, 3],
  ['sdxl', 256, 1],
  ['sdxl', 768, 3],
]
export const t2iRows: readonly Row[] = [
  ...folded.flatMap(([family, channels, imageChannels]): Row[] => [
    {
      kind: 't2i-adapter',
      family,
      dialect: 'diffusers',
      has: { 'adapter.body.0.resnets.0.block1.weight': [], 'adapter.conv_in.weight': [any, channels, 3, 3] },
      figures: { imageChannels },
    },
    {
      kind: 't2i-adapter',
      family,
      dialect: 'original',
      has: { 'body.0.block1.weight': [], 'conv_in.weight': [any, channels, any, any] },
      figures: { imageChannels },
    },
    {
      kind: 't2i-adapter',
      family,
      dialect: 'diffusers',
      has: { 'adapter.body.0.resnets.0.block1.weight': [], 'adapter.body.0.in_conv.weight': [any, channels, any, any] },
      figures: { imageChannels },
    },
    {
      kind: 't2i-adapter',
      family,
      dialect: 'original',
      has: { 'body.0.in_conv.weight': [any, channels, any, any], 'body.0.body.0.block1.weight': [] },
      figures: { imageChannels },
    },
  ]),
  {
    kind: 't2i-adapter',
    family: 'sd1',
    variants: ['style'],
    dialect: 'original',
    has: { style_embedding: [1, any, 1024], 'transformer_layers.0.attn.in_proj_weight': [], proj: [1024, 768] },
  },
]

/** Families by the size of the text vectors beside which an IP-Adapter puts its own. */
const listeners: readonly [family: KnownFamily, key: string, hidden: number, context: number][] = [
  ['sd1', 'ip_adapter.1.to_k_ip.weight', 320, 768],
  ['sd2', 'ip_adapter.1.to_k_ip.weight', 320, 1024],
  ['sdxl', 'ip_adapter.1.to_k_ip.weight', 640, 2048],
  ['flux1', 'ip_adapter.0.to_k_ip.weight', 3072, 4096],
]
export const ipRows: readonly Row[] = [
  ...listeners.flatMap(([family, key, hidden, contextSize]): Row[] => [
    // The face's vector comes from a recogniser, with 512 numbers.
    {
      kind: 'ip-adapter',
      family,
      variants: ['face-id', 'plus'],
      dialect: 'original',
      has: { [key]: [hidden, contextSize], 'image_proj.perceiver_resampler.proj_in.weight': [] },
      figures: { contextSize },
    },
    {
      kind: 'ip-adapter',
      family,
      variants: ['face-id'],
      dialect: 'original',
      has: { [key]: [hidden, contextSize], 'image_proj.proj.0.weight': [any, 512] },
      figures: { contextSize },
    },
    {
      kind: 'ip-adapter',
      family,
      variants: ['plus'],
      dialect: 'original',
      has: { [key]: [hidden, contextSize], 'image_proj.latents': [] },
      figures: { contextSize, hiddenSize: ['image_proj.proj_in.weight', 1] },
    },
    {
      kind: 'ip-adapter',
      family,
      variants: ['face'],
      dialect: 'original',
      has: { [key]: [hidden, contextSize], 'image_proj.proj.3.weight': [] },
      figures: { contextSize },
    },
    {
      kind: 'ip-adapter',
      family,
      dialect: 'original',
      has: { [key]: [hidden, contextSize], 'image_proj.proj.weight': [] },
      figures: { contextSize, hiddenSize: ['image_proj.proj.weight', 1] },
    },
    { kind: 'ip-adapter', family, dialect: 'original', has: { [key]: [hidden, contextSize] }, figures: { contextSize } },
  ]),
  {
    kind: 'ip-adapter',
    family: 'flux1',
    dialect: 'xlabs',
    has: { 'double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight': [3072, 4096] },
    figures: { contextSize: 4096 },
  },
  {
    kind: 'ip-adapter',
    family: 'flux1',
    variants: ['redux'],
    dialect: 'original',
    has: { 'redux_up.weight': [12_288, 1152], 'redux_down.weight': [4096, 12_288] },
  },
]
