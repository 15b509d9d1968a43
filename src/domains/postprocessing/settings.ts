/** What may be done to a picture: what a client says of it, and what is done, with everything filled in. */
import { z } from 'zod'
import { pictureTypes } from '../../artifacts/picture.ts'
import { Bytes, Exactness, Fraction, ImageRef, ModelPin, PicturePin, pixelUpscalers, Seed, Sha256, TileSide } from '../values.ts'

/** Named settings: how much is to be made of a picture. */
export const qualities = ['draft', 'standard', 'best'] as const
export type Quality = (typeof qualities)[number]
const NamedQuality = z.enum(qualities)

// ---- enhance ----

/** How far from none, towards either end. */
const Lean = z.number().min(-1, 'must be at least -1').max(1, 'must be at most 1')
const Strength = Fraction

/** Noise as of film, the same in all colours. */
const Grain = z.strictObject({ strength: Strength, seed: Seed })

/** What of a picture is changed, in the order in which it is done. What is left out stays as it is. */
export const Enhancement = z
  .strictObject({
    denoise: Strength.describe('how much of what differs from its neighbours goes'),
    autoLevels: Strength.describe('how far the darkest and lightest hundredth are spread to black and white'),
    contrast: Lean.describe('-1: grey alone; 1: twice as much'),
    temperature: Lean.describe('-1: bluer; 1: more orange; greys keep their brightness'),
    saturation: Lean.describe('-1: no colour; 1: twice as much'),
    sharpen: Strength.describe('how much edges are raised'),
    grain: Grain,
  })
  .partial()
export type Enhancement = z.infer<typeof Enhancement>

/** The same; grain may have no seed of its own yet. */
export const Unseeded = Enhancement.extend({ grain: Grain.partial({ seed: true }).optional() })
export type Unseeded = z.infer<typeof Unseeded>

/** With this seed where it has none. */
export const seeded = ({ grain, ...same }: Unseeded, seed: () => number): Enhancement => ({
  ...same,
  ...(grain && { grain: { strength: grain.strength, seed: grain.seed ?? seed() } }),
})

const named: Readonly<Record<Quality, Enhancement>> = {
  draft: { sharpen: 0.3 },
  standard: { denoise: 0.2, autoLevels: 0.5, sharpen: 0.5 },
  best: { denoise: 0.35, autoLevels: 0.6, contrast: 0.05, saturation: 0.05, sharpen: 0.6 },
}

/** What a client may say. */
export const enhanceFields = {
  ...Enhancement.omit({ grain: true }).shape,
  grain: z
    .strictObject({ strength: Strength, seed: Seed.optional().describe('default: drawn, or the seed of the image it belongs to') })
    .optional()
    .describe('noise as of film, the same in all colours'),
  quality: NamedQuality.optional().describe('named settings, below those that are said; default where none is said: standard'),
}
export type EnhanceForm = z.output<z.ZodObject<typeof enhanceFields>>

/** All that is done; grain has the seed that was said, or none. */
export function completeEnhancement({ quality, grain, ...said }: EnhanceForm): Unseeded {
  const own = Object.fromEntries(Object.entries(said).filter(([, value]) => value !== undefined)) as Enhancement
  const isSilent = Object.keys(own).length === 0 && !grain
  const set = quality ?? (isSilent ? 'standard' : undefined)
  return {
    ...(set && named[set]),
    ...own,
    ...(grain && { grain: { strength: grain.strength, ...(grain.seed !== undefined && { seed: grain.seed }) } }),
  }
}

/** What a picture looks like in figures. */
export const Measures = z
  .strictObject({
    sharpness: z.number().min(0).meta({ description: 'deviation of the Laplacian of its brightness' }),
    noise: z.number().min(0).meta({ description: 'estimated deviation of its noise, in levels of 255 (Immerkær, 1996)' }),
    clipping: z
      .strictObject({ dark: Fraction, light: Fraction })
      .meta({ description: 'share of its values that are the least there is, and the most' }),
  })
  .meta({ id: 'PictureMeasures' })
export type Measures = z.infer<typeof Measures>

// ---- convert ----

export const formats = ['png', 'jpeg', 'webp', 'avif'] as const
export type Format = (typeof formats)[number]
/** Longest side that a format has, in pixels: JPEG (ITU-T T.81), WebP (RFC 9649), AVIF (libvips’ own limit). */
const longest: Readonly<Record<Format, number>> = { png: 2 ** 31 - 1, jpeg: 65_500, webp: 16_383, avif: 16_384 }

