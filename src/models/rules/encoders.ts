/** What turns words and pictures into vectors, latents into pictures, pictures into labels. */
import { any, type Row } from './match.ts'
import type { TextEncoder } from '../verdict.ts'

type Encoder = Omit<Row, 'kind' | 'encoder'>
const text = (encoder: TextEncoder, row: Encoder): Row => ({ kind: 'text-encoder', encoder, ...row })

/** CLIP's text encoders by the size of their vectors: layers, and the size of the layer behind. */
const clips: readonly [encoder: TextEncoder, hidden: number, layers: number][] = [
  ['clip-l', 768, 12],
  ['clip-h', 1024, 23],
  ['clip-g', 1280, 32],
]

/** `clip-h` is used without its last layer, so some files keep 23 of its 24. */
const clipRows = clips.flatMap(([encoder, hidden, layers]): Row[] => [
  // Up to version 5.5 of transformers the layers stand under `text_model.`, later not.
  ...['text_model.', ''].map((prefix) =>
    text(encoder, {
      dialect: 'transformers',
      has: {
        [`${prefix}embeddings.token_embedding.weight`]: [any, hidden],
        [`${prefix}encoder.layers.${layers - 1}.mlp.fc1.weight`]: [hidden * 4, hidden],
      },
      lacks: [`${prefix}encoder.layers.${layers === 23 ? 24 : layers}.mlp.fc1.weight`],
      figures: { hiddenSize: hidden, layers },
    }),
  ),
  // As OpenCLIP trains them, `text_projection` and the attention of q, k and v in one matrix.
  text(encoder, {
    dialect: 'open-clip',
    has: {
      'transformer.resblocks.0.mlp.c_fc.weight': [hidden * 4, hidden],
      [`transformer.resblocks.${layers - 1}.attn.in_proj_weight`]: [hidden * 3, hidden],
    },
    figures: { hiddenSize: hidden, layers },
  }),
])

/** T5's encoders by the inner size of their last layer. */
const t5 = (encoder: TextEncoder, last: number, hidden: number, inner: number, vocabulary: number): Row[] => [
  text(encoder, {
    dialect: 'transformers',
    has: { 'shared.weight': [vocabulary, hidden], [`encoder.block.${last}.layer.1.DenseReluDense.wi_1.weight`]: [inner, hidden] },
    figures: { hiddenSize: hidden, layers: last + 1 },
  }),
  // Some files leave the table of words out of `shared` and keep it under its second name.
  text(encoder, {
    dialect: 'transformers',
    has: {
      'encoder.embed_tokens.weight': [vocabulary, hidden],
      [`encoder.block.${last}.layer.1.DenseReluDense.wi_1.weight`]: [inner, hidden],
    },
    figures: { hiddenSize: hidden, layers: last + 1 },
  }),
  // As llama.cpp names them.
  text(encoder, {
    dialect: 'llama',
    has: { 'token_embd.weight': [vocabulary, hidden], [`enc.blk.${last}.ffn_up.weight`]: [inner, hidden] },
    figures: { hiddenSize: hidden, layers: last + 1 },
  }),
]

/** Language models by their layers: vectors, and what tells two of one size apart. */
const language = (
  encoder: TextEncoder,
  { hidden, layers, key, norm }: { hidden: number; layers: number; key: number; norm?: 'query' | 'bias' },
): Row[] => [
  ...['model.', 'model.language_model.', 'language_model.model.', ''].map((prefix) => {
    const attention = (i: number) => `${prefix}layers.${i}.self_attn`
    return text(encoder, {
      dialect: 'transformers',
      has: {
        [`${prefix}embed_tokens.weight`]: [any, hidden],
        [`${attention(layers - 1)}.k_proj.weight`]: [key, hidden],
        ...(norm === 'query' && { [`${attention(0)}.q_norm.weight`]: [128] }),
        ...(norm === 'bias' && { [`${attention(0)}.k_proj.bias`]: [key] }),
      },
      lacks: [`${attention(layers)}.k_proj.weight`, ...(norm === 'query' ? [] : [`${attention(0)}.q_norm.weight`])],
      figures: { hiddenSize: hidden, layers },
    })
  }),
  text(encoder, {
    dialect: 'llama',
    has: {
      'token_embd.weight': [any, hidden],
      [`blk.${layers - 1}.attn_k.weight`]: [key, hidden],
      ...(norm === 'query' && { 'blk.0.attn_q_norm.weight': [128] }),
      ...(norm === 'bias' && { 'blk.0.attn_k.bias': [key] }),
    },
    lacks: [`blk.${layers}.attn_k.weight`, ...(norm === 'query' ? [] : ['blk.0.attn_q_norm.weight'])],
    figures: { hiddenSize: hidden, layers },
  }),
]

