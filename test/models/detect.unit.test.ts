/** A row a verdict, each from a file with a real header: kinds, families, variants, precisions, packings. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { inspectFile } from '../../src/models/inspect.ts'
import { Verdict, stateOf } from '../../src/models/verdict.ts'
import { gguf, safetensors, writeImage, type Image, type Tensors } from '../support/headers.ts'
import { checkpoint, encoder, of, transformer, under, unet, vae } from '../support/model-headers.ts'

const folder = mkdtempSync(join(tmpdir(), 'darkroom-detect-'))
afterAll(() => rmSync(folder, { recursive: true }))

let files = 0
async function verdictOf(image: Image, ending = 'safetensors'): Promise<Verdict> {
  const verdict = await inspectFile(writeImage(join(folder, `${files++}.${ending}`), image))
  expect(() => Verdict.parse(verdict)).not.toThrow()
  return verdict
}

type Said = Partial<Verdict>
type Case = [name: string, tensors: Tensors, says: Said]
const drawn = (family: string, dialect: string, variants: string[] = [], more: Said = {}): Said =>
  ({ kind: 'diffusion-model', family, dialect, variants, ...more }) as Said
const controlled = (family: string, dialect: string, variants: string[] = [], more: Said = {}): Said =>
  ({ kind: 'controlnet', family, dialect, variants, ...more }) as Said

const denoisers: Case[] = [
  [
    'SD1.5, original',
    unet.original.sd(768),
    drawn('sd1', 'original', [], { figures: { latentChannels: 4, inputChannels: 4, contextSize: 768 } }),
  ],
  ['SD1.5, diffusers', unet.diffusers.sd(768), drawn('sd1', 'diffusers')],
  ['SD1.5, with its projections as linear layers', unet.original.sd(768, { isLinear: true }), drawn('sd1', 'original')],
  ['SD1.5 under its prefix alone', under('model.diffusion_model.', unet.original.sd(768)), drawn('sd1', 'original')],
  ['SD1.5 inpainting, original', unet.original.sd(768, { input: 9 }), drawn('sd1', 'original', ['inpainting'])],
  ['SD1.5 inpainting, diffusers', unet.diffusers.sd(768, { input: 9 }), drawn('sd1', 'diffusers', ['inpainting'])],
  ['InstructPix2Pix', unet.original.sd(768, { input: 8 }), drawn('sd1', 'original', ['instruct'])],
  ['SD2, original', unet.original.sd(1024), drawn('sd2', 'original')],
  ['SD2, diffusers', unet.diffusers.sd(1024), drawn('sd2', 'diffusers')],
  ['SD2 with depth', unet.original.sd(1024, { input: 5 }), drawn('sd2', 'original', ['control'])],
  ['SD2 ×4 upscaler, original', unet.original.upscaler(), drawn('sd2', 'original', ['upscaling'])],
  ['SD2 ×4 upscaler, diffusers', unet.diffusers.upscaler(), drawn('sd2', 'diffusers', ['upscaling'])],
  [
    'SDXL, original',
    unet.original.sdxl(),
    drawn('sdxl', 'original', [], { figures: { latentChannels: 4, inputChannels: 4, contextSize: 2048 } }),
  ],
  ['SDXL with its projections as convolutions', unet.original.sdxl({ isLinear: false }), drawn('sdxl', 'original')],
  ['SDXL, diffusers', unet.diffusers.sdxl(), drawn('sdxl', 'diffusers')],
  ['SDXL inpainting, original', unet.original.sdxl({ input: 9 }), drawn('sdxl', 'original', ['inpainting'])],
  ['SDXL inpainting, diffusers', unet.diffusers.sdxl({ input: 9 }), drawn('sdxl', 'diffusers', ['inpainting'])],
  ['SDXL refiner, original', unet.original.refiner(), drawn('sdxl', 'original', ['refiner'])],
  ['SDXL refiner, diffusers', unet.diffusers.refiner(), drawn('sdxl', 'diffusers', ['refiner'])],
  ['SDXL with v-prediction', { ...unet.original.sdxl(), v_pred: ['F32', [0]] }, drawn('sdxl', 'original', ['v-prediction'])],
  [
    'SDXL with v-prediction and zero-SNR',
    { ...unet.original.sdxl(), v_pred: ['F32', [0]], ztsnr: ['F32', [0]] },
    drawn('sdxl', 'original', ['v-prediction', 'zero-snr']),
  ],
  ['Playground 2.5', { ...unet.original.sdxl(), edm_mean: ['F32', [4]], edm_std: ['F32', [4]] }, drawn('sdxl', 'original', ['edm'])],
  [
    'darkroom-tiny, original',
    unet.original.tiny(),
    drawn('sd1', 'original', [], { figures: { latentChannels: 4, inputChannels: 4, contextSize: 96 } }),
  ],
  ['SD3 medium, original', transformer.sd3(1536), drawn('sd3', 'original', ['medium'])],
  ['SD3 medium, diffusers', transformer.sd3Diffusers(1536), drawn('sd3', 'diffusers', ['medium'])],
  ['SD3.5 medium, original', transformer.sd3(1536, true), drawn('sd3', 'original', ['medium', '3.5'])],
  ['SD3.5 medium, diffusers', transformer.sd3Diffusers(1536, true), drawn('sd3', 'diffusers', ['medium', '3.5'])],
  ['SD3.5 large, original', transformer.sd3(2432), drawn('sd3', 'original', ['large', '3.5'])],
  ['SD3.5 large, diffusers', transformer.sd3Diffusers(2432), drawn('sd3', 'diffusers', ['large', '3.5'])],
  ['Flux.1 dev, original', transformer.flux1(), drawn('flux1', 'original', ['guidance-distilled'])],
  ['Flux.1 dev, diffusers', transformer.flux1Diffusers(), drawn('flux1', 'diffusers', ['guidance-distilled'])],
  ['Flux.1 schnell, original', transformer.flux1({ isGuided: false }), drawn('flux1', 'original', ['unguided'])],
  ['Flux.1 schnell, diffusers', transformer.flux1Diffusers({ isGuided: false }), drawn('flux1', 'diffusers', ['unguided'])],
  ['Flux.1 Fill, original', transformer.flux1({ input: 384 }), drawn('flux1', 'original', ['guidance-distilled', 'fill'], { notes: [] })],
  ['Flux.1 Fill, diffusers', transformer.flux1Diffusers({ input: 384 }), drawn('flux1', 'diffusers', ['guidance-distilled', 'fill'])],
  ['Flux.1 Depth', transformer.flux1({ input: 128 }), drawn('flux1', 'original', ['guidance-distilled', 'control'])],
  ['a Flux.1 of eight blocks', transformer.flux1({ blocks: 8 }), drawn('flux1', 'original', ['guidance-distilled', 'pruned'])],
  ['Flux.2 dev, original', transformer.flux2(6144, 15_360, true), drawn('flux2', 'original', ['dev', 'guidance-distilled', 'edit'])],
  ['Flux.2 dev, diffusers', transformer.flux2Diffusers(6144, 15_360), drawn('flux2', 'diffusers', ['dev', 'edit'])],
  ['Flux.2 klein 4B, original', transformer.flux2(3072, 7680), drawn('flux2', 'original', ['klein-4b', 'edit'])],
  ['Flux.2 klein 4B, diffusers', transformer.flux2Diffusers(3072, 7680), drawn('flux2', 'diffusers', ['klein-4b', 'edit'])],
  ['Flux.2 klein 9B, original', transformer.flux2(4096, 12_288), drawn('flux2', 'original', ['klein-9b', 'edit'])],
  ['Z-Image, original', transformer.zImage(), drawn('z-image', 'original')],
  ['Z-Image, diffusers', transformer.zImageDiffusers(), drawn('z-image', 'diffusers')],
  [
    'Z-Image that sees pictures',
    { ...transformer.zImage(), ...of('BF16', { 'siglip_embedder.0.weight': [1152] }) },
    drawn('z-image', 'original', ['edit']),
  ],
  ['Qwen-Image', transformer.qwenImage(), drawn('qwen-image', 'diffusers')],
  ['Qwen-Image under ComfyUI’s prefix', under('model.diffusion_model.', transformer.qwenImage()), drawn('qwen-image', 'diffusers')],
  [
    'Qwen-Image-Edit 2511',
    { ...transformer.qwenImage(), __index_timestep_zero__: ['F32', [1]] },
    drawn('qwen-image', 'diffusers', ['edit']),
  ],
  [
    'Qwen-Image-Layered',
    { ...transformer.qwenImage(), ...of('BF16', { 'time_text_embed.addition_t_embedding.weight': [2, 3072] }) },
    drawn('qwen-image', 'diffusers', ['layered']),
  ],
  [
    'Chroma',
    of('BF16', {
      'distilled_guidance_layer.in_proj.bias': [5120],
      'double_blocks.0.img_attn.proj.bias': [3072],
      'double_blocks.0.img_attn.norm.key_norm.scale': [128],
      'img_in.bias': [3072],
    }),
    drawn('chroma', 'original'),
  ],
  [
    'Lumina 2',
    of('BF16', { 'cap_embedder.1.bias': [2304], 'noise_refiner.0.attention.k_norm.weight': [96] }),
    drawn('lumina2', 'original'),
  ],
  [
    'Sana',
    of('BF16', {
      'blocks.0.cross_attn.q_linear.weight': [2240, 2240],
      'blocks.0.cross_attn.kv_linear.weight': [4480, 2240],
      'attention_y_norm.weight': [2304],
    }),
    drawn('sana', 'original'),
  ],
  [
    'PixArt',
    of('F16', { 't_block.1.weight': [6912, 1152], 'y_embedder.y_embedding': [120, 4096], 'blocks.0.scale_shift_table': [6, 1152] }),
    drawn('pixart', 'original'),
  ],
  [
    'AuraFlow',
    of('F16', {
      'double_layers.0.attn.w1q.weight': [3072, 3072],
      'double_layers.0.attn.w2q.weight': [3072, 3072],
      'cond_seq_linear.weight': [3072, 2048],
    }),
    drawn('auraflow', 'original'),
  ],
  [
    'HiDream',
    of('BF16', { 'double_stream_blocks.0.block.adaLN_modulation.1.bias': [30_720], 'caption_projection.0.linear.weight': [2560, 4096] }),
    drawn('hidream', 'original'),
  ],
  [
    'Stable Cascade C',
    of('BF16', { 'clip_txt_mapper.weight': [2048, 1280], 'clf.1.weight': [16, 2048, 1, 1] }),
    drawn('cascade', 'original'),
  ],
  ['Stable Cascade B', of('BF16', { 'clip_mapper.weight': [5120, 1280], 'clf.1.weight': [16, 320, 1, 1] }), drawn('cascade', 'original')],
  [
    'Wan',
    of('BF16', {
      'head.modulation': [1, 2, 1536],
      'patch_embedding.weight': [1536, 16, 1, 2, 2],
      'blocks.0.cross_attn.k.weight': [1536, 1536],
    }),
    drawn('wan', 'original'),
  ],
  [
    'HunyuanVideo',
    of('BF16', { 'txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1.bias': [6144], 'double_blocks.0.img_attn_qkv.bias': [9216] }),
    drawn('hunyuan-video', 'original'),
  ],
  [
    'LTX-Video',
    of('BF16', {
      'patchify_proj.weight': [2048, 128],
      'adaln_single.emb.timestep_embedder.linear_1.bias': [2048],
      'transformer_blocks.0.scale_shift_table': [6, 2048],
    }),
    drawn('ltx-video', 'original'),
  ],
]

const encoded = (name: string, dialect = 'transformers'): Said => ({ kind: 'text-encoder', encoder: name, dialect }) as Said
const encoders: Case[] = [
  ['CLIP-L', encoder.clip(768, 12), encoded('clip-l')],
  [
    'CLIP-L without text_model, as transformers saves it since 5.6',
    of('F16', { 'embeddings.token_embedding.weight': [49_408, 768], 'encoder.layers.11.mlp.fc1.weight': [3072, 768] }),
    encoded('clip-l'),
  ],
  ['CLIP-H', encoder.clip(1024, 23), encoded('clip-h')],
  ['CLIP-G', encoder.clip(1280, 32), encoded('clip-g')],
  ['CLIP-G, as OpenCLIP trains it', encoder.openClip(1280, 32), encoded('clip-g', 'open-clip')],
  ['T5-XXL', encoder.t5(), encoded('t5-xxl')],
  [
    'T5-XXL with its words under their other name',
    of('F16', { 'encoder.embed_tokens.weight': [32_128, 4096], 'encoder.block.23.layer.1.DenseReluDense.wi_1.weight': [10_240, 4096] }),
    encoded('t5-xxl'),
  ],
  [
    'UMT5-XXL',
    of('F16', { 'shared.weight': [256_384, 4096], 'encoder.block.23.layer.1.DenseReluDense.wi_1.weight': [10_240, 4096] }),
    encoded('umt5-xxl'),
  ],
  ['Qwen2.5-VL', encoder.language(3584, 28, 512, 'bias'), encoded('qwen2.5-vl-7b')],
  [
    'Qwen2.5-VL, as transformers saves it since 5',
    encoder.language(3584, 28, 512, 'bias', 'model.language_model.'),
    encoded('qwen2.5-vl-7b'),
  ],
  ['Qwen3-4B', encoder.language(2560, 36, 1024, 'query'), encoded('qwen3-4b')],
  ['Qwen3-8B', encoder.language(4096, 36, 1024, 'query'), encoded('qwen3-8b')],
  ['Mistral Small', encoder.language(5120, 40, 1024), encoded('mistral-small-24b')],
  ['Mistral Small, cut for Flux.2', encoder.language(5120, 30, 1024), encoded('mistral-small-24b')],
  ['Gemma 2', encoder.language(2304, 26, 1024), encoded('gemma2-2b')],
  ['CLIP ViT-L', encoder.vision(1024, 24), { kind: 'clip-vision', architecture: 'clip-vit-l' }],
  ['CLIP ViT-H', encoder.vision(1280, 32), { kind: 'clip-vision', architecture: 'clip-vit-h' }],
  ['CLIP ViT-bigG', encoder.vision(1664, 48), { kind: 'clip-vision', architecture: 'clip-vit-g' }],
  ['SigLIP', encoder.vision(1152, 27), { kind: 'clip-vision', architecture: 'siglip-so400m' }],
  [
    'a classifier',
    of('F32', { 'vit.embeddings.cls_token': [1, 1, 768], 'classifier.weight': [5, 768] }),
    { kind: 'classifier', architecture: 'vit', figures: { labels: 5 } },
  ],
  [
    'the safety checker of Stable Diffusion',
    of('F32', { concept_embeds: [17, 768], special_care_embeds: [3, 768] }),
    { kind: 'classifier', architecture: 'stable-diffusion-safety-checker' },
  ],
]

const decoded = (channels: number, dialect: string, more: Said = {}): Said =>
  ({ kind: 'vae', dialect, figures: { latentChannels: channels, imageChannels: 3 }, ...more }) as Said
const vaes: Case[] = [
  ['4 channels, original', vae.original(4), decoded(4, 'original')],
  ['4 channels, diffusers', vae.diffusers(4), decoded(4, 'diffusers')],
  ['4 channels, under its prefix', under('first_stage_model.', vae.original(4)), decoded(4, 'original')],
  ['16 channels, original', vae.original(16), decoded(16, 'original')],
  ['16 channels, diffusers', vae.diffusers(16), decoded(16, 'diffusers')],
  ['Flux.2, original', vae.original(32), decoded(32, 'original', { family: 'flux2' })],
  ['Flux.2, diffusers', vae.diffusers(32), decoded(32, 'diffusers', { family: 'flux2' })],
  ['Wan and Qwen-Image, original', vae.wan(), decoded(16, 'original')],
  ['Wan and Qwen-Image, diffusers', vae.wanDiffusers(), decoded(16, 'diffusers')],
  [
    'TAESD, original',
    of('F16', { '1.weight': [64, 4, 3, 3], '3.conv.0.weight': [64, 64, 3, 3] }),
    decoded(4, 'original', { variants: ['tiny'] }),
  ],
  [
    'TAESD, diffusers',
    of('F16', { 'encoder.layers.0.weight': [64, 3, 3, 3], 'decoder.layers.0.weight': [64, 16, 3, 3] }),
    decoded(16, 'diffusers', { variants: ['tiny'] }),
  ],
]

const hint = { 'input_hint_block.0.weight': ['F16', [16, 3, 3, 3]], 'zero_convs.0.0.weight': ['F16', [320, 320, 1, 1]] } satisfies Tensors
const embedded = { 'controlnet_cond_embedding.conv_in.weight': ['F16', [16, 3, 3, 3]] } satisfies Tensors
const union = { 'control_add_embedding.linear_1.bias': ['F16', [1280]], task_embedding: ['F16', [8, 320]] } satisfies Tensors
const ip = (hidden: number, context: number, more: Record<string, readonly number[]>): Tensors =>
  of('F16', { 'ip_adapter.1.to_k_ip.weight': [hidden, context], 'ip_adapter.1.to_v_ip.weight': [hidden, context], ...more })
const adapters: Case[] = [
  ['ControlNet of SD1.5, original', under('control_model.', { ...hint, ...unet.original.sd(768) }), controlled('sd1', 'original')],
  ['ControlNet of SD1.5, original without prefix', { ...hint, ...unet.original.sd(768) }, controlled('sd1', 'original')],
  [
    'ControlNet of SD1.5, diffusers',
    { ...embedded, ...unet.diffusers.sd(768) },
    controlled('sd1', 'diffusers', [], { figures: { contextSize: 768, imageChannels: 3 } }),
  ],
  ['ControlNet of SD2, original', under('control_model.', { ...hint, ...unet.original.sd(1024) }), controlled('sd2', 'original')],
  ['ControlNet of SD2, diffusers', { ...embedded, ...unet.diffusers.sd(1024) }, controlled('sd2', 'diffusers')],
  ['ControlNet of SDXL, original', under('control_model.', { ...hint, ...unet.original.sdxl() }), controlled('sdxl', 'original')],
  ['ControlNet of SDXL, diffusers', { ...embedded, ...unet.diffusers.sdxl() }, controlled('sdxl', 'diffusers')],
  [
    'small ControlNet of SDXL',
    { ...embedded, ...of('F16', { 'add_embedding.linear_1.weight': [1280, 2816] }) },
    controlled('sdxl', 'diffusers'),
  ],
  [
    'union ControlNet of SDXL',
    { ...embedded, ...union, ...unet.diffusers.sdxl() },
    controlled('sdxl', 'diffusers', ['union'], { figures: { contextSize: 2048, imageChannels: 3, modes: 8 } }),
  ],
  [
    'Control-LoRA of SDXL',
    of('F16', { lora_controlnet: [1], 'label_emb.0.0.down': [128, 2816], 'label_emb.0.0.up': [1280, 128] }),
    controlled('sdxl', 'original', [], { algorithms: ['lora'] }),
  ],
  [
    'ControlNet of Flux.1',
    of('BF16', {
      'controlnet_x_embedder.weight': [3072, 64],
      'context_embedder.weight': [3072, 4096],
      'controlnet_blocks.0.weight': [3072, 3072],
    }),
    controlled('flux1', 'diffusers'),
  ],
  [
    'union ControlNet of Flux.1',
    of('BF16', {
      'controlnet_x_embedder.weight': [3072, 64],
      'context_embedder.weight': [3072, 4096],
      'controlnet_mode_embedder.weight': [10, 3072],
    }),
    controlled('flux1', 'diffusers', ['union'], { figures: { contextSize: 4096, modes: 10 } }),
  ],
  [
    'inpainting ControlNet of Flux.1',
    of('BF16', { 'controlnet_x_embedder.weight': [3072, 68], 'context_embedder.weight': [3072, 4096] }),
    controlled('flux1', 'diffusers', ['inpainting']),
  ],
  [
    'ControlNet of Flux.1 by XLabs',
    { ...hint, ...transformer.flux1({ blocks: 2 }), ...of('BF16', { 'controlnet_blocks.0.weight': [3072, 3072] }) },
    controlled('flux1', 'xlabs'),
  ],
  [
    'ControlNet of SD3',
    of('F16', { 'controlnet_blocks.0.weight': [1536, 1536], 'pos_embed_input.proj.weight': [1536, 16, 2, 2] }),
    controlled('sd3', 'diffusers'),
  ],
  [
    'inpainting ControlNet of SD3',
    of('F16', { 'controlnet_blocks.0.weight': [1536, 1536], 'pos_embed_input.proj.weight': [1536, 17, 2, 2] }),
    controlled('sd3', 'diffusers', ['inpainting']),
  ],
  [
    'ControlNet of Qwen-Image',
    {
      ...of('BF16', {
        'controlnet_x_embedder.weight': [3072, 64],
        'controlnet_blocks.0.weight': [3072, 3072],
        'transformer_blocks.0.img_mlp.net.0.proj.weight': [12_288, 3072],
      }),
      ...transformer.qwenImage(),
    },
    controlled('qwen-image', 'diffusers'),
  ],
  [
    'inpainting ControlNet of Qwen-Image',
    of('BF16', { 'controlnet_x_embedder.weight': [3072, 68], 'transformer_blocks.0.img_mlp.net.0.proj.weight': [12_288, 3072] }),
    controlled('qwen-image', 'diffusers', ['inpainting']),
  ],
  ['ControlNet of Z-Image', of('BF16', { 'control_all_x_embedder.2-1.weight': [3840, 132] }), controlled('z-image', 'diffusers')],
  [
    'first ControlNet of Z-Image, of six layers',
    of('BF16', { 'control_all_x_embedder.2-1.weight': [3840, 64], 'control_layers.5.after_proj.weight': [3840, 3840] }),
    controlled('z-image', 'diffusers', [], { figures: { layers: 6 } }),
  ],
  [
    'T2I adapter of SD1.5, original',
    of('F16', { 'conv_in.weight': [320, 192, 3, 3], 'body.0.block1.weight': [320, 320, 3, 3] }),
    { kind: 't2i-adapter', family: 'sd1', dialect: 'original' },
  ],
  [
    'T2I adapter of SD1.5, diffusers',
    of('F16', { 'adapter.conv_in.weight': [320, 64, 3, 3], 'adapter.body.0.resnets.0.block1.weight': [320, 320, 3, 3] }),
    { kind: 't2i-adapter', family: 'sd1', figures: { imageChannels: 1 } },
  ],
  [
    'T2I adapter, light',
    of('F16', { 'body.0.in_conv.weight': [320, 192, 1, 1], 'body.0.body.0.block1.weight': [320, 320, 3, 3] }),
    { kind: 't2i-adapter', family: 'sd1' },
  ],
  [
    'T2I adapter of SDXL',
    of('F16', { 'adapter.conv_in.weight': [320, 768, 3, 3], 'adapter.body.0.resnets.0.block1.weight': [320, 320, 3, 3] }),
    { kind: 't2i-adapter', family: 'sdxl' },
  ],
  [
    'style adapter',
    of('F16', { style_embedding: [1, 8, 1024], 'transformer_layers.0.attn.in_proj_weight': [3072, 1024], proj: [1024, 768] }),
    { kind: 't2i-adapter', family: 'sd1', variants: ['style'] },
  ],
  ['IP-Adapter of SD1.5', ip(320, 768, { 'image_proj.proj.weight': [3072, 1024] }), { kind: 'ip-adapter', family: 'sd1', variants: [] }],
  [
    'IP-Adapter Plus of SD1.5',
    ip(320, 768, { 'image_proj.latents': [1, 16, 768], 'image_proj.proj_in.weight': [768, 1280] }),
    { kind: 'ip-adapter', family: 'sd1', variants: ['plus'] },
  ],
  ['IP-Adapter of SDXL', ip(640, 2048, { 'image_proj.proj.weight': [8192, 1280] }), { kind: 'ip-adapter', family: 'sdxl' }],
  [
    'IP-Adapter of a whole face',
    ip(320, 768, { 'image_proj.proj.0.weight': [1280, 1280], 'image_proj.proj.3.weight': [768] }),
    { kind: 'ip-adapter', family: 'sd1', variants: ['face'] },
  ],
  [
    'IP-Adapter FaceID of SDXL with its LoRA',
    ip(640, 2048, {
      'image_proj.proj.0.weight': [1024, 512],
      'ip_adapter.0.to_q_lora.down.weight': [128, 640],
      'ip_adapter.0.to_q_lora.up.weight': [640, 128],
      'ip_adapter.0.to_k_lora.down.weight': [128, 640],
    }),
    { kind: 'ip-adapter', family: 'sdxl', variants: ['face-id'] },
  ],
  [
    'IP-Adapter of Flux.1 by XLabs',
    of('BF16', {
      'double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight': [3072, 4096],
      'ip_adapter_proj_model.proj.weight': [16_384, 768],
    }),
    { kind: 'ip-adapter', family: 'flux1', dialect: 'xlabs' },
  ],
  [
    'Flux.1 Redux',
    of('BF16', { 'redux_up.weight': [12_288, 1152], 'redux_down.weight': [4096, 12_288] }),
    { kind: 'ip-adapter', family: 'flux1', variants: ['redux'] },
  ],
]

const rrdb = (channels: number, out = channels): Tensors =>
  of('F32', {
    'conv_first.weight': [64, channels, 3, 3],
    'body.0.rdb1.conv1.weight': [32, 64, 3, 3],
    'conv_up1.weight': [64, 64, 3, 3],
    'conv_up2.weight': [64, 64, 3, 3],
    'conv_last.weight': [out, 64, 3, 3],
  })
const rrdbOld = (...convolutions: number[]): Tensors => ({
  ...of('F32', {
    'model.0.weight': [64, 3, 3, 3],
    'model.1.sub.0.RDB1.conv1.0.weight': [32, 64, 3, 3],
    'model.1.sub.23.weight': [64, 64, 3, 3],
  }),
  ...of('F32', Object.fromEntries(convolutions.map((n, i) => [`model.${n}.weight`, [i === convolutions.length - 1 ? 3 : 64, 64, 3, 3]]))),
})
const compact = (channels: number, unfolded: number): Tensors =>
  of('F32', {
    'body.0.weight': [64, channels, 3, 3],
    'body.1.weight': [64],
    'body.2.weight': [64, 64, 3, 3],
    'body.3.weight': [64],
    'body.4.weight': [unfolded, 64, 3, 3],
  })
const enlarged = (architecture: string, factor: number): Said => ({ kind: 'upscaler', architecture, figures: { factor, imageChannels: 3 } })
const upscalers: Case[] = [
  ['ESRGAN ×4', rrdb(3), enlarged('esrgan', 4)],
  ['ESRGAN ×2, its picture folded', rrdb(12, 3), enlarged('esrgan', 2)],
  ['ESRGAN ×1, its picture folded twice', rrdb(48, 3), enlarged('esrgan', 1)],
  ['ESRGAN inside params_ema', under('params_ema.', rrdb(3)), enlarged('esrgan', 4)],
  ['ESRGAN with both, the averaged first', { ...under('params.', rrdb(12, 3)), ...under('params_ema.', rrdb(3)) }, enlarged('esrgan', 4)],
  ['ESRGAN as named first, ×4', rrdbOld(3, 6, 8, 10), enlarged('esrgan-old', 4)],
  ['ESRGAN as named first, ×2', rrdbOld(3, 5, 7), enlarged('esrgan-old', 2)],
  ['ESRGAN as named first, ×1', rrdbOld(2, 4), enlarged('esrgan-old', 1)],
  ['ESRGAN as named first, ×8', rrdbOld(3, 6, 9, 11, 13), enlarged('esrgan-old', 8)],
  ['Compact ×4', compact(3, 48), enlarged('compact', 4)],
  ['Compact ×2', compact(3, 12), enlarged('compact', 2)],
  [
    'SwinIR',
    of('F32', { 'conv_first.weight': [180, 3, 3, 3], 'layers.0.residual_group.blocks.0.attn.relative_position_bias_table': [225, 6] }),
    { kind: 'upscaler', architecture: 'swinir', figures: {} },
  ],
  [
    'GFPGAN inside params_ema, which restores faces',
    under(
      'params_ema.',
      of('F32', {
        'toRGB.0.weight': [3, 256, 1, 1],
        'final_linear.weight': [8192, 4096],
        'stylegan_decoder.style_mlp.1.weight': [512, 512],
      }),
    ),
    { kind: 'face-restorer', architecture: 'gfpgan', figures: {} },
  ],
  [
    'RestoreFormer',
    of('F32', {
      'quantize.embedding.weight': [1024, 256],
      'encoder.conv_in.weight': [64, 3, 3, 3],
      'decoder.mid.attn_1.norm2.weight': [512],
    }),
    { kind: 'face-restorer', architecture: 'restoreformer', figures: {} },
  ],
]

const embeddings: Case[] = [
  [
    'one vector for SD1.5',
    of('F32', { emb_params: [1, 768] }),
    { kind: 'embedding', family: 'sd1', figures: { vectors: 1, hiddenSize: 768 } },
  ],
  [
    'a vector without a number',
    of('F32', { emb_params: [768] }),
    { kind: 'embedding', family: 'sd1', figures: { vectors: 1, hiddenSize: 768 } },
  ],
  [
    'eight vectors for SD2',
    of('F32', { emb_params: [8, 1024] }),
    { kind: 'embedding', family: 'sd2', figures: { vectors: 8, hiddenSize: 1024 } },
  ],
  ['a word of diffusers', of('F32', { '<cat>': [3, 768] }), { kind: 'embedding', family: 'sd1', figures: { vectors: 3, hiddenSize: 768 } }],
  [
    'vectors for SDXL',
    of('F32', { clip_l: [4, 768], clip_g: [4, 1280] }),
    { kind: 'embedding', family: 'sdxl', figures: { vectors: 4, hiddenSize: 768 } },
  ],
  [
    'vectors for CLIP-L of several families',
    of('F32', { clip_l: [2, 768] }),
    { kind: 'embedding', figures: { vectors: 2, hiddenSize: 768 } },
  ],
]

describe.each([
  ['networks that draw', denoisers],
  ['encoders and classifiers', encoders],
  ['VAEs', vaes],
  ['adapters', adapters],
  ['upscalers', upscalers],
  ['embeddings', embeddings],
])('%s', (_, cases) => {
  it.each(cases)('%s', async (_name, tensors, says) => {
    const verdict = await verdictOf(safetensors(tensors))
    expect(verdict).toMatchObject(says)
    expect(verdict.family).toBe(says.family)
    expect(stateOf(verdict)).toBe('understood')
  })
})

describe('checkpoints', () => {
  const parts = (verdict: Verdict): string[] => verdict.components.map(({ name, encoder: which }) => (which ? `${name}=${which}` : name))

  it.each<[string, Tensors, Said, string[]]>([
    ['SD1.5', checkpoint.sd1(), { family: 'sd1', variants: [] }, ['unet', 'text_encoder=clip-l', 'vae']],
    ['SD1.5 inpainting', checkpoint.sd1({ input: 9 }), { family: 'sd1', variants: ['inpainting'] }, ['unet', 'text_encoder=clip-l', 'vae']],
    ['SD2', checkpoint.sd2(), { family: 'sd2', variants: [] }, ['unet', 'text_encoder=clip-h', 'vae']],
    ['SDXL', checkpoint.sdxl(), { family: 'sdxl', variants: [] }, ['unet', 'text_encoder=clip-l', 'text_encoder_2=clip-g', 'vae']],
    ['SDXL refiner', checkpoint.refiner(), { family: 'sdxl', variants: ['refiner'] }, ['unet', 'text_encoder_2=clip-g', 'vae']],
    [
      'SD3',
      checkpoint.sd3(),
      { family: 'sd3', variants: ['medium'] },
      ['transformer', 'text_encoder=clip-l', 'text_encoder_2=clip-g', 'text_encoder_3=t5-xxl', 'vae'],
    ],
    [
      'Flux.1',
      checkpoint.flux1(),
      { family: 'flux1', variants: ['guidance-distilled'] },
      ['transformer', 'text_encoder=clip-l', 'text_encoder_2=t5-xxl', 'vae'],
    ],
  ])('%s has its parts and lacks none', async (_, tensors, says, names) => {
    const verdict = await verdictOf(safetensors(tensors))
    expect(verdict).toMatchObject({ kind: 'checkpoint', dialect: 'original', lacks: [], ...says })
    expect(parts(verdict)).toEqual(names)
    expect(verdict.parameters).toBeGreaterThan(verdict.components[0]?.parameters ?? Infinity)
  })

  it('say which parts they lack', async () => {
    const tensors = Object.fromEntries(
      Object.entries(checkpoint.sdxl()).filter(([name]) => !/^first_stage_model|^conditioner.embedders.1/.test(name)),
    )
    const verdict = await verdictOf(safetensors(tensors))
    expect(verdict.lacks).toEqual([
      { name: 'text_encoder_2', kind: 'text-encoder', encoder: 'clip-g' },
      { name: 'vae', kind: 'vae', latentChannels: 4 },
    ])
  })

  it('that lie under a LoRA’s name are told as what they are', async () => {
    const verdict = await verdictOf(safetensors({ ...checkpoint.sd1(), 'lora_unet_x.lora_down.weight': ['F16', [4, 320]] }))
    expect(verdict.kind).toBe('checkpoint')
  })

  it('take v-prediction from their author, and say so', async () => {
    const verdict = await verdictOf(safetensors(checkpoint.sd2(), { 'modelspec.prediction_type': 'v' }))
    expect(verdict).toMatchObject({ variants: ['v-prediction'], notes: ['It predicts v by its author’s word; tensors do not tell.'] })
  })

  it('are what their tensors say when their author says otherwise', async () => {
    const verdict = await verdictOf(safetensors(checkpoint.sd1(), { 'modelspec.architecture': 'stable-diffusion-xl-v1-base' }))
    expect(verdict).toMatchObject({ family: 'sd1', notes: ['Its author calls it sdxl, its tensors are those of sd1.'] })
  })
})

describe('what headers leave open is said', () => {
  it.each<[string, Tensors, RegExp]>([
    ['Kontext', transformer.flux1(), /Kontext and dev have the same tensors/],
    ['schnell', transformer.flux1({ isGuided: false }), /schnell, or a dev/],
    ['Turbo', transformer.zImage(), /Z-Image and its Turbo/],
    ['Edit', transformer.qwenImage(), /its edit models/],
    ['klein’s base', transformer.flux2(3072, 7680), /undistilled base/],
    ['a VAE’s family', vae.original(4), /SD1, SD2 and SDXL/],
  ])('%s', async (_, tensors, note) => {
    expect((await verdictOf(safetensors(tensors))).notes).toEqual([expect.stringMatching(note)])
  })

  it('and a network of no size that is known is no family', async () => {
    const verdict = await verdictOf(
      safetensors(
        of('F16', { 'conv_in.weight': [320, 4, 3, 3], 'down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight': [320, 999] }),
      ),
    )
    expect(verdict).toMatchObject({ kind: 'unknown', reason: { code: 'not_understood', field: 'tensors' } })
    expect(verdict.family).toBeUndefined()
    expect(stateOf(verdict)).toBe('unknown')
  })

  it.each<[string, Tensors, RegExp]>([
    ['a motion module', of('F16', { 'down_blocks.0.motion_modules.0.temporal_transformer.norm.weight': [320] }), /motion module/],
    ['a hypernetwork', of('F32', { '768.0.linear.0.weight': [1536, 768] }), /hypernetwork/],
    ['anything else, by its first names', of('F32', { alpha: [1], beta: [2] }), /“alpha”, “beta”/],
    ['an upscaler for one channel', compact(1, 16), /1 channels/],
  ])('%s has its reason', async (_, tensors, message) => {
    const { reason } = await verdictOf(safetensors(tensors))
    expect(reason?.message).toMatch(message)
    expect(reason?.remedy).not.toBe('')
  })
})

describe('precision and packing', () => {
  const wide = (type: string): Tensors => of(type, { 'transformer_blocks.0.attn.to_q.weight': [3072, 3072] })
  const layer = 'transformer_blocks.0.attn.to_q'
  const base = transformer.qwenImage()

  it.each<[string, Tensors, Said]>([
    ['the type of most bytes', { ...of('F32', { small: [10] }), ...base }, { precision: 'bf16' }],
    ['fp32', vae.original(4), { precision: 'fp32' }],
    [
      'fp8 without scales',
      { ...transformer.qwenImage('F8_E4M3') },
      { precision: 'fp8-e4m3', quantisation: { scheme: 'fp8', type: 'float8_e4m3fn' } },
    ],
    [
      'fp8 of the other kind',
      transformer.qwenImage('F8_E5M2'),
      { precision: 'fp8-e5m2', quantisation: { scheme: 'fp8', type: 'float8_e5m2' } },
    ],
    [
      'fp8 with scales, as ComfyUI wrote them first',
      { ...base, ...wide('F8_E4M3'), scaled_fp8: ['F8_E4M3', [0]], [`${layer}.scale_weight`]: ['F32', [1]] },
      { quantisation: { scheme: 'fp8-scaled', type: 'float8_e4m3fn', scales: 'scale_weight', per: 'tensor' } },
    ],
    [
      'fp8 with scales, as ComfyUI writes them',
      { ...base, ...wide('F8_E4M3'), [`${layer}.weight_scale`]: ['F32', []], [`${layer}.comfy_quant`]: ['U8', [27]] },
      { quantisation: { scheme: 'fp8-scaled', type: 'float8_e4m3fn', scales: 'weight_scale', per: 'tensor' } },
    ],
    [
      'fp8 with a scale a row',
      { ...base, ...wide('F8_E4M3'), [`${layer}.weight_scale`]: ['F32', [3072, 1]] },
      { quantisation: { scheme: 'fp8-scaled', type: 'float8_e4m3fn', scales: 'weight_scale', per: 'row' } },
    ],
    [
      'mxfp8',
      { ...base, ...wide('F8_E4M3'), [`${layer}.weight_scale`]: ['U8', [3072, 96]] },
      { quantisation: { scheme: 'mxfp8', type: 'mxfp8', scales: 'weight_scale', per: 'block' } },
    ],
    [
      'nvfp4',
      {
        ...base,
        [`${layer}.weight`]: ['U8', [60_000, 3072]],
        [`${layer}.weight_scale`]: ['F8_E4M3', [60_000, 384]],
        [`${layer}.weight_scale_2`]: ['F32', []],
      },
      { precision: 'fp4', quantisation: { scheme: 'nvfp4', type: 'nvfp4', scales: 'weight_scale', per: 'block' } },
    ],
    [
      'int8',
      { ...base, ...wide('I8'), [`${layer}.weight_scale`]: ['F32', []] },
      { quantisation: { scheme: 'int8', type: 'int8_tensorwise', scales: 'weight_scale' } },
    ],
    [
      'int8 of bitsandbytes',
      { ...base, ...wide('I8'), [`${layer}.SCB`]: ['F32', [3072]] },
      { quantisation: { scheme: 'bnb-int8', type: 'int8', scales: 'SCB' } },
    ],
  ])('%s', async (_, tensors, says) => {
    const verdict = await verdictOf(safetensors(tensors))
    expect(verdict).toMatchObject({ ...says })
    expect(stateOf(verdict)).toBe('understood')
  })

  it('nf4 of bitsandbytes: two weights a byte, and the family in spite of it', async () => {
    const packed = (name: string, count: number): Tensors => ({
      [name]: ['U8', [count / 2, 1]],
      [`${name}.absmax`]: ['F32', [count / 64]],
      [`${name}.quant_map`]: ['F32', [16]],
      [`${name}.quant_state.bitsandbytes__nf4`]: ['U8', [90]],
    })
    const verdict = await verdictOf(
      safetensors({
        ...transformer.flux1(),
        ...packed('img_in.weight', 3072 * 64),
        ...packed('double_blocks.0.img_attn.qkv.weight', 9216 * 3072),
        ...packed('single_blocks.0.linear1.weight', 215_040 * 30_720),
      }),
    )
    expect(verdict).toMatchObject({
      family: 'flux1',
      precision: 'nf4',
      variants: ['guidance-distilled'],
      quantisation: { scheme: 'bnb-nf4', scales: 'absmax' },
    })
    const plain = await verdictOf(safetensors({ ...transformer.flux1(), 'single_blocks.0.linear1.weight': ['BF16', [215_040, 30_720]] }))
    expect(verdict.parameters).toBe(plain.parameters)
  })

  it.each<[string, Tensors]>([
    ['block scales that are inverses', { ...base, ...wide('F8_E4M3'), [`${layer}.weight_scale_inv`]: ['F32', [24, 24]] }],
    [
      'GPTQ',
      {
        ...base,
        [`${layer}.qweight`]: ['I32', [3840, 30_720]],
        [`${layer}.qzeros`]: ['I32', [24, 384]],
        [`${layer}.scales`]: ['F16', [24, 3072]],
      },
    ],
  ])('a scheme that is not known is refused by its name: %s', async (_, tensors) => {
    const verdict = await verdictOf(safetensors(tensors))
    expect(verdict).toMatchObject({
      family: 'qwen-image',
      reason: { code: 'quantisation', message: expect.stringMatching(/weight_scale_inv|qzeros|scales/) as string },
    })
    expect(stateOf(verdict)).toBe('refused')
  })

  it('counts weights, and neither scales nor tables', async () => {
    const verdict = await verdictOf(
      safetensors({
        ...wide('F8_E4M3'),
        [`${layer}.weight_scale`]: ['F32', [3072]],
        alphas_cumprod: ['F32', [1000]],
        'a.position_ids': ['I64', [1, 77]],
      }),
    )
    expect(verdict.parameters).toBe(3072 * 3072)
  })
})

describe('GGUF', () => {
  const quantised = (tensors: Tensors, type: string): Tensors =>
    Object.fromEntries(
      Object.entries(tensors).map(([name, [old, shape]]) => [
        name,
        [(shape.at(-1) ?? 0) % 256 === 0 && shape.length > 1 ? type : old, shape],
      ]),
    )

  it.each<[string, Tensors, Record<string, string>, Said]>([
    [
      'Flux.1 in Q4_K',
      quantised(transformer.flux1({ type: 'F16' }), 'Q4_K'),
      { 'general.architecture': 'flux' },
      { kind: 'diffusion-model', family: 'flux1', variants: ['guidance-distilled'], quantisation: { scheme: 'gguf', type: 'Q4_K' } },
    ],
    [
      'Qwen-Image in Q8_0',
      quantised(transformer.qwenImage('BF16'), 'Q8_0'),
      { 'general.architecture': 'qwen_image' },
      { kind: 'diffusion-model', family: 'qwen-image', quantisation: { scheme: 'gguf', type: 'Q8_0' } },
    ],
    [
      'Z-Image in BF16',
      transformer.zImage(),
      { 'general.architecture': 'lumina2' },
      { kind: 'diffusion-model', family: 'z-image', precision: 'bf16' },
    ],
    [
      'T5-XXL in llama.cpp’s names',
      of('Q6_K', { 'token_embd.weight': [32_128, 4096], 'enc.blk.23.ffn_up.weight': [10_240, 4096] }),
      { 'general.architecture': 't5encoder' },
      { kind: 'text-encoder', encoder: 't5-xxl', dialect: 'llama' },
    ],
    [
      'Qwen3-4B in llama.cpp’s names',
      of('F32', { 'token_embd.weight': [151_936, 2560], 'blk.35.attn_k.weight': [1024, 2560], 'blk.0.attn_q_norm.weight': [128] }),
      {},
      { kind: 'text-encoder', encoder: 'qwen3-4b' },
    ],
    [
      'Qwen2.5-VL in llama.cpp’s names',
      of('F32', { 'token_embd.weight': [152_064, 3584], 'blk.27.attn_k.weight': [512, 3584], 'blk.0.attn_k.bias': [512] }),
      {},
      { kind: 'text-encoder', encoder: 'qwen2.5-vl-7b' },
    ],
  ])('%s', async (_, tensors, metadata, says) => {
    const verdict = await verdictOf(gguf({ tensors, metadata }), 'gguf')
    expect(verdict).toMatchObject({ format: 'gguf', ...says })
    expect(stateOf(verdict)).toBe('understood')
  })
})
