/** What an image generation remembers between its steps, and what it asks of them. Pure. */
import { z } from 'zod'
import type { inference } from '../../domains/inference/index.ts'
import type { Judgement } from '../../domains/postprocessing/safety/judgement.ts'
import type { model } from '../../domains/model/index.ts'
import type { ImageRequest, ModelPin, Pass } from '../../domains/values.ts'
import type { WireError } from '../../errors.ts'
import { classOf } from './fast-input.ts'
import { memoryOf } from './memory-input.ts'
import { detailPass, finishedSize, firstPass, hasOwnTexts } from './passes.ts'
import { besideOf, pinnedRequest, PinnedInput, type Pinned } from './pinning.ts'
import type { FinishedImage, Saved } from './postprocess.ts'
import { seedsOf } from './prompt-input.ts'

export type DecodeOutput = z.infer<(typeof inference)['inference.decode']['output']>
export type HashDone = { output: z.infer<(typeof model)['model.hash']['output']> }
export type DenoiseOutput = z.infer<(typeof inference)['inference.denoise']['output']>

/** The request with everything filled in: the session's input, which never changes. */
export const ResolvedInput = PinnedInput.extend({ count: z.int(), pin: z.enum(['class', 'strict']) })
export type ResolvedInput = z.infer<typeof ResolvedInput>

/** What the machine is told besides the ends of its invoked steps. */
export type ImageEvent =
  | { type: 'class.lost' }
  | ({ type: `xstate.done.actor.save.${string}` } & Saved)
  | { type: `xstate.error.actor.save.${string}`; error: WireError; actorId: string }

export interface Context extends Pinned {
  input: ResolvedInput
  conditioning: string | null
  /** Of the picture to begin from, where there is one. Absent likewise. */
  pictureLatents?: string | null
  /** Images still to draw, by their number; the first is the one at work. */
  todo: number[]
  denoised: DenoiseOutput | null
  /** Latents for the second pass; what was drawn so far, and which region is drawn over it. Absent likewise. */
  enlarged?: string | null
  drawn?: DecodeOutput | null
  region?: number
  /** What policies say of what was drawn; and how often an image was drawn again because of that. Absent likewise. */
  judgement?: Judgement | null
  redrawn?: Record<number, number>
  images: Record<number, FinishedImage>
  /** How often a tensor that one step left for the next was gone. */
  lost: number
}

export const pinOf = (context: Context): ModelPin => pinnedRequest(context).model
export const current = (context: Context): number => context.todo[0] ?? 0

/**
 * What the pixels of image number `image` depend on. One that is drawn again has the seed of an image behind the last.
 */
export function requestOf(context: Context, image: number): ImageRequest {
  const { count, pin: _pin, ...input } = context.input
  const again = count * (context.redrawn?.[image] ?? 0)
  return { ...pinnedRequest({ ...context, input }), ...seedsOf(input, image + again) }
}

/** What is drawn over; of a session with a picture. */
export function pictureOf({ input: { picture = { sha256: '', width: 0, height: 0 }, resize, mask } }: Context) {
  return { picture, ...(resize && { resize }), ...(mask && { mask }) }
}

/** What is made larger for the second pass. */
export function enlargingOf(context: Context) {
  const { input, denoised } = context
  return {
    model: pinOf(context),
    from: { width: input.width, height: input.height },
    ...finishedSize(input),
    upscaler: pinnedRequest(context).hires?.upscaler ?? 'latent',
    ...memoryOf(input),
    ...classOf(input),
    latents: denoised?.latents ?? '',
  }
}

/** What a pass over something asks of `inference.denoise`; with texts of its own it encodes them itself. */
export function passOver(context: Context, pass: Pass, pictureLatents: string | null) {
  const first = firstPass(requestOf(context, current(context)))
  return { ...pass, conditioning: hasOwnTexts(pass, first) ? null : context.conditioning, pictureLatents: pictureLatents ?? '' }
}

/** The region at work, over what was drawn before it. */
export function regionOf(context: Context): Pass {
  const { pixels: sha256 = '', width = 0, height = 0 } = context.drawn ?? {}
  return detailPass(requestOf(context, current(context)), context.region ?? 0, { sha256, width, height })
}

/** What its pixels are encoded with, and decoded and pasted back with. */
export const regionOfPixels = (context: Context) => {
  const region = regionOf(context)
  const { model, width, height, mask, picture = { sha256: '', width: 0, height: 0 } } = region
  return { model, width, height, picture, ...(mask && { mask }), ...memoryOf(region), ...classOf(region), drawn: true as const }
}

/** Saves are spawned as `save.<image>`, what is done after them as `save.<image>.<number>`. */
export const imageOf = ({ actorId }: { actorId: string }): number => Number(actorId.split('.')[1])

export const isLost = (error: unknown): boolean =>
  ['artifact.missing', 'artifact.corrupt'].includes((error as Partial<WireError> | null)?.code ?? '')

/** How many steps a session takes. */
export function stepsOf(input: ResolvedInput): number {
  const { count, picture, hires, detail = [], postprocess = [], safety } = input
  const drawn = 2 + (hires ? 2 : 0) + 3 * detail.length + (safety ? 1 : 0)
  // An enlarged one is a step on the device, and one that writes its file.
  const enlarged = postprocess.filter(({ does }) => 'upscale' in does).length
  const ofImage = 1 + drawn * (1 + (safety?.redraws ?? 0)) + postprocess.length + enlarged
  return (picture ? 3 : 2) + ofImage * count + besideOf(input).length
}