export const textEncoderRows: readonly Row[] = [
  ...clipRows,
  // Darkroom's own tiny family.
  text('darkroom-tiny', {
    dialect: 'transformers',
    family: 'sd1',
    has: { 'text_model.embeddings.token_embedding.weight': [1024, 96], 'text_model.encoder.layers.2.mlp.fc1.weight': [384, 96] },
    figures: { hiddenSize: 96, layers: 3 },
  }),
  ...t5('t5-xxl', 23, 4096, 10_240, 32_128),
  ...t5('umt5-xxl', 23, 4096, 10_240, 256_384),
  ...t5('t5-xl', 23, 2048, 5120, 32_128),
  ...language('qwen2.5-vl-7b', { hidden: 3584, layers: 28, key: 512, norm: 'bias' }),
  ...language('qwen3-4b', { hidden: 2560, layers: 36, key: 1024, norm: 'query' }),
  ...language('qwen3-8b', { hidden: 4096, layers: 36, key: 1024, norm: 'query' }),
  ...language('mistral-small-24b', { hidden: 5120, layers: 40, key: 1024 }),
  // Flux.2 takes its vectors from layers up to the 30th, so files for it may end there.
  ...language('mistral-small-24b', { hidden: 5120, layers: 30, key: 1024 }),
  ...language('llama3-8b', { hidden: 4096, layers: 32, key: 1024 }),
  ...language('gemma2-2b', { hidden: 2304, layers: 26, key: 1024 }),
]

/** CLIP and SigLIP vision towers: the size of their vectors and how many layers. */
const towers: readonly [architecture: string, hidden: number, layers: number][] = [
  ['clip-vit-l', 1024, 24],
  ['clip-vit-h', 1280, 32],
  ['clip-vit-g', 1664, 48],
  ['siglip-so400m', 1152, 27],
]
export const visionRows: readonly Row[] = towers.flatMap(([architecture, hidden, layers]): Row[] => [
  // Later versions of transformers leave the prefix out.
  ...['vision_model.', ''].map((prefix): Row => ({
    kind: 'clip-vision',
    architecture,
    dialect: 'transformers',
    has: {
      [`${prefix}embeddings.patch_embedding.weight`]: [hidden, 3, any, any],
      [`${prefix}encoder.layers.${layers - 1}.layer_norm1.weight`]: [hidden],
    },
    lacks: ['text_model.encoder.layers.0.mlp.fc1.weight', `${prefix}encoder.layers.${layers}.layer_norm1.weight`, 'classifier.weight'],
    figures: { hiddenSize: hidden, layers },
  })),
  {
    kind: 'clip-vision',
    architecture,
    dialect: 'open-clip',
    has: { [`visual.transformer.resblocks.${layers - 1}.ln_1.weight`]: [hidden] },
    lacks: ['transformer.resblocks.0.ln_1.weight', `visual.transformer.resblocks.${layers}.ln_1.weight`],
    figures: { hiddenSize: hidden, layers },
  },
])

const four = 'SD1, SD2 and SDXL have VAEs of one shape: only its name or its author says for which it is.'
const sixteen = 'SD3, Flux.1 and Z-Image have VAEs of one shape: only its name or its author says for which it is.'
const wan = 'Qwen-Image and Wan have VAEs of one shape.'

