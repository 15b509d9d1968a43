/** What configurations say: the class of a pipeline or of one part, as diffusers and transformers name them. */
import type { Kind, KnownFamily, Variant } from '../verdict.ts'

/** Families by the pipeline's class; the first row that fits counts. */
const pipelines: readonly [name: RegExp, family: KnownFamily, ...variants: Variant[]][] = [
  [/^StableDiffusionXLInpaint/, 'sdxl'],
  [/^StableDiffusionXLInstructPix2Pix/, 'sdxl', 'instruct'],
  [/^StableDiffusionXL|^KDiffusionXL/, 'sdxl'],
  [/^StableDiffusion3/, 'sd3'],
  [/^StableDiffusionInstructPix2Pix/, 'sd1', 'instruct'],
  [/^StableDiffusionUpscale/, 'sd2', 'upscaling'],
  [/^StableDiffusion(?!LatentUpscale|Gligen|LDM3D)/, 'sd1'],
  [/^FluxKontext/, 'flux1', 'edit'],
  [/^FluxFill/, 'flux1', 'fill'],
  [/^FluxControlPipeline|^FluxControl(?:Img2Img|Inpaint)/, 'flux1', 'control'],
  [/^Flux2/, 'flux2', 'edit'],
  [/^Flux/, 'flux1'],
  [/^ZImage/, 'z-image'],
  [/^QwenImageLayered/, 'qwen-image', 'layered'],
  [/^QwenImageEdit/, 'qwen-image', 'edit'],
  [/^QwenImage/, 'qwen-image'],
  [/^Chroma/, 'chroma'],
  [/^Lumina2/, 'lumina2'],
  [/^Sana(?!Video)/, 'sana'],
  [/^PixArt/, 'pixart'],
  [/^AuraFlow/, 'auraflow'],
  [/^HiDreamImage/, 'hidream'],
  [/^StableCascade/, 'cascade'],
  [/^Wan/, 'wan'],
  [/^HunyuanVideo/, 'hunyuan-video'],
  [/^LTX/, 'ltx-video'],
]

export function pipelineOf(className: string): { family: KnownFamily; variants: readonly Variant[] } | undefined {
  const [, family, ...variants] = pipelines.find(([name]) => name.test(className)) ?? []
  return family && { family, variants }
}

/** Kinds by the class of one part. */
const parts: readonly [name: RegExp, kind: Kind][] = [
  [/^(?:UNet2DCondition|\w*Transformer2D|\w*Transformer3D|UVit2D|StableCascadeUNet)/, 'diffusion-model'],
  [/ControlNet/, 'controlnet'],
  [/^T2IAdapter/, 't2i-adapter'],
  [/^(?:Autoencoder|Asymmetric|VQModel|ConsistencyDecoder)/, 'vae'],
  [/SafetyChecker|ForImageClassification$/, 'classifier'],
  [/For(?:DepthEstimation|SemanticSegmentation|UniversalSegmentation)$/, 'preprocessor'],
  [/^(?:CLIPVisionModel|SiglipVisionModel)/, 'clip-vision'],
  [/^(?:CLIPTextModel|T5EncoderModel|UMT5EncoderModel|Qwen|Mistral|Llama|Gemma|ChatGLM)/, 'text-encoder'],
]
export const kindOfClass = (className: string): Kind => parts.find(([name]) => name.test(className))?.[1] ?? 'unknown'

/** Parts of a pipeline that hold no weights: how they are called, and files one of which must be there. */
const tokenizers = ['tokenizer.json', 'vocab.json', 'spiece.model', 'tokenizer.model', 'vocab.txt', 'tekken.json']
export const plainParts: readonly [name: RegExp, files: readonly string[]][] = [
  [/^scheduler$/, ['scheduler_config.json']],
  [/^tokenizer(?:_\d)?$/, tokenizers],
  [/^(?:feature_extractor|image_processor|processor)$/, ['preprocessor_config.json', 'processor_config.json', 'tokenizer.json']],
]