/** `quality`: 1 to 100, of all formats but PNG; the most that is tried where `maxBytes` is the limit. */
export const Conversion = z.strictObject({
  format: z.enum(formats),
  quality: z.int().min(1).max(100).optional(),
  maxBytes: Bytes.optional(),
  /** `reduce`: without Darkroom's receipt. */
  metadata: z.enum(['keep', 'reduce', 'strip']),
  /** What lies under what is transparent, in a format that knows no transparency. */
  background: z.string().regex(/^#[0-9a-f]{6}$/, 'must be a colour like #ffffff'),
})
export type Conversion = z.infer<typeof Conversion>

const encoderQualities: Readonly<Record<Exclude<Format, 'png'>, Readonly<Record<Quality, number>>>> = {
  jpeg: { draft: 60, standard: 85, best: 95 },
  webp: { draft: 50, standard: 80, best: 92 },
  avif: { draft: 40, standard: 60, best: 80 },
}

export const convertFields = {
  format: z.enum(formats).describe('what it is to be'),
  quality: z
    .union([NamedQuality, z.int().min(1, 'must be at least 1').max(100, 'must be at most 100')])
    .optional()
    .describe('named settings, or a number as the encoder has it; default: standard. A PNG has none: it keeps every bit'),
  maxBytes: Bytes.optional().describe('the most bytes that the file may have: the best quality up to `quality` that fits is taken'),
  metadata: Conversion.shape.metadata
    .default('keep')
    .describe('texts that tell of its request. keep: all that the format can carry; reduce: that of A1111 alone; strip: none'),
  background: Conversion.shape.background.default('#ffffff').describe('under what is transparent, in a JPEG'),
}
export type ConvertForm = z.output<z.ZodObject<typeof convertFields>>

/** What is wrong with it, by field; nothing where all is well. */
export function problemsOfConversion({ format, quality }: ConvertForm): { field: string; message: string }[] {
  return format === 'png' && quality !== undefined
    ? [{ field: 'quality', message: 'must be left out for png, which keeps every bit of a picture' }]
    : []
}

export function completeConversion({ format, quality = 'standard', maxBytes, ...same }: ConvertForm): Conversion {
  const number = format === 'png' ? undefined : typeof quality === 'number' ? quality : encoderQualities[format][quality]
  return { format, ...(number !== undefined && { quality: number }), ...(maxBytes !== undefined && { maxBytes }), ...same }
}

/** Why a picture of this size is none of that format; undefined where it may be one. */
export function problemOfSize(format: Format, { width, height }: { width: number; height: number }): string | undefined {
  const side = Math.max(width, height)
  return side > longest[format] ? `a side of ${side} pixels is too long for ${format}, which has ${longest[format]} at most` : undefined
}

// ---- upscale ----

/** `width` and `height` are those of the result, pixels; `tile`: the side of a network's tiles where it is said. */
const Enlarging = PicturePin.pick({ width: true, height: true }).extend({
  upscaler: z.union([z.enum(pixelUpscalers), ModelPin]),
  tile: TileSide.optional(),
})
/**
 * As it was done: `network` is the architecture of one, `tile` the side of its tiles where that decides pixels,
 * `exactness` where it is not that of the drawing.
 */
export const Enlargement = Enlarging.extend({ network: z.string().optional(), exactness: Exactness.optional() })
export type Enlargement = z.infer<typeof Enlargement>
/** As it is planned: a network that nobody has hashed has no hash yet. */
export const PlannedEnlargement = Enlarging.extend({
  upscaler: z.union([z.enum(pixelUpscalers), z.strictObject({ id: z.string(), bodyHash: Sha256.nullable() })]),
})
export type PlannedEnlargement = z.infer<typeof PlannedEnlargement>

// ---- all of them ----

const Converting = z.strictObject({ convert: Conversion })
/** One thing that was done to a picture. */
export const Postprocess = z.union([z.strictObject({ upscale: Enlargement }), z.strictObject({ enhance: Enhancement }), Converting])
export type Postprocess = z.infer<typeof Postprocess>
/** One that is to be done to the images of a session: grain may have their seeds, a network no hash yet. */
export const PlannedPostprocess = z.union([
  z.strictObject({ upscale: PlannedEnlargement }),
  z.strictObject({ enhance: Unseeded }),
  Converting,
])
export type PlannedPostprocess = z.infer<typeof PlannedPostprocess>

/** The same as a client asks for it: networks by their names alone. */
export function askedPostprocess(does: Postprocess | PlannedPostprocess): AskedPostprocess {
  if (!('upscale' in does)) return does
  const { upscaler, width, height, tile } = does.upscale
  return { upscale: { upscaler: typeof upscaler === 'string' ? upscaler : upscaler.id, width, height, ...(tile && { tile }) } }
}
export type AskedPostprocess =
  | { upscale: { upscaler: string; width: number; height: number; tile?: number } }
  | { enhance: Unseeded }
  | { convert: Conversion }

/** A picture that was made of another. */
export const PictureRef = ImageRef.omit({ seed: true }).extend({ mediaType: z.enum(pictureTypes) })
export type PictureRef = z.infer<typeof PictureRef>
