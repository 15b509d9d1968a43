/** A picture made of another, in a process of its own: how that is run, and what the new one tells of itself. */
import { runApart, type ApartAnswer } from '../../artifacts/apart.ts'
import type { Tools } from '../operation.ts'
import type { Exactness, PicturePin } from '../values.ts'
import { postprocessingError } from './errors.ts'
import type { Postprocess } from './settings.ts'
import { tellingTexts } from './texts/index.ts'
import { parseReceipt } from './texts/receipt.ts'
import { version } from './versions.ts'

/** A step of a picture takes a second; one of the largest, as AVIF to a limit of bytes, some minutes. */
export const editing = { lane: 'host', attempts: 3, timeoutMs: 1_800_000 } as const

/** What changes pixels. It brings its own libvips, whose encoders may write other bytes in another version. */
const editor = `sharp ${version('sharp')}`

/**
 * Runs a program of this folder on a picture. It ends with the attempt.
 * @throws DarkroomError `postprocessing.failed`
 */
export async function edited(program: string, asked: object, picture: Uint8Array, { signal }: Pick<Tools, 'signal'>): Promise<ApartAnswer> {
  return runApart({
    program: new URL(program, import.meta.url),
    args: [JSON.stringify(asked)],
    input: picture,
    limitMs: editing.timeoutMs,
    signal,
  }).catch((error: Error) => {
    throw postprocessingError('failed', `the picture could not be processed: ${error.message}`, { cause: error })
  })
}

/** What made a picture of another one: a program of here, or a device of that exactness. */
type By = { editor: string } | { exactness: Exactness }

/**
 * The texts of a picture that was made of another: those of the other one that tell of its request. A receipt of
 * Darkroom says what was done since; without one, the new picture says what it was made of.
 * @param file that other one, which `picture` names
 */
export function textsAfter(file: Uint8Array, picture: PicturePin, done: Postprocess, by: By = { editor }): Map<string, string> {
  const texts = new Map(tellingTexts(file))
  return texts.set('darkroom', JSON.stringify(receiptAfter(texts.get('darkroom'), picture, done, by)))
}

function receiptAfter(text: string | undefined, picture: PicturePin, done: Postprocess, by: By): object {
  const receipt = receiptOf(text)
  if (!receipt) {
    const [verb = '', settings] = Object.entries(done)[0] ?? []
    return { workflow: `image-${verb}@1`, input: { picture, ...(settings as object) }, ...by }
  }
  const before = receipt.postprocess ?? []
  if ('editor' in by) return { ...receipt, postprocess: [...before, done], ...by }
  const isOther = 'upscale' in done && by.exactness.key !== receipt.exactness.key
  return { ...receipt, postprocess: [...before, isOther ? { upscale: { ...done.upscale, ...by } } : done] }
}

/** Undefined for a picture that Darkroom has not drawn. */
function receiptOf(text: string | undefined) {
  try {
    return text === undefined ? undefined : parseReceipt(text)
  } catch {
    return undefined
  }
}
