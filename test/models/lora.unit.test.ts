/** LoRA and its kin in the names of every trainer: algorithm, family by the sizes of modules, what is changed. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { inspectFile } from '../../src/models/inspect.ts'
import type { Verdict } from '../../src/models/verdict.ts'
import { writeSafetensors, type Tensors } from '../support/headers.ts'
import { of } from '../support/model-headers.ts'

const folder = mkdtempSync(join(tmpdir(), 'darkroom-lora-'))
afterAll(() => rmSync(folder, { recursive: true }))

let files = 0
const verdictOf = (tensors: Tensors, metadata?: Record<string, string>): Promise<Verdict> =>
  inspectFile(writeSafetensors(join(folder, `${files++}.safetensors`), tensors, metadata))

/** A module of `[out, in]`, in the names of each trainer. */
const kohya = (module: string, out: number, input: number, rank = 8): Tensors =>
  of('F16', { [`${module}.lora_down.weight`]: [rank, input], [`${module}.lora_up.weight`]: [out, rank], [`${module}.alpha`]: [] })
const peft = (module: string, out: number, input: number, rank = 8, adapter = ''): Tensors =>
  of('F16', { [`${module}.lora_A${adapter}.weight`]: [rank, input], [`${module}.lora_B${adapter}.weight`]: [out, rank] })
const dotted = (module: string, out: number, input: number, rank = 8): Tensors =>
  of('F16', { [`${module}.lora.down.weight`]: [rank, input], [`${module}.lora.up.weight`]: [out, rank] })

const attn2 = 'down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k'
const attn2Dotted = 'down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k'

