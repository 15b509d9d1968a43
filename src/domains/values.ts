/** Values that several domains speak of, each declared once. */
import { z } from 'zod'
import { kinds } from '../models/verdict.ts'
import { preprocessorWith } from './preprocessors.ts'
import { samplers, schedules } from './samplers.ts'

/** A whole number from 0 on. */
export const Count = z.int().min(0)
/** How many bytes, at least one. */
export const Bytes = z.int().min(1)
/** A share, 0 to 1. */
export const Fraction = z.number().min(0).max(1)

/** Milliseconds since 1970. The HTTP API knows it by its mark and shows it as ISO 8601 text. */
export const Instant = Object.assign(z.int().min(0), { isInstant: true } as const)

/** SHA-256 as 64 hex digits in lower case; the name of an artifact. */
export const Sha256 = z.string().regex(/^[0-9a-f]{64}$/)
/** CRC-32 (IEEE 802.3) as 8 hex digits in lower case. */
export const Crc32 = z.string().regex(/^[0-9a-f]{8}$/)

/** A model as a client names it. */
export const ModelName = z.string().min(1).max(200).describe('name of the model')

/** Tells models apart that have one name. */
export const ModelKind = z
  .enum(kinds)
  .optional()
  .describe('of several models with that name the one of this kind; default: the one that draws, else the one that is understood')

/** A VAE that decodes in place of a model's own, by its name and the SHA-256 of its body. */
export const VaePin = z.strictObject({ id: z.string(), bodyHash: Sha256 })

/** A model as a session is pinned to it: name and SHA-256 of its body; `vae` where another than its own decodes. */
export const ModelPin = z.strictObject({ id: z.string(), bodyHash: Sha256, vae: VaePin.optional() })
export type ModelPin = z.infer<typeof ModelPin>

/**
 * A model as it is asked for: its body hash is null until it has been hashed, and any body of that name will do. One
 * that pictures are drawn with; with `kind`, whatever of that kind has the name.
 */
export const WantedModel = z.strictObject({
  id: z.string(),
  bodyHash: Sha256.nullable(),
  kind: z.enum(kinds).optional(),
  vae: VaePin.optional(),
})
export type WantedModel = z.infer<typeof WantedModel>

/** What a host must have for a model: the model, and the VAE that decodes in place of its own. */
export const withOwnVae = (model: WantedModel): WantedModel[] => [model, ...(model.vae ? [{ ...model.vae, kind: 'vae' as const }] : [])]
export const ShelvedModel = WantedModel.required({ kind: true })
export type ShelvedModel = z.infer<typeof ShelvedModel>

/** One worker of one device, in one epoch: whom a command is for. What it speaks of goes when the epoch ends. */
export const Target = z.strictObject({ device: z.string(), worker: z.string(), epoch: z.string() })
export type Target = z.infer<typeof Target>

/** `<deviceId>.<first 8 hex of the device epoch>.<n>`: unique in the farm, and never used twice. */
export const AllocationId = z
  .string()
  .regex(/^[a-z0-9-]{1,120}\.[0-9a-f]{8}\.\d{1,15}$/, 'must be the id of an allocation, as GET /v1/memory/allocations gives it')

/** The parts of an allocation's id; `epoch` is the first 8 hex digits of the device epoch. */
export function splitAllocationId(id: string): { device: string; epoch: string; n: number } {
  const [device = '', epoch = '', n] = id.split('.')
  return { device, epoch, n: Number(n) }
}

/** What decides the bits of a picture: equal keys, equal bytes. `facts` is what the key is the hash of. */
export const Exactness = z.strictObject({ key: z.string(), facts: z.record(z.string(), z.unknown()) })
export type Exactness = z.infer<typeof Exactness>

/** A sampler and, where the steps are not spread as the model's own configuration says, a schedule. */
export const Sampler = z.enum(samplers)
export const Schedule = z.enum(schedules).exclude(['Automatic'])

/**
 * Where the noise of an image begins: any whole number that JSON and JavaScript hold exactly. PyTorch's generator on
 * the CPU, which draws it on every device, starts from the low 32 bits: seeds that differ by a multiple of 2^32 draw
 * one picture, as in diffusers and ComfyUI (`init_with_uint32` in ATen/core/MT19937RNGEngine.h).
 */
