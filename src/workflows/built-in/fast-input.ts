/** The part of an image generation's form that speaks of its class: whether its bytes are promised. */
import type { FastSupport } from '../../domains/device/status.ts'
import { DrawingClass, StepCache, usualStepCache, type ImageRequest } from '../../domains/values.ts'
import { invalidFields } from '../../errors.ts'
import type { Model } from '../../models/entry.ts'
import { stepCached } from '../../models/families.ts'

/** What a form of a workflow that draws may say of its class. */
export const fastFields = {
  class: DrawingClass.optional().describe(
    'exact: the same bytes wherever it is drawn on such hardware; fast: no bytes are promised, and blocks of the network may be compiled, or left out by a step cache, as the receipt says; default: exact',
  ),
  stepCache: StepCache.optional().describe(
    `of a fast picture by a transformer: the first block may add so much else than before, as a share, for the others to be left out; 0 turns it off; default: ${usualStepCache}`,
  ),
}

type Class = Pick<ImageRequest, 'class' | 'stepCache'>

/**
 * `exact` is what is meant where nothing is said: the same request, and the same file.
 * @param devices what each device that may take it has for `fast`
 * @throws DarkroomError `api.invalid` where no device compiles, and for a `stepCache` that nothing heeds
 */
export function completeFast(
  { class: drawingClass = 'exact', stepCache }: Class,
  { id, family }: Pick<Model, 'id' | 'family'>,
  devices: readonly { device: string; fast: FastSupport }[],
): Class {
  const refuse = (field: keyof Class, message: string) => invalidFields([{ field: `input.${field}`, message }])
  const hasCache = (stepCached as readonly string[]).includes(family)
  if (drawingClass === 'exact') {
    if (stepCache !== undefined) throw refuse('stepCache', 'is heeded by pictures of the class fast alone: say class fast, or leave it out')
    return {}
  }
  if (stepCache !== undefined && !hasCache)
    throw refuse('stepCache', `must be left out for ${id} (${family}): families with a step cache are ${stepCached.join(', ')}`)
  if (devices.length > 0 && devices.every(({ fast }) => !fast.compiles)) {
    const why = devices.map(({ device, fast }) => `${device}: ${fast.why ?? 'its worker does not say'}`).join('; ')
    throw refuse('class', `must be exact: no device that may take it compiles for fast. ${why}`)
  }
  return { class: 'fast', ...(hasCache && { stepCache: stepCache ?? usualStepCache }) }
}

/** What a step is told of it that leads to the picture, or comes of it. */
export const classOf = ({ class: drawingClass }: Pick<Class, 'class'>): Pick<Class, 'class'> =>
  drawingClass === undefined ? {} : { class: drawingClass }
