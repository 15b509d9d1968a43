/**
 * What the headers of a file or folder say about it. Detection makes verdicts, the catalogue keeps and shows them, the
 * loaders follow them. A file that is broken or not understood has a verdict too, with its reason: it is one row of a
 * list and never an error.
 */
import { z } from 'zod'

/**
 * What holds the weights. `transformers` and `peft` are folders as those libraries save them, `onnx` is one with a
 * graph and a manifest (`onnx.ts`).
 */
export const formats = ['safetensors', 'gguf', 'pickle', 'diffusers', 'transformers', 'peft', 'onnx'] as const

/** What a model is for. A `checkpoint` is a diffusion model with its VAE or text encoders beside it. */
export const kinds = [
  'checkpoint',
  'diffusion-model',
  'text-encoder',
  'clip-vision',
  'lora',
  'vae',
  'controlnet',
  't2i-adapter',
  'ip-adapter',
  'upscaler',
  'embedding',
  'classifier',
  'face-detector',
  'face-restorer',
  'preprocessor',
  'unknown',
] as const
export type Kind = (typeof kinds)[number]

/**
 * Families of pictures that detection can tell apart. Which of them are drawn is another fact: `families.ts`. What fits
 * several families, such as a CLIP text encoder, has none.
 */
export const knownFamilies = [
  'sd1',
  'sd2',
  'sdxl',
  'sd3',
  'flux1',
  'flux2',
  'z-image',
  'qwen-image',
  'chroma',
  'lumina2',
  'sana',
  'pixart',
  'auraflow',
  'hidream',
  'cascade',
  'wan',
  'hunyuan-video',
  'ltx-video',
] as const
export type KnownFamily = (typeof knownFamilies)[number]

/** What sets a model apart within its family. */
export const variants = [
  'inpainting',
  'instruct',
  'v-prediction',
  'zero-snr',
  'edm',
  'refiner',
  'edit',
  'fill',
  'control',
  'redux',
  'guidance-distilled',
  'unguided',
  'pruned',
  'upscaling',
  'union',
  '3.5',
  'medium',
  'large',
  'klein-4b',
  'klein-9b',
  'dev',
  'layered',
  'tiny',
  'plus',
  'face',
  'face-id',
  'style',
] as const
export type Variant = (typeof variants)[number]

/** How a file names its tensors: a loader maps from this dialect. */
export const dialects = ['original', 'diffusers', 'transformers', 'kohya', 'peft', 'xlabs', 'open-clip', 'llama'] as const
export type Dialect = (typeof dialects)[number]

/** Text encoders by name; a family says which of them it needs. */
export const textEncoders = [
  'clip-l',
  'clip-h',
  'clip-g',
  't5-xxl',
  't5-xl',
  't5-base',
  'umt5-xxl',
  'qwen2.5-vl-7b',
  'qwen3-4b',
  'qwen3-8b',
  'mistral-small-24b',
  'gemma2-2b',
  'llama3-8b',
  'darkroom-tiny',
] as const
export type TextEncoder = (typeof textEncoders)[number]

/** What a preprocessor sees in a picture: how far away things are, or which of ADE20K's 150 classes they are of. */
export const preprocessorTasks = ['depth', 'segment'] as const
export type PreprocessorTask = (typeof preprocessorTasks)[number]

/** Algorithms of adapters: how the difference to a weight is made of the tensors of a LoRA file. */
export const algorithms = ['lora', 'locon', 'dora', 'loha', 'lokr', 'ia3', 'oft', 'boft', 'glora', 'diff', 'norm'] as const
export type Algorithm = (typeof algorithms)[number]

/** Element types of weights, as a loader has to read them. GGUF's block types are in `Quantisation`. */
export const precisions = ['fp64', 'fp32', 'fp16', 'bf16', 'fp8-e4m3', 'fp8-e5m2', 'int8', 'int4', 'nf4', 'fp4', 'other'] as const
export type Precision = (typeof precisions)[number]

/** How weights are packed, where their element type alone does not say what they mean. */
export const Quantisation = z.strictObject({
  scheme: z.enum(['fp8', 'fp8-scaled', 'mxfp8', 'nvfp4', 'int8', 'bnb-nf4', 'bnb-fp4', 'bnb-int8', 'svdquant', 'gguf', 'unknown']),
  /** The type by the scheme's own name: `float8_e4m3fn`, `Q4_K`, `nf4`. */
  type: z.string(),
  /** Names of the tensors that hold scales end so; absent where a scheme has none. */
  scales: z.string().optional(),
  /** How many weights share a scale: all of a tensor, those of one output, or a block of them. */
  per: z.enum(['tensor', 'row', 'block']).optional(),
})
export type Quantisation = z.infer<typeof Quantisation>

