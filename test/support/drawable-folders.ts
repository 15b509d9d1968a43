/** diffusers folders that draw by their headers; their weights are holes. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { writeSafetensors, type Tensors } from './headers.ts'
import { encoder, transformer, unet, vae } from './model-headers.ts'

export interface Folder {
  pipeline: string
  /** Of a transformer, or with `isUnet` of a UNet. */
  network: Tensors
  isUnet?: true
  encoders: Record<string, Tensors>
  channels?: number
  config?: object
  index?: object
  scheduler?: object
}

const clips = { text_encoder: encoder.clip(768, 12), text_encoder_2: encoder.clip(1280, 32) }
const qwen3 = { text_encoder: encoder.language(2560, 36, 1024, 'query') }
const qwenVl = { text_encoder: encoder.language(3584, 28, 512, 'bias') }
const flux = { text_encoder: clips.text_encoder, text_encoder_2: encoder.t5() }

/** Folders by what is in them. */
export const folders = {
  sd1: {
    pipeline: 'StableDiffusionPipeline',
    network: unet.diffusers.sd(768),
    isUnet: true,
    encoders: { text_encoder: clips.text_encoder },
  },
  sdxl: { pipeline: 'StableDiffusionXLPipeline', network: unet.diffusers.sdxl(), isUnet: true, encoders: clips },
  inpainting: { pipeline: 'StableDiffusionXLInpaintPipeline', network: unet.diffusers.sdxl({ input: 9 }), isUnet: true, encoders: clips },
  refiner: {
    pipeline: 'StableDiffusionXLImg2ImgPipeline',
    network: unet.diffusers.refiner(),
    isUnet: true,
    encoders: { text_encoder_2: clips.text_encoder_2 },
  },
  dev: { pipeline: 'FluxPipeline', network: transformer.flux1Diffusers(), encoders: flux, config: { guidance_embeds: true } },
  schnell: { pipeline: 'FluxPipeline', network: transformer.flux1Diffusers({ isGuided: false }), encoders: flux },
  zImage: { pipeline: 'ZImagePipeline', network: transformer.zImageDiffusers(), encoders: qwen3 },
  klein: { pipeline: 'Flux2KleinPipeline', network: transformer.flux2Diffusers(3072, 7680), encoders: qwen3, channels: 32 },
  qwenImage: { pipeline: 'QwenImagePipeline', network: transformer.qwenImage(), encoders: qwenVl },
  sd3: {
    pipeline: 'StableDiffusion3Pipeline',
    network: transformer.sd3Diffusers(1536),
    encoders: { ...clips, text_encoder_3: encoder.t5() },
  },
  kontext: { pipeline: 'FluxKontextPipeline', network: transformer.flux1Diffusers(), encoders: flux },
  fill: { pipeline: 'FluxFillPipeline', network: transformer.flux1Diffusers({ input: 384 }), encoders: flux },
  qwenEdit: { pipeline: 'QwenImageEditPipeline', network: transformer.qwenImage(), encoders: qwenVl },
  withoutT5: { pipeline: 'FluxPipeline', network: transformer.flux1Diffusers(), encoders: { text_encoder: clips.text_encoder } },
} as const satisfies Record<string, Folder>

/** Writes one. */
export function writeFolder(
  folder: string,
  { pipeline, network, isUnet, encoders, channels, config = {}, index, scheduler = {} }: Folder,
): void {
  const put = (file: string, content: unknown): void => {
    mkdirSync(join(folder, file, '..'), { recursive: true })
    writeFileSync(join(folder, file), JSON.stringify(content))
  }
  const names = Object.keys(encoders)
  const part = isUnet ? 'unet' : 'transformer'
  put('model_index.json', {
    _class_name: pipeline,
    ...index,
    [part]: ['diffusers', isUnet ? 'UNet2DConditionModel' : 'Transformer2DModel'],
    vae: ['diffusers', 'AutoencoderKL'],
    scheduler: ['diffusers', isUnet ? 'EulerDiscreteScheduler' : 'FlowMatchEulerDiscreteScheduler'],
    ...Object.fromEntries(names.map((each) => [each, ['transformers', 'CLIPTextModel']])),
    ...Object.fromEntries(names.map((each) => [each.replace('text_encoder', 'tokenizer'), ['transformers', 'CLIPTokenizer']])),
  })
  put(`${part}/config.json`, config)
  put('vae/config.json', isUnet ? { block_out_channels: [128, 256, 512, 512] } : {})
  put('scheduler/scheduler_config.json', scheduler)
  writeSafetensors(join(folder, part, 'diffusion_pytorch_model.safetensors'), network)
  writeSafetensors(join(folder, 'vae/diffusion_pytorch_model.safetensors'), vae.diffusers(channels ?? (isUnet ? 4 : 16)))
  for (const [each, tensors] of Object.entries(encoders)) {
    put(`${each}/config.json`, {})
    put(`${each.replace('text_encoder', 'tokenizer')}/tokenizer.json`, {})
    writeSafetensors(join(folder, each, 'model.safetensors'), tensors)
  }
}