describe('the family and dialect', () => {
  it.each<[string, Tensors, string | undefined, string, string[]]>([
    ['SD1.5, kohya', kohya(`lora_unet_${attn2}`, 640, 768), 'sd1', 'kohya', ['denoiser']],
    [
      'SD1.5, kohya, with its text encoder',
      { ...kohya(`lora_unet_${attn2}`, 640, 768), ...kohya('lora_te_text_model_encoder_layers_0_mlp_fc1', 3072, 768) },
      'sd1',
      'kohya',
      ['denoiser', 'text_encoder'],
    ],
    [
      'SD1.5, kohya, original block names',
      kohya('lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_v', 320, 768),
      'sd1',
      'kohya',
      ['denoiser'],
    ],
    ['SD2, kohya', kohya(`lora_unet_${attn2}`, 640, 1024), 'sd2', 'kohya', ['denoiser']],
    ['SDXL, kohya', kohya(`lora_unet_${attn2}`, 640, 2048), 'sdxl', 'kohya', ['denoiser']],
    [
      'SDXL, kohya, the middle block',
      kohya('lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k', 1280, 2048),
      'sdxl',
      'kohya',
      ['denoiser'],
    ],
    [
      'SDXL, its deep layers without text',
      kohya('lora_unet_input_blocks_7_1_transformer_blocks_9_attn1_to_q', 1280, 1280),
      'sdxl',
      'kohya',
      ['denoiser'],
    ],
    [
      'SDXL, both text encoders alone',
      {
        ...kohya('lora_te1_text_model_encoder_layers_0_mlp_fc1', 3072, 768),
        ...kohya('lora_te2_text_model_encoder_layers_0_mlp_fc1', 5120, 1280),
      },
      'sdxl',
      'kohya',
      ['text_encoder', 'text_encoder_2'],
    ],
    ['SD1.5, diffusers with peft', peft(`unet.${attn2Dotted}`, 640, 768), 'sd1', 'diffusers', ['denoiser']],
    ['SD1.5, diffusers before peft', dotted(`unet.${attn2Dotted}`, 640, 768), 'sd1', 'diffusers', ['denoiser']],
    [
      'SD1.5, the first diffusers',
      of('F32', {
        'unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora.down.weight': [4, 768],
        'unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora.up.weight': [640, 4],
      }),
      'sd1',
      'diffusers',
      ['denoiser'],
    ],
    ['SDXL, peft alone', peft(`base_model.model.${attn2Dotted}`, 640, 2048), 'sdxl', 'peft', ['denoiser']],
    ['SDXL, peft with the name of an adapter', peft(`unet.${attn2Dotted}`, 640, 2048, 8, '.default_0'), 'sdxl', 'diffusers', ['denoiser']],
    [
      'Flux.1, kohya',
      { ...kohya('lora_unet_double_blocks_0_img_attn_qkv', 9216, 3072), ...kohya('lora_unet_double_blocks_0_img_mod_lin', 18_432, 3072) },
      'flux1',
      'kohya',
      ['denoiser'],
    ],
    ['Flux.1, kohya, single blocks', kohya('lora_unet_single_blocks_0_linear1', 21_504, 3072), 'flux1', 'kohya', ['denoiser']],
    ['Flux.1, diffusers', peft('transformer.single_transformer_blocks.0.attn.to_q', 3072, 3072), 'flux1', 'diffusers', ['denoiser']],
    ['Flux.1, OneTrainer', kohya('lora_transformer_single_transformer_blocks_0_attn_to_k', 3072, 3072), 'flux1', 'kohya', ['denoiser']],
    [
      'Flux.1, XLabs',
      of('BF16', {
        'double_blocks.18.processor.qkv_lora1.down.weight': [16, 3072],
        'double_blocks.18.processor.qkv_lora1.up.weight': [9216, 16],
      }),
      'flux1',
      'xlabs',
      ['denoiser'],
    ],
    [
      'Flux.1, ComfyUI, all its blocks',
      peft('diffusion_model.double_blocks.18.img_attn.qkv', 9216, 3072),
      'flux1',
      'original',
      ['denoiser'],
    ],
    [
      'Flux.1 with both text encoders',
      {
        ...peft('transformer.single_transformer_blocks.0.attn.to_q', 3072, 3072),
        ...peft('text_encoder.text_model.encoder.layers.0.self_attn.q_proj', 768, 768),
      },
      'flux1',
      'diffusers',
      ['denoiser', 'text_encoder'],
    ],
    ['Flux.2 dev', peft('diffusion_model.double_blocks.0.img_attn.qkv', 18_432, 6144), 'flux2', 'original', ['denoiser']],
    ['Flux.2 klein 4B', peft('diffusion_model.single_blocks.0.linear1', 27_648, 3072), 'flux2', 'original', ['denoiser']],
    [
      'Flux.2 klein 9B, diffusers',
      peft('transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj', 36_864, 4096),
      'flux2',
      'diffusers',
      ['denoiser'],
    ],
    ['Qwen-Image, kohya', kohya('lora_unet_transformer_blocks_0_img_mlp_net_0_proj', 12_288, 3072), 'qwen-image', 'kohya', ['denoiser']],
    [
      'Qwen-Image, attention alone',
      peft('transformer.transformer_blocks.59.attn.add_q_proj', 3072, 3072),
      'qwen-image',
      'diffusers',
      ['denoiser'],
    ],
    ['Z-Image', peft('diffusion_model.layers.0.attention.to_q', 3840, 3840), 'z-image', 'original', ['denoiser']],
    ['Z-Image, kohya', kohya('lora_unet_layers_0_attention_to_q', 3840, 3840), 'z-image', 'kohya', ['denoiser']],
    ['SD3, kohya', kohya('lora_unet_joint_blocks_0_x_block_attn_qkv', 4608, 1536), 'sd3', 'kohya', ['denoiser']],
    ['SD3.5 large, diffusers', peft('transformer.transformer_blocks.0.attn.to_q', 2432, 2432), 'sd3', 'diffusers', ['denoiser']],
    ['Wan', peft('diffusion_model.blocks.0.self_attn.q', 1536, 1536), 'wan', 'original', ['denoiser']],
    [
      'HunyuanVideo, whose blocks are called as Flux.1’s',
      peft('diffusion_model.double_blocks.19.img_attn.qkv', 9216, 3072),
      'hunyuan-video',
      'original',
      ['denoiser'],
    ],
    [
      'what Flux.1, HunyuanVideo and Qwen-Image could be',
      peft('transformer.transformer_blocks.0.attn.to_q', 3072, 3072),
      undefined,
      'diffusers',
      ['denoiser'],
    ],
    [
      'a text encoder of several families',
      kohya('lora_te_text_model_encoder_layers_0_mlp_fc1', 3072, 768),
      undefined,
      'kohya',
      ['text_encoder'],
    ],
  ])('%s', async (_, tensors, family, dialect, targets) => {
    const verdict = await verdictOf(tensors)
    expect(verdict).toMatchObject({ kind: 'lora', algorithms: ['lora'], dialect, targets, figures: { rank: expect.any(Number) as number } })
    expect(verdict.family).toBe(family)
    if (!family) expect(verdict.notes).toEqual([expect.stringMatching(/several families/)])
  })
})