/** What decides where a model fits, as far as its kind has it; each a count unless it says otherwise. */
export const Figures = z
  .strictObject({
    /** Channels of the latent picture that a VAE makes, or a diffusion model draws. */
    latentChannels: z.int(),
    /** Channels of a diffusion model's first layer: 9 with mask and masked picture, 8 with a picture beside. */
    inputChannels: z.int(),
    /** Size of the text vectors that a diffusion model, an adapter or a ControlNet listens to. */
    contextSize: z.int(),
    /** Size of the vectors inside a text encoder or CLIP vision model. */
    hiddenSize: z.int(),
    layers: z.int(),
    /** Channels inside the first layer of a UNet, or the first of a VAE's decoder. */
    channels: z.int(),
    /** How many times larger an upscaler makes a picture. */
    factor: z.int(),
    imageChannels: z.int(),
    /** How many words' places an embedding takes. */
    vectors: z.int(),
    /** The greatest rank of a LoRA's matrices. */
    rank: z.int(),
    /** How many modes a union ControlNet has. */
    modes: z.int(),
    /** How many labels a classifier or a preprocessor knows. */
    labels: z.int(),
  })
  .partial()
export type Figures = z.infer<typeof Figures>

/** A part of a model that is loaded by itself. */
export const Component = z.strictObject({
  /** As diffusers names it: `unet`, `transformer`, `vae`, `text_encoder`, `text_encoder_2`, `image_encoder` … */
  name: z.string(),
  kind: z.enum(kinds),
  encoder: z.enum(textEncoders).optional(),
  /** Where it is: the prefix of its tensors in a file, `model.diffusion_model.`; its path in a folder, `unet`. */
  at: z.string(),
  dialect: z.enum(dialects).optional(),
  precision: z.enum(precisions).optional(),
  quantisation: Quantisation.optional(),
  /** How many weights; scales and lookup tables are not counted. */
  parameters: z.int(),
  bytes: z.int(),
  /** Of a part in one file: what its tensors' shapes say. */
  figures: Figures.optional(),
  /** Files of weights in a folder, relative to it, by variant: `{ '': [...], fp16: [...] }`. Absent in one file. */
  files: z.record(z.string(), z.array(z.string())).optional(),
})
export type Component = z.infer<typeof Component>

/** A part that a picture needs beside what the model has. */
export const Lack = z.strictObject({
  /** As diffusers names it: `vae`, `text_encoder_2`. */
  name: z.string(),
  kind: z.enum(kinds),
  encoder: z.enum(textEncoders).optional(),
  /** Of a VAE: what it must make and take. */
  latentChannels: z.int().optional(),
})
export type Lack = z.infer<typeof Lack>

/** What a model's author wrote about it. Text of a stranger: capped, controls written as `\u{…}`, never believed. */
export const Metadata = z
  .strictObject({
    title: z.string(),
    author: z.string(),
    description: z.string(),
    licence: z.string(),
    date: z.string(),
    usage: z.string(),
    tags: z.array(z.string()),
    triggerWords: z.array(z.string()),
    /** What the author says it is, such as ModelSpec's `stable-diffusion-xl-v1-base/lora`. */
    architecture: z.string(),
    /** The model it was trained on or merged from. */
    base: z.string(),
    resolution: z.string(),
    prediction: z.enum(['epsilon', 'v', 'sample', 'flow']),
    /** Training facts by the names their tool gave them, without its prefix: `network_dim`, `learning_rate` … */
    training: z.record(z.string(), z.string()),
  })
  .partial()
export type Metadata = z.infer<typeof Metadata>

/**
 * Why a file has no place among the models: `broken`, nobody can use it as it is; `refused`, Darkroom does not read it;
 * `unknown`, it is sound and nothing that Darkroom knows.
 */