export const maxSeed = Number.MAX_SAFE_INTEGER
export const Seed = z.int().min(0).max(maxSeed, `must be at most 2^53 - 1, which is ${maxSeed}`)

/**
 * How brackets in a prompt are read. `plain`: as letters. The others read weights and BREAK. With `a1111` a weight
 * multiplies what the text encoder makes of a word, and each chunk keeps its mean; with `comfy` it moves it away from
 * what the encoder makes of the empty text.
 */
export const promptSyntaxes = ['a1111', 'comfy', 'plain'] as const
export const PromptSyntax = z.enum(promptSyntaxes)
/** The layer of CLIP's text encoder that is heard, counted from the end as by AUTOMATIC1111's web UI: 1 is the last. */
export const ClipSkip = z.int().min(1, 'must be at least 1').max(12, 'must be at most 12')
/** How far the first noise lies from that of the image's seed, at 0, towards that of another, at 1. */
export const Variation = z.strictObject({ seed: Seed, strength: Fraction })
/** Part of the denoise calls, as shares of them. */
export const Interval = z.strictObject({ start: Fraction, end: Fraction })

/** Pixels of an image's side. */
const Side = z.int().min(8).multipleOf(8)

/** A picture as a client names it. */
export const PictureId = z
  .string()
  .regex(/^[0-9a-f]{64}$/, 'must be the id of a picture: 64 hex digits, as POST /v1/artifacts answers them')

/** A picture that comes in: its artifact, and its size in pixels. */
export const PicturePin = z.strictObject({ sha256: Sha256, width: z.int().min(1), height: z.int().min(1) })
export type PicturePin = z.infer<typeof PicturePin>
/** Set where a picture is what its session has drawn so far: pixels as `inference.decode` makes them, and no PNG. */
export const Drawn = z.literal(true).optional()

/**
 * How a picture comes to the size that is drawn. `stretch`: to its proportions; `crop`: filled, and what is beyond it
 * cut off; `pad`: all of the picture, its edges drawn on; `latent`: a smaller picture's latents are stretched.
 */
export const resizes = ['stretch', 'crop', 'pad', 'latent'] as const
/** What lies under the noise where a mask is: the picture, noise alone, or a blur of what is around. */
export const fills = ['original', 'noise', 'blur'] as const
/**
 * How a picture is enlarged before it is drawn over: its latents, or its pixels, which are decoded and encoded for it.
 */
export const latentUpscalers = ['latent', 'latent-bicubic', 'latent-nearest'] as const
export const pixelUpscalers = ['lanczos', 'bicubic', 'nearest'] as const
export const upscalers = [...latentUpscalers, ...pixelUpscalers] as const
/** A filter by its name, or a network. */
export const Upscaler = z.union([z.enum(upscalers), ModelPin])
export type Upscaler = z.infer<typeof Upscaler>
/** Pixels of the side of a tile that a network enlarges. */
export const TileSide = z.int().min(64, 'must be at least 64').max(1024, 'must be at most 1024').multipleOf(64, 'must be a multiple of 64')
/** The network of it, if it is one, as a step asks for it. */
export const upscalerOf = (upscaler: string | ModelPin | undefined): (ModelPin & { kind: 'upscaler' })[] =>
  typeof upscaler === 'object' ? [{ ...upscaler, kind: 'upscaler' }] : []
/** What is drawn: all of the picture at the request's size, or the masked region alone, at that size. */
export const areas = ['whole', 'masked'] as const
/** Masks that follow from the picture: what is transparent in it, and what `pad` has added. */
export const ownMasks = ['alpha', 'border'] as const

/** Pictures that an edit is shown. */
export const maxReferences = 4

/** A part of a picture, in its pixels. */
export const Box = z.strictObject({ left: Count, top: Count, width: z.int().min(1), height: z.int().min(1) })
export type Box = z.infer<typeof Box>

/**
 * What of a picture is drawn anew; all else keeps its bytes. `source`: another picture of its size, white is drawn,
 * or a box of it.
 * `grow`, `blur` and `padding` are pixels of what comes out: the mask is grown by `grow`, its edge is a ramp of twice
 * `blur` inwards, and a region is drawn with `padding` pixels around it.
 */