describe('the algorithm', () => {
  const module = `lora_unet_${attn2}`
  it.each<[string, Tensors, string[], string | undefined]>([
    ['LoRA', kohya(module, 640, 768), ['lora'], 'sd1'],
    [
      'LoCon',
      {
        ...kohya(module, 640, 768),
        ...of('F16', {
          'lora_unet_down_blocks_0_resnets_0_conv1.lora_down.weight': [8, 320, 3, 3],
          'lora_unet_down_blocks_0_resnets_0_conv1.lora_up.weight': [320, 8, 1, 1],
        }),
      },
      ['locon'],
      'sd1',
    ],
    [
      'LoCon with a middle',
      { ...kohya(module, 640, 768), ...of('F16', { 'lora_unet_x.lora_mid.weight': [8, 8, 3, 3] }) },
      ['locon'],
      'sd1',
    ],
    [
      'LoRA of a convolution of one pixel',
      {
        ...kohya(module, 640, 768),
        ...of('F16', { 'lora_unet_p.lora_down.weight': [8, 320, 1, 1], 'lora_unet_p.lora_up.weight': [320, 8, 1, 1] }),
      },
      ['lora'],
      'sd1',
    ],
    ['DoRA', { ...kohya(module, 640, 768), ...of('F16', { [`${module}.dora_scale`]: [1, 768] }) }, ['dora', 'lora'], 'sd1'],
    [
      'DoRA of peft',
      { ...peft(`unet.${attn2Dotted}`, 640, 2048), ...of('F16', { [`unet.${attn2Dotted}.lora_magnitude_vector`]: [640] }) },
      ['dora', 'lora'],
      'sdxl',
    ],
    [
      'LoHa',
      of('F16', {
        [`${module}.hada_w1_a`]: [640, 8],
        [`${module}.hada_w1_b`]: [8, 768],
        [`${module}.hada_w2_a`]: [640, 8],
        [`${module}.hada_w2_b`]: [8, 768],
        [`${module}.alpha`]: [],
      }),
      ['loha'],
      'sd1',
    ],
    [
      'LoKr',
      of('F16', { [`${module}.lokr_w1`]: [16, 16], [`${module}.lokr_w2_a`]: [40, 8], [`${module}.lokr_w2_b`]: [8, 128] }),
      ['lokr'],
      'sdxl',
    ],
    ['LoKr of lycoris', of('F16', { [`lycoris_${attn2}.lokr_w1`]: [16, 16], [`lycoris_${attn2}.lokr_w2`]: [40, 48] }), ['lokr'], 'sd1'],
    ['a whole difference', of('F16', { [`${module}.diff`]: [640, 768], [`${module}.diff_b`]: [640] }), ['diff'], 'sd1'],
    ['IA3', of('F16', { [`${module}.weight`]: [640], [`${module}.on_input`]: [] }), ['ia3'], undefined],
    ['OFT', of('F16', { [`${module}.oft_blocks`]: [8, 80, 80] }), ['oft'], undefined],
    [
      'GLoRA',
      of('F16', {
        [`${module}.a1.weight`]: [8, 768],
        [`${module}.a2.weight`]: [768, 8],
        [`${module}.b1.weight`]: [8, 768],
        [`${module}.b2.weight`]: [640, 8],
      }),
      ['glora'],
      undefined,
    ],
    [
      'norms',
      { ...kohya(module, 640, 768), ...of('F16', { 'lora_unet_norm.w_norm': [320], 'lora_unet_norm.b_norm': [320] }) },
      ['lora', 'norm'],
      'sd1',
    ],
  ])('%s', async (_, tensors, algorithms, family) => {
    const verdict = await verdictOf(tensors)
    expect(verdict).toMatchObject({ kind: 'lora', algorithms })
    expect(verdict.family).toBe(family)
  })

  it('has the greatest of its ranks', async () => {
    const verdict = await verdictOf({ ...kohya(module, 640, 768, 4), ...kohya('lora_unet_x', 640, 640, 32) })
    expect(verdict.figures).toEqual({ rank: 32, contextSize: 768 })
  })
})

it('says that Chroma has the modules of Flux.1 when no other is changed', async () => {
  const verdict = await verdictOf(kohya('lora_unet_single_blocks_0_linear1', 21_504, 3072))
  expect(verdict.notes).toEqual([expect.stringMatching(/Flux.1 and Chroma/)])
})
