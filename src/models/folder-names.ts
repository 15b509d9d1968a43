/** What the names of folders say: which kind they hold, and what in them is no model. */
import type { Kind } from './verdict.ts'

/** Folder names, in lower case, that hold models of one kind in ComfyUI, A1111 and their relatives. */
const kinds: Readonly<Record<string, Kind>> = {
  checkpoints: 'checkpoint',
  'stable-diffusion': 'checkpoint',
  diffusers: 'checkpoint',
  diffusion_models: 'diffusion-model',
  unet: 'diffusion-model',
  text_encoders: 'text-encoder',
  clip: 'text-encoder',
  clip_vision: 'clip-vision',
  loras: 'lora',
  lora: 'lora',
  lycoris: 'lora',
  vae: 'vae',
  vae_approx: 'vae',
  'vae-approx': 'vae',
  controlnet: 'controlnet',
  controlnets: 'controlnet',
  t2i_adapter: 't2i-adapter',
  upscale_models: 'upscaler',
  esrgan: 'upscaler',
  realesrgan: 'upscaler',
  swinir: 'upscaler',
  dat: 'upscaler',
  embeddings: 'embedding',
  textual_inversion: 'embedding',
  ipadapter: 'ip-adapter',
  'ip-adapter': 'ip-adapter',
  classifiers: 'classifier',
  face_detectors: 'face-detector',
  facerestore_models: 'face-restorer',
  facerestorer: 'face-restorer',
  gfpgan: 'face-restorer',
  preprocessors: 'preprocessor',
  annotators: 'preprocessor',
  annotator: 'preprocessor',
}
const kindsByName = new Map(Object.entries(kinds))
/** The kind that a folder of that name is for, if it is for one. */
export const kindOfFolder = (name: string): Kind | undefined => kindsByName.get(name.toLowerCase())

/** Parts of a diffusers pipeline: they belong to the folder above and are no models of their own. */
export const isPart = (name: string): boolean =>
  /^(unet|transformer|vae|vqvae|text_encoder|tokenizer|scheduler|safety_checker|feature_extractor|image_encoder|image_processor|processor)(_\d)?$/.test(
    name,
  )

/** Files that hold weights, by their ending, in capitals or not. */
export const isWeights = (name: string): boolean => /\.(safetensors|sft|ckpt|bin|pt|pth|gguf)$/i.test(name)

/** What a download leaves that has not ended. */
export const isPartial = (name: string): boolean =>
  /\.(safetensors|sft|ckpt|bin|pt|pth|gguf)\.(part|partial|crdownload|download|incomplete|aria2|tmp|temp|opdownload|!ut)$/i.test(name)

/** How libraries name the weights of a folder that is one model, beside its `config.json`. */
export const isLibraryWeights = (name: string): boolean =>
  /^(diffusion_pytorch_model|pytorch_model|model|adapter_model)[.-]/.test(name) && isWeights(name)

/**
 * Names that no one means as models: hidden ones, which file managers and tools leave, folders of programs, and of
 * configurations that belong to a file beside them.
 */
export const isIgnored = (name: string): boolean =>
  name.startsWith('.') || name.endsWith('.configs') || ['__pycache__', 'node_modules', '__MACOSX'].includes(name)

/** A repository in the cache of the Hugging Face hub. */
export const hubName = (name: string): string | undefined => {
  const [, rest] = /^models--(.+)$/.exec(name) ?? []
  return rest?.replace('--', '/')
}