const vae = (row: Omit<Row, 'kind'>): Row => ({ kind: 'vae', ...row })
export const vaeRows: readonly Row[] = [
  ...(
    [
      ['diffusers', 'decoder.up_blocks.0.resnets.0.norm1.weight'],
      ['original', 'decoder.up.0.block.0.norm1.weight'],
    ] as const
  ).flatMap(([dialect, block]): Row[] => [
    vae({
      dialect,
      family: 'flux2',
      has: { 'decoder.conv_in.weight': [512, 32, 3, 3], 'bn.running_mean': [128], [block]: [] },
      figures: { latentChannels: 32, imageChannels: 3, channels: ['decoder.conv_in.weight', 0] },
    }),
    vae({
      dialect,
      family: 'sd1',
      has: { 'decoder.conv_in.weight': [64, 4, 3, 3], [block]: [] },
      figures: { latentChannels: 4, imageChannels: ['decoder.conv_out.weight', 0], channels: ['decoder.conv_in.weight', 0] },
    }),
    vae({
      dialect,
      has: { 'decoder.conv_in.weight': [512, 4, 3, 3], [block]: [] },
      figures: { latentChannels: 4, imageChannels: ['decoder.conv_out.weight', 0], channels: ['decoder.conv_in.weight', 0] },
      note: four,
    }),
    vae({
      dialect,
      has: { 'decoder.conv_in.weight': [512, 16, 3, 3], [block]: [] },
      figures: { latentChannels: 16, imageChannels: ['decoder.conv_out.weight', 0], channels: ['decoder.conv_in.weight', 0] },
      note: sixteen,
    }),
  ]),
  vae({
    dialect: 'original',
    has: { 'decoder.middle.0.residual.0.gamma': [384], 'decoder.conv1.weight': [384, 16, 3, 3, 3] },
    figures: { latentChannels: 16, imageChannels: 3 },
    note: wan,
  }),
  vae({
    dialect: 'diffusers',
    has: { 'decoder.mid_block.resnets.0.norm1.gamma': [384], 'decoder.conv_in.weight': [384, 16, 3, 3, 3] },
    figures: { latentChannels: 16, imageChannels: 3 },
    note: wan,
  }),
  // TAESD and its kin, for previews.
  vae({
    dialect: 'diffusers',
    variants: ['tiny'],
    has: { 'decoder.layers.0.weight': [64, any, 3, 3], 'encoder.layers.0.weight': [64, 3, 3, 3] },
    figures: { latentChannels: ['decoder.layers.0.weight', 1], imageChannels: 3 },
  }),
  vae({
    dialect: 'original',
    variants: ['tiny'],
    has: { '1.weight': [64, any, 3, 3], '3.conv.0.weight': [64, 64, 3, 3] },
    figures: { latentChannels: ['1.weight', 1], imageChannels: 3 },
  }),
]

/** Image classifiers of transformers: the network's name, and a head of as many rows as there are labels. */
const classifiers: readonly [architecture: string, body: string, head: string][] = [
  ['vit', 'vit.embeddings.cls_token', 'classifier.weight'],
  ['deit', 'deit.embeddings.cls_token', 'classifier.weight'],
  ['beit', 'beit.embeddings.cls_token', 'classifier.weight'],
  ['swin', 'swin.embeddings.patch_embeddings.projection.weight', 'classifier.weight'],
  ['convnext', 'convnext.embeddings.patch_embeddings.weight', 'classifier.weight'],
  ['convnextv2', 'convnextv2.embeddings.patch_embeddings.weight', 'classifier.weight'],
  ['resnet', 'resnet.embedder.embedder.convolution.weight', 'classifier.1.weight'],
  ['siglip', 'vision_model.embeddings.patch_embedding.weight', 'classifier.weight'],
  ['stable-diffusion-safety-checker', 'special_care_embeds', 'concept_embeds'],
]
export const classifierRows: readonly Row[] = classifiers.map(([architecture, body, head]) => ({
  kind: 'classifier',
  architecture,
  dialect: 'transformers',
  has: { [body]: [], [head]: [] },
  figures: { labels: [head, 0] },
}))