export const faults = {
  unreadable: { state: 'broken', remedy: 'Give the user of Darkroom the right to read it.' },
  gone: { state: 'broken', remedy: 'Scan again; it was moved or deleted during the look.' },
  name: { state: 'broken', remedy: 'Rename it: its name is no UTF-8 text, under which it cannot be opened.' },
  not_a_file: { state: 'refused', remedy: 'Put the file itself here; pipes, devices and sockets are never opened.' },
  link: { state: 'refused', remedy: 'Put the file itself here, or add the folder it points to to the model folders.' },
  empty: { state: 'broken', remedy: 'Fetch the file again.' },
  lfs_pointer: { state: 'broken', remedy: 'Run `git lfs pull` in its folder, or download the file itself.' },
  web_page: { state: 'broken', remedy: 'Download the file itself; its page or an error page was saved in its place.' },
  incomplete: { state: 'broken', remedy: 'Finish the download, or fetch the file again.' },
  trailing_bytes: { state: 'broken', remedy: 'Fetch the file again, or save it anew with the tool that made it.' },
  header_size: { state: 'broken', remedy: 'Fetch the file again; a header of this size is no header of a model.' },
  header_syntax: { state: 'broken', remedy: 'Fetch the file again, or save it anew with the tool that made it.' },
  header_limits: { state: 'refused', remedy: 'Save the model anew with fewer or shorter entries.' },
  duplicate: { state: 'broken', remedy: 'Save the file anew with a tool that writes each name once.' },
  tensor: { state: 'broken', remedy: 'Save the file anew with the tool that made it.' },
  layout: { state: 'broken', remedy: 'Save the file anew: its tensors must fill it without gap or overlap.' },
  version: { state: 'refused', remedy: 'Save the model anew in a version that the message names.' },
  pickle: { state: 'refused', remedy: 'Fetch it as .safetensors; a pickle runs code when it is opened, so none is.' },
  other_format: { state: 'refused', remedy: 'Fetch it as .safetensors or .gguf.' },
  config: { state: 'broken', remedy: 'Fetch the file named above again.' },
  weights_missing: { state: 'broken', remedy: 'Fetch the files named above into the folder.' },
  quantisation: {
    state: 'refused',
    remedy: 'Fetch the model in fp16, bf16, fp8 with known scales, nf4 or GGUF; the message names what was found.',
  },
  channels: { state: 'refused', remedy: 'Use a model for colour pictures of three channels.' },
  architecture: { state: 'refused', remedy: 'Use a model of one of the classes that the message names.' },
  not_understood: {
    state: 'unknown',
    remedy: 'Name its family in a report if pictures should be drawn with it; other models are not affected.',
  },
} as const satisfies Record<string, { state: 'broken' | 'refused' | 'unknown'; remedy: string }>
export type Fault = keyof typeof faults
const faultNames = Object.keys(faults) as [Fault, ...Fault[]]

export const Reason = z.strictObject({
  code: z.enum(faultNames),
  /** Where: a path relative to the model, a field of the header, a tensor's name (escaped). */
  field: z.string(),
  /** What is wrong, one sentence with the figures. */
  message: z.string(),
  remedy: z.string(),
})
export type Reason = z.infer<typeof Reason>

/** A reason with the remedy of its fault; `message` is one sentence. */
export const reasonOf = (code: Fault, field: string, message: string): Reason => ({ code, field, message, remedy: faults[code].remedy })

export const Verdict = z.strictObject({
  format: z.enum(formats),
  kind: z.enum(kinds),
  family: z.enum(knownFamilies).optional(),
  variants: z.array(z.enum(variants)),
  dialect: z.enum(dialects).optional(),
  /** The element type of most bytes. */
  precision: z.enum(precisions).optional(),
  quantisation: Quantisation.optional(),
  /** How many weights; scales and lookup tables are not counted. */
  parameters: z.int(),
  components: z.array(Component),
  /** What a picture needs besides, of a family of which that is known. */
  lacks: z.array(Lack),
  /** Of a text encoder: which one. */
  encoder: z.enum(textEncoders).optional(),
  /** Of a LoRA: how its differences are made; several in one file are possible. */
  algorithms: z.array(z.enum(algorithms)).optional(),
  /** Of a LoRA: which parts it changes, `denoiser` or a text encoder's name as in a component. */
  targets: z.array(z.string()).optional(),
  /** Of an upscaler, classifier or preprocessor: the architecture, such as `esrgan` or `compact`. */
  architecture: z.string().optional(),
  /** Of a preprocessor. */
  task: z.enum(preprocessorTasks).optional(),
  figures: Figures,
  metadata: Metadata,
  /** What a user should know though nothing is wrong: what headers cannot tell, where metadata and tensors differ. */
  notes: z.array(z.string()),
  /** Present where the model cannot be used; `stateOf` reads it. */
  reason: Reason.optional(),
})
export type Verdict = z.infer<typeof Verdict>
export type Format = Verdict['format']

export const states = ['understood', 'unknown', 'refused', 'broken'] as const
export type State = (typeof states)[number]
export const stateOf = (verdict: Verdict): State => (verdict.reason ? faults[verdict.reason.code].state : 'understood')

/** A verdict with nothing in it, to be filled. */
export const blank = (format: Format, metadata: Metadata = {}): Verdict => ({
  format,
  kind: 'unknown',
  variants: [],
  parameters: 0,
  components: [],
  lacks: [],
  figures: {},
  metadata,
  notes: [],
})

/** The verdict of a model of which no more is known than its format and what is wrong with it. */
export const failed = (format: Format, reason: Reason, metadata?: Metadata): Verdict => ({ ...blank(format, metadata), reason })
