/** The text `darkroom`: a picture's own receipt. */
import { z } from 'zod'
import { textsOf, usesSyntax } from '../../prompt-syntax.ts'
import { Exactness, ImageRequest, type Mask, type Preprocessor } from '../../values.ts'
import { askedPostprocess, Postprocess } from '../settings.ts'
import { fromDetail } from './detail.ts'
import { jsonOf, Reading, type Asked } from './reading.ts'

/**
 * `workflow`: which one drew it, `name@version`; `postprocess`: what was done to it since; `editor`: by which program.
 */
export const Receipt = z.strictObject({
  workflow: z.string(),
  input: ImageRequest,
  exactness: Exactness,
  postprocess: z.array(Postprocess).optional(),
  editor: z.string().optional(),
})
export type Receipt = z.infer<typeof Receipt>

/** @throws Error that says why the text is no receipt */
export function parseReceipt(text: string): Receipt {
  const parsed = Receipt.safeParse(jsonOf(text))
  if (parsed.success) return parsed.data
  const [{ path, message } = { path: [], message: '' }] = parsed.error.issues
  throw new Error(`it is no receipt of this version: ${path.join('.') || 'all of it'}: ${message}`)
}

/** @throws Error as `parseReceipt` */
export function readReceipt(text: string): Reading {
  const { input, postprocess } = parseReceipt(text)
  const reading = new Reading('darkroom')
  Object.assign(reading.input, askedOf(input), postprocess && { postprocess: postprocess.map(askedPostprocess) })
  reading.modelHash = input.model.bodyHash
  return reading
}

/** The request as a client would send it. */
export function askedOf({ model, picture, mask, hires, detail, control, references, adapters, embeddings, ...same }: ImageRequest): Asked {
  const isPlain = same.promptSyntax === undefined && textsOf({ ...same, detail }).some(usesSyntax)
  return {
    model: model.id,
    ...same,
    // A client that says nothing of it means another.
    ...(isPlain && { promptSyntax: 'plain' }),
    ...(control && {
      control: control.map((each) => ({
        ...each,
        model: each.model.id,
        ...(each.picture && { picture: each.picture.sha256 }),
        ...(each.preprocessor && 'model' in each.preprocessor && { preprocessor: askedNetwork(each.preprocessor) }),
      })),
    }),
    ...(references && { references: references.map(({ sha256 }) => sha256) }),
    ...(adapters && { adapters: adapters.map((each) => ({ ...each, model: each.model.id })) }),
    ...(embeddings && { embeddings: embeddings.map((each) => each.model.id) }),
    ...(picture && { picture: picture.sha256 }),
    ...(hires && { hires: { ...hires, upscaler: typeof hires.upscaler === 'string' ? hires.upscaler : hires.upscaler.id } }),
    ...(mask && { mask: { ...mask, source: sourceOf(mask.source) } }),
    ...(detail && { detail: detail.map(fromDetail) }),
  } as Asked
}

const askedNetwork = ({ name, model }: Extract<Preprocessor, { model: unknown }>) => ({ name, model: model.id })

/** A box is a mask's source within a session alone. */
const sourceOf = (source: Mask['source']): string => (typeof source === 'string' ? source : 'sha256' in source ? source.sha256 : '')
