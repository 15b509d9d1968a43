/** A tree of many model files: real headers, and bodies that take no room on the disk. */
import { mkdir, open } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { gguf, writeImage, type Image, type Tensors as Header } from './headers.ts'
import * as headers from './model-headers.ts'

type Tensors = Record<string, number[]>

/** Of such blocks, each with these tensors below it. */
const blocks = (count: number, at: (i: number) => string, below: Tensors): Tensors =>
  Object.fromEntries(
    Array.from({ length: count }, (_, i) => Object.entries(below).map(([name, shape]) => [`${at(i)}.${name}`, shape] as const)).flat(),
  )
const shapesOf = (header: Header): Tensors => Object.fromEntries(Object.entries(header).map(([name, [, shape]]) => [name, [...shape]]))

/** What is in a transformer block of a UNet, and in one of CLIP's layers. */
const attention: Tensors = Object.fromEntries(
  [
    'attn1.to_q',
    'attn1.to_k',
    'attn1.to_v',
    'attn1.to_out.0',
    'attn2.to_q',
    'attn2.to_v',
    'attn2.to_out.0',
    'ff.net.2',
    'proj_out',
  ].flatMap((name): [string, number[]][] => [
    [`${name}.weight`, [320, 320]],
    [`${name}.bias`, [320]],
  ]),
)
const layer: Tensors = Object.fromEntries(
  ['self_attn.k_proj', 'self_attn.v_proj', 'self_attn.q_proj', 'self_attn.out_proj', 'mlp.fc2', 'layer_norm1', 'layer_norm2'].flatMap(
    (name): [string, number[]][] => [
      [`${name}.weight`, name.startsWith('layer') ? [768] : [768, 768]],
      [`${name}.bias`, [768]],
    ],
  ),
)
/** The tensors of a LoRA that kohya's scripts make of every attention of a UNet and of its text encoder. */
const lora: Tensors = {
  ...blocks(
    192,
    (i) => `lora_unet_down_blocks_${i % 4}_attentions_${i % 2}_transformer_blocks_0_attn${1 + (i % 2)}_to_${'qkv'[i % 3]}_${i}`,
    {
      'lora_down.weight': [16, 768],
      'lora_up.weight': [320, 16],
      alpha: [],
    },
  ),
  ...blocks(72, (i) => `lora_te_text_model_encoder_layers_${i % 12}_mlp_fc${1 + (i % 2)}_${i}`, {
    'lora_down.weight': [16, 768],
    'lora_up.weight': [768, 16],
    alpha: [],
  }),
  'lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight': [16, 768],
  'lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_up.weight': [320, 16],
}
const sd1: Tensors = {
  ...shapesOf(headers.checkpoint.sd1()),
  ...blocks(38, (i) => `model.diffusion_model.output_blocks.${i % 12}.${i}`, attention),
  ...blocks(11, (i) => `cond_stage_model.transformer.text_model.encoder.layers.${i}`, layer),
  ...blocks(14, (i) => `first_stage_model.decoder.up.${i}`, attention),
}
const vae: Tensors = { ...shapesOf(headers.vae.original(4)), ...blocks(13, (i) => `decoder.up.${i % 4}.block.${i}`, attention) }
const clip: Tensors = {
  ...shapesOf(headers.encoder.clip(768, 12)),
  ...blocks(11, (i) => `text_model.encoder.layers.${i}`, layer),
}
const flux: Tensors = {
  ...shapesOf(headers.transformer.flux1()),
  ...blocks(38, (i) => `single_blocks.${i}`, {
    'linear1.weight': [21_504, 3072],
    'linear2.weight': [3072, 15_360],
    'modulation.lin.weight': [9216, 3072],
  }),
  ...blocks(19, (i) => `double_blocks.${i}`, attention),
}
const control: Tensors = {
  'controlnet_cond_embedding.conv_in.weight': [16, 3, 3, 3],
  'down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight': [320, 768],
  ...blocks(18, (i) => `down_blocks.${i % 4}.attentions.${i}`, attention),
}
const upscaler: Tensors = {
  'conv_first.weight': [64, 3, 3, 3],
  'conv_last.weight': [3, 64, 3, 3],
  'conv_up1.weight': [64, 64, 3, 3],
  'conv_up2.weight': [64, 64, 3, 3],
  ...blocks(
    69,
    (i) => `body.${Math.floor(i / 3)}.rdb${1 + (i % 3)}`,
    Object.fromEntries(
      [1, 2, 3, 4, 5].flatMap((n): [string, number[]][] => [
        [`conv${n}.weight`, [32, 64, 3, 3]],
        [`conv${n}.bias`, [32]],
      ]),
    ),
  ),
}
const embedding: Tensors = { emb_params: [8, 768] }

/** Folders of people who draw: most of it LoRAs. */
const layouts: readonly [folder: string, tensors: Tensors, ending?: 'gguf'][] = [
  ...['loras', 'loras/styles', 'Lora/people'].flatMap((folder) => Array.from({ length: 3 }, () => [folder, lora] as [string, Tensors])),
  ['embeddings', embedding],
  ['embeddings/negative', embedding],
  ['checkpoints', sd1],
  ['Stable-diffusion/merges', sd1],
  ['vae', vae],
  ['controlnet', control],
  ['upscale_models', upscaler],
  ['text_encoders', clip],
  ['diffusion_models', flux],
  ['unet', flux, 'gguf'],
]

const packed = (tensors: Tensors, title: string): Image =>
  gguf({
    metadata: { 'general.architecture': 'flux', 'general.name': title },
    tensors: Object.fromEntries(Object.entries(tensors).map(([name, shape]) => [name, ['F16', shape] as const])),
  })

/** Writes `count` files, some fifty in a folder, and a broken one among fifty. Returns the path of the first. */
export async function writeTree(root: string, count: number): Promise<string> {
  let first = ''
  for (let i = 0; i < count; i++) {
    const [folder, tensors, ending = 'safetensors'] = layouts[i % layouts.length] as (typeof layouts)[number]
    const path = join(root, folder, `group-${Math.floor(i / 1000)}`, `model-${i}.${ending}`)
    first ||= path
    await mkdir(dirname(path), { recursive: true })
    if (ending === 'gguf') writeImage(path, packed(tensors, basename(path)))
    else await writeSparse(path, tensors, i % 50 === 49 ? -1 : 0)
  }
  return first
}

/** A safetensors file of these tensors in fp16; `more` bytes than there should be. */
export async function writeSparse(path: string, tensors: Tensors, more = 0): Promise<void> {
  let at = 0
  const entries = Object.entries(tensors).map(([name, shape]) => {
    const bytes = 2 * shape.reduce((product, side) => product * side, 1)
    return [name, { dtype: 'F16', shape, data_offsets: [at, (at += bytes)] }]
  })
  const header = Buffer.from(
    JSON.stringify({ __metadata__: { 'modelspec.title': path.split('/').at(-1) }, ...Object.fromEntries(entries) }),
  )
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(header.byteLength))
  const file = await open(path, 'w')
  try {
    await file.write(Buffer.concat([length, header]))
    await file.truncate(8 + header.byteLength + at + more)
  } finally {
    await file.close()
  }
}
