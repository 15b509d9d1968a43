/** A tree of many model files: real headers, and bodies that take no room on the disk. */
import { mkdir, open } from 'node:fs/promises'
import { dirname, join } from 'node:path'

type Tensors = Record<string, number[]>

const lora: Tensors = Object.fromEntries(
  Array.from({ length: 12 }, (_, block) =>
    ['attn1_to_q', 'attn1_to_k', 'attn1_to_v', 'attn1_to_out_0', 'attn2_to_q', 'attn2_to_k', 'attn2_to_v', 'attn2_to_out_0'].flatMap(
      (part) => {
        const base = `lora_unet_down_blocks_${block % 4}_attentions_${block % 2}_transformer_blocks_${block}_${part}`
        return [
          [`${base}.lora_down.weight`, [16, 768]],
          [`${base}.lora_up.weight`, [768, 16]],
          [`${base}.alpha`, [1]],
        ] as [string, number[]][]
      },
    ),
  ).flat(),
)
const vae: Tensors = {
  'encoder.conv_in.weight': [128, 3, 3, 3],
  'decoder.conv_in.weight': [512, 4, 3, 3],
  'quant_conv.weight': [8, 8, 1, 1],
}
const embedding: Tensors = { emb_params: [8, 768] }
const upscaler: Tensors = {
  'conv_first.weight': [64, 3, 3, 3],
  'conv_first.bias': [64],
  'body.0.rdb1.conv1.weight': [32, 64, 3, 3],
  'conv_last.weight': [3, 64, 3, 3],
}
const checkpoint: Tensors = {
  'model.diffusion_model.input_blocks.0.0.weight': [320, 4, 3, 3],
  'first_stage_model.decoder.conv_in.weight': [512, 4, 3, 3],
  ...Object.fromEntries(
    Array.from({ length: 200 }, (_, i) => [
      `model.diffusion_model.input_blocks.${i % 12}.1.transformer_blocks.0.attn2.to_k.${i}.weight`,
      [320, 768],
    ]),
  ),
  'model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight': [640, 768],
}
const layouts: readonly [folder: string, tensors: Tensors][] = [
  ['loras', lora],
  ['loras/styles', lora],
  ['Lora/people', lora],
  ['vae', vae],
  ['embeddings', embedding],
  ['upscale_models', upscaler],
  ['checkpoints', checkpoint],
  ['Stable-diffusion/merges', checkpoint],
]

/** Writes `count` files, a hundred in a folder, and a broken one among fifty. Returns the path of the first. */
export async function writeTree(root: string, count: number): Promise<string> {
  let first = ''
  for (let i = 0; i < count; i++) {
    const [folder, tensors] = layouts[i % layouts.length] as (typeof layouts)[number]
    const path = join(root, folder, `group-${Math.floor(i / 800)}`, `model-${i}.safetensors`)
    first ||= path
    await mkdir(dirname(path), { recursive: true })
    await writeSparse(path, tensors, i % 50 === 49 ? -1 : 0)
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
