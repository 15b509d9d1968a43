/** darkroom-tiny as others keep models: one file in the layout of the first Stable Diffusion, parts of it, shards. */
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { root } from '../../src/config.ts'

export const tiny = join(root, 'models', 'darkroom-tiny')

interface Tensor {
  dtype: string
  shape: number[]
  bytes: Buffer
}
export type Tensors = Record<string, Tensor>

export async function readTensors(path: string): Promise<Tensors> {
  const file = await readFile(path)
  const length = Number(file.readBigUInt64LE())
  const header = JSON.parse(file.toString('utf8', 8, 8 + length)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >
  const entries = Object.entries(header).filter(([name]) => name !== '__metadata__')
  return Object.fromEntries(
    entries.map(
      ([
        name,
        {
          dtype,
          shape,
          data_offsets: [begin, end],
        },
      ]) => [name, { dtype, shape, bytes: file.subarray(8 + length + begin, 8 + length + end) }],
    ),
  )
}

export async function writeTensors(path: string, tensors: Tensors): Promise<void> {
  let at = 0
  const header = Object.fromEntries(
    Object.entries(tensors).map(([name, { dtype, shape, bytes }]) => [
      name,
      { dtype, shape, data_offsets: [at, (at += bytes.byteLength)] },
    ]),
  )
  const text = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(text.byteLength))
  await writeFile(path, Buffer.concat([length, text, ...Object.values(tensors).map(({ bytes }) => bytes)]))
}

/** Names in the original layout, from those of diffusers: applied in their order. */
type Rules = readonly (readonly [from: RegExp, to: string | ((...found: string[]) => string)])[]

/** Of a UNet whose blocks have one layer each; its last up block has no attention. */
const unetRules: Rules = [
  [/^time_embedding\.linear_(\d)/, (_, n = '') => `time_embed.${2 * Number(n) - 2}`],
  [/^conv_in/, 'input_blocks.0.0'],
  [/^conv_norm_out/, 'out.0'],
  [/^conv_out/, 'out.2'],
  [/^down_blocks\.(\d)\.resnets\.(\d)/, (_, block = '', layer = '') => `input_blocks.${1 + 2 * Number(block) + Number(layer)}.0`],
  [/^down_blocks\.(\d)\.attentions\.(\d)/, (_, block = '', layer = '') => `input_blocks.${1 + 2 * Number(block) + Number(layer)}.1`],
  [/^down_blocks\.(\d)\.downsamplers\.0\.conv/, (_, block = '') => `input_blocks.${2 * Number(block) + 2}.0.op`],
  [/^mid_block\.resnets\.(\d)/, (_, n = '') => `middle_block.${2 * Number(n)}`],
  [/^mid_block\.attentions\.0/, 'middle_block.1'],
  [/^up_blocks\.(\d)\.resnets\.(\d)/, (_, block = '', layer = '') => `output_blocks.${2 * Number(block) + Number(layer)}.0`],
  [/^up_blocks\.(\d)\.attentions\.(\d)/, (_, block = '', layer = '') => `output_blocks.${2 * Number(block) + Number(layer)}.1`],
  [/^up_blocks\.(\d)\.upsamplers\.0\.conv/, (_, block = '') => `output_blocks.${2 * Number(block) + 1}.2.conv`],
  [/\.norm1\.(?=weight|bias)(?<=^(?:input|middle|output)_.*)(?<!transformer_blocks.*)/, '.in_layers.0.'],
  [/\.conv1\./, '.in_layers.2.'],
  [/\.time_emb_proj\./, '.emb_layers.1.'],
  [/\.norm2\.(?=weight|bias)(?<!transformer_blocks.*)/, '.out_layers.0.'],
  [/\.conv2\./, '.out_layers.3.'],
  [/\.conv_shortcut\./, '.skip_connection.'],
]

/** Of an autoencoder of three levels. */
const vaeRules: Rules = [
  [/down_blocks\.(\d)\.resnets\.(\d)/, 'down.$1.block.$2'],
  [/down_blocks\.(\d)\.downsamplers\.0\.conv/, 'down.$1.downsample.conv'],
  [/up_blocks\.(\d)\.resnets\.(\d)/, (_, block = '', layer = '') => `up.${2 - Number(block)}.block.${layer}`],
  [/up_blocks\.(\d)\.upsamplers\.0\.conv/, (_, block = '') => `up.${2 - Number(block)}.upsample.conv`],
  [/mid_block\.resnets\.(\d)/, (_, n = '') => `mid.block_${Number(n) + 1}`],
  [/mid_block\.attentions\.0\.group_norm/, 'mid.attn_1.norm'],
  [/mid_block\.attentions\.0\.to_([qkv])/, 'mid.attn_1.$1'],
  [/mid_block\.attentions\.0\.to_out\.0/, 'mid.attn_1.proj_out'],
  [/conv_norm_out/, 'norm_out'],
  [/conv_shortcut/, 'nin_shortcut'],
]

const renamed = (tensors: Tensors, rules: Rules, prefix: string): Tensors =>
  Object.fromEntries(
    Object.entries(tensors).map(([name, tensor]) => [
      prefix + rules.reduce((to, [from, by]) => (typeof by === 'string' ? to.replace(from, by) : to.replace(from, by)), name),
      tensor,
    ]),
  )

/** The attention of the autoencoder was made of convolutions of one pixel. */
const convolved = (tensors: Tensors): Tensors =>
  Object.fromEntries(
    Object.entries(tensors).map(([name, tensor]) => [
      name,
      /attn_1\.(?:q|k|v|proj_out)\.weight$/.test(name) ? { ...tensor, shape: [...tensor.shape, 1, 1] } : tensor,
    ]),
  )

/** The parts of darkroom-tiny in the original layout, under their usual prefixes or others. */
export async function originalTiny(
  prefixes = { unet: 'model.diffusion_model.', vae: 'first_stage_model.', text: 'cond_stage_model.transformer.' },
): Promise<{ unet: Tensors; vae: Tensors; text: Tensors }> {
  const [unet, vae, text] = await Promise.all(
    ['unet/diffusion_pytorch_model', 'vae/diffusion_pytorch_model', 'text_encoder/model'].map((file) =>
      readTensors(join(tiny, `${file}.safetensors`)),
    ),
  )
  return {
    unet: renamed(unet ?? {}, unetRules, prefixes.unet),
    vae: convolved(renamed(vae ?? {}, vaeRules, prefixes.vae)),
    text: renamed(text ?? {}, [], prefixes.text),
  }
}