export const Mask = z.strictObject({
  source: z.union([PicturePin, Box, z.enum(ownMasks)]),
  invert: z.boolean(),
  grow: Count,
  blur: Count,
  fill: z.enum(fills),
  area: z.enum(areas),
  padding: Count,
})
export type Mask = z.infer<typeof Mask>

/** How a ControlNet and the prompt share a picture: alike, more by the prompt, or more by the ControlNet. */
export const controlModes = ['balanced', 'prompt', 'control'] as const
/**
 * What a ControlNet that knows several tasks is shown: in the order in which xinsir's Union for SDXL numbers them, and
 * in which InstantX's for FLUX.1 does (`line` is its Canny, `low` a picture of low quality).
 */
export const unetTasks = ['pose', 'depth', 'soft', 'line', 'normal', 'segment', 'tile', 'repaint'] as const
export const fluxTasks = ['line', 'tile', 'depth', 'blur', 'pose', 'grey', 'low'] as const
export const controlTasks = [...unetTasks, 'blur', 'grey', 'low'] as const
export const ControlResize = z.enum(resizes).exclude(['latent'])
export const maxControls = 8

/** What is made of a picture before a ControlNet is shown it. */
export const Preprocessor = preprocessorWith(ModelPin)
export type Preprocessor = z.infer<typeof Preprocessor>
/** The network of it, if it needs one, as a step asks for it. */
export const networkOf = (preprocessor: Preprocessor | undefined): (ModelPin & { kind: 'preprocessor' })[] =>
  preprocessor && 'model' in preprocessor ? [{ ...preprocessor.model, kind: 'preprocessor' }] : []

/**
 * A ControlNet at work: what it is shown, how heavily and in which share of the steps it acts. `picture` is there
 * unless the preprocessor needs none; `task` for a ControlNet that knows several.
 */
export const Control = z.strictObject({
  model: ModelPin,
  picture: PicturePin.optional(),
  resize: ControlResize.optional(),
  preprocessor: Preprocessor.optional(),
  weight: z.number().min(0).max(2),
  start: Fraction,
  end: Fraction,
  mode: z.enum(controlModes),
  task: z.enum(controlTasks).optional(),
})
export type Control = z.infer<typeof Control>

/**
 * What models that were trained so are told of a picture's sizes, in pixels: how large it was before it was scaled and
 * cropped, where the crop begins, how large it is. What is left out is the size that is drawn, and a crop at 0, 0.
 */
const ToldSizes = z
  .strictObject({
    originalWidth: z.int().min(1).max(16_384),
    originalHeight: z.int().min(1).max(16_384),
    cropLeft: z.int().min(0).max(16_384),
    cropTop: z.int().min(0).max(16_384),
    targetWidth: z.int().min(1).max(16_384),
    targetHeight: z.int().min(1).max(16_384),
  })
  .partial()
/** `negative`: beside the negative prompt, where that is something else. */
export const Sizes = ToldSizes.extend({ negative: ToldSizes.optional() })
export type Sizes = z.infer<typeof Sizes>

/**
 * What a picture gives up of speed so that it takes less of its device's memory (`python/darkroom/profiles.py`). Only
 * `lowest-memory`, and `auto` where memory has run out, move bits; then the exactness key says so.
 */
export const MemoryProfile = z.enum(['auto', 'highest-speed', 'balanced', 'lowest-memory'])
export type MemoryProfile = z.infer<typeof MemoryProfile>

/**
 * What a picture promises (`python/darkroom/fast.py`): `exact` its bytes; `fast` none, and it may be computed by other
 * kernels, or leave out what would hardly change anything.
 */
export const DrawingClass = z.enum(['exact', 'fast'])
/**
 * Of a `fast` picture of a transformer: by how much, as a share, what the first block adds may differ from an earlier
 * call's for the others to be left out. 0 leaves none out. 0.05 is what diffusers has.
 */
export const StepCache = Fraction
export const usualStepCache = 0.05

/** Regions of one request that are drawn again. */
export const mostDetails = 16

/** What draws a picture over another: what is left out is as in the request that it belongs to. */
const Redrawing = z.strictObject({ strength: Fraction, prompt: z.string().optional(), negativePrompt: z.string().optional() })

