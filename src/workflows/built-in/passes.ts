/** The passes of one image: the first, an enlarged one, and one for each region; what each asks of its steps. Pure. */
import { sizeOf } from '../../domains/inference/picture.ts'
import type { Detail, Hires, ImageRequest, Pass, PicturePin } from '../../domains/values.ts'
import { scheduledSteps } from './hires-input.ts'

type Request = ImageRequest
/** A request whose upscaler may have no hash yet. */
export type Shape = Omit<Request, 'hires'> & { hires?: Omit<Hires, 'upscaler'> | undefined }

/** Without what an image has besides it. */
export function firstPass({ hires: _hires, detail: _detail, ...request }: Request): Pass {
  return request
}

/** The size of what comes out of the first passes, in pixels: regions lie in it. */
export const finishedSize = (request: Pick<Shape, 'width' | 'height' | 'picture' | 'mask' | 'hires'>) =>
  request.hires ? { width: request.hires.width, height: request.hires.height } : sizeOf(request)

/** The second pass, over what the first one drew; for an image with one. */
export function hiresPass(request: Request): Pass & { enlarged: true } {
  const { schedule, ...first } = firstPass(request)
  const {
    steps = 1,
    strength = 1,
    sampler,
    schedule: own,
    prompt = first.prompt,
    negativePrompt = first.negativePrompt,
  } = request.hires ?? {}
  const pair = sampler === undefined ? { ...(schedule && { schedule }) } : { sampler, ...(own && { schedule: own }) }
  const texts = { prompt, negativePrompt }
  return { ...first, ...pair, ...texts, ...finishedSize(request), strength, steps: scheduledSteps({ steps, strength }), enlarged: true }
}

/** The pass of a region, over the picture that was drawn so far. What steers a whole picture steers no part of it. */
export function detailPass(request: Request, number: number, drawn: PicturePin): Pass {
  const { resize: _, control: _control, ...first } = firstPass(request)
  const {
    source,
    padding,
    blur,
    prompt = first.prompt,
    negativePrompt = first.negativePrompt,
    ...rest
  } = request.detail?.[number] ?? ({} as Detail)
  const mask = { source, invert: false, grow: 0, blur, fill: 'original', area: 'masked', padding } as const
  return { ...first, ...rest, prompt, negativePrompt, picture: drawn, mask }
}

/** Whether a pass hears other texts than the first one, whose conditioning it then cannot take. */
export const hasOwnTexts = ({ prompt, negativePrompt }: Pick<Request, 'prompt' | 'negativePrompt'>, first: Pass): boolean =>
  prompt !== first.prompt || negativePrompt !== first.negativePrompt

/** What each pass costs, roughly: pixels times calls. */
export function costsOf(request: Pick<Shape, 'width' | 'height' | 'steps' | 'strength' | 'hires' | 'detail'>): number[] {
  const first = request.width * request.height * request.steps * (request.strength ?? 1)
  const { hires, detail = [] } = request
  return [
    first,
    ...(hires ? [hires.width * hires.height * hires.steps] : []),
    ...detail.map(({ width, height, strength }) => width * height * request.steps * strength),
  ]
}

/** The parts of a request that a model and a device must be able to draw, by the field that each stands in. */
export function partsOf<Input extends Pick<Shape, 'width' | 'height' | 'steps' | 'hires' | 'detail'>>(
  input: Input,
): [at: string, part: Input][] {
  const { hires, detail = [] } = input
  const larger: [string, Input][] = hires ? [['input.hires', { ...input, ...hires, steps: scheduledSteps(hires) }]] : []
  return [
    ['input', input],
    ...larger,
    ...detail.map(({ width, height }, i): [string, Input] => [`input.detail.${i}.size`, { ...input, width, height }]),
  ]
}