/**
 * A second pass: the picture is enlarged to this size, and drawn over. `steps` are those that are drawn, as in
 * AUTOMATIC1111's web UI: its schedule has so many that `strength` leaves as many of them.
 */
export const Hires = Redrawing.extend({
  width: Side,
  height: Side,
  upscaler: Upscaler,
  steps: z.int().min(1),
  sampler: Sampler.optional(),
  schedule: Schedule.optional(),
})
export type Hires = z.infer<typeof Hires>

/**
 * A region that is drawn again at `width` · `height`, and pasted back: a box of the finished picture, or what a picture
 * of its size has white. `padding` and `blur` as in a mask.
 */
export const Detail = Redrawing.extend({
  source: z.union([PicturePin, Box]),
  width: Side,
  height: Side,
  padding: Count,
  blur: Count,
})
export type Detail = z.infer<typeof Detail>

/**
 * A LoRA or one of its kin: how much of its difference the network that draws has, and the text encoders where that is
 * another number.
 */
export const AdapterPin = z.strictObject({ model: ModelPin, weight: z.number(), textWeight: z.number().optional() })
export type AdapterPin = z.infer<typeof AdapterPin>
/** A textual inversion: the word of the prompts that stands for its vectors. */
export const EmbeddingPin = z.strictObject({ model: ModelPin, word: z.string() })
export type EmbeddingPin = z.infer<typeof EmbeddingPin>

/** One image: what its pixels depend on, and nothing else. What may be left out is, where it is not used. */
export const ImageRequest = z.strictObject({
  model: ModelPin,
  prompt: z.string(),
  negativePrompt: z.string(),
  width: Side,
  height: Side,
  steps: z.int().min(1),
  guidance: z.number(),
  seed: Seed,
  sampler: Sampler,
  schedule: Schedule.optional(),
  /** Absent: plain. */
  promptSyntax: PromptSyntax.optional(),
  /** Absent: the layer that the model was trained with. */
  clipSkip: ClipSkip.optional(),
  variation: Variation.optional(),
  /** How much of the guided prediction is brought to the deviation of the one with the prompt. */
  guidanceRescale: Fraction.optional(),
  /** The calls that are guided; absent: all of them. */
  guidanceInterval: Interval.optional(),
  sizes: Sizes.optional(),
  picture: PicturePin.optional(),
  /** How much of the schedule is drawn over the picture; at 1 nothing shines through but what a mask keeps. */
  strength: Fraction.optional(),
  resize: z.enum(resizes).optional(),
  mask: Mask.optional(),
  hires: Hires.optional(),
  detail: z.array(Detail).min(1).max(mostDetails).optional(),
  control: z.array(Control).min(1).max(maxControls).optional(),
  /** What an edit is shown beside its text, in this order. */
  references: z.array(PicturePin).min(1).max(maxReferences).optional(),
  /** In the order in which their differences are summed. */
  adapters: z.array(AdapterPin).optional(),
  embeddings: z.array(EmbeddingPin).optional(),
  /** Absent is `auto`. */
  memoryProfile: MemoryProfile.optional(),
  /** Absent is `exact`. */
  class: DrawingClass.optional(),
  /** Where it is `fast`, and the model has a step cache. */
  stepCache: StepCache.optional(),
})
export type ImageRequest = z.infer<typeof ImageRequest>

/** One denoise of an image: it knows of no other. */
export const Pass = ImageRequest.omit({ hires: true, detail: true })
export type Pass = z.infer<typeof Pass>

/** The name that a LoRA gets: that of its file, without the ending. */
export const AdapterName = z
  .string()
  .regex(
    /^[A-Za-z0-9](?:[\w.-]{0,62}[A-Za-z0-9])?$/,
    'must be 1 to 64 letters, digits, `_`, `-` and `.`, with a letter or digit at both ends',
  )

/** A picture as an artifact: what a workflow hands out, and what the API puts a link beside. */
export const ImageRef = z.strictObject({
  sha256: Sha256,
  mediaType: z.literal('image/png'),
  width: z.int(),
  height: z.int(),
  seed: Seed,
  bytes: z.int(),
})
export type ImageRef = z.infer<typeof ImageRef>
