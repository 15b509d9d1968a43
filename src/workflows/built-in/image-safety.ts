/** How an image generation has its pictures judged between decode and save. Pure. */
import { unchecked } from '../../domains/postprocessing/check.ts'
import type { Judgement } from '../../domains/postprocessing/safety/judgement.ts'
import type { FinishedImage } from './postprocess.ts'
import { pinnedClassifiers } from './pinning.ts'
import { allowsUnchecked, classifiersOf } from './safety-input.ts'
import { current, type Context } from './image-state.ts'

/** Whether a classifier is to look at what was drawn. */
export const isToCheck = ({ input: { safety } }: Context): boolean => classifiersOf(safety).length > 0

/** What is asked of the classifiers, about what was drawn. */
export function checkOf(context: Context) {
  const { pixels: sha256 = '', width = 0, height = 0 } = context.drawn ?? {}
  return {
    picture: { sha256, width, height },
    drawn: true as const,
    classifiers: pinnedClassifiers(context),
    policies: policiesOf(context),
  }
}

function policiesOf({ input: { safety } }: Context) {
  if (!safety) throw new Error('no policy applies to this session')
  return safety.policies
}

/** Whether a policy has blocked it, and it may be drawn again. */
export function mayRedraw(context: Context, { action }: Judgement): boolean {
  return action === 'block' && (context.redrawn?.[current(context)] ?? 0) < (context.input.safety?.redraws ?? 0)
}

/** One time more for the image at work. */
export const withRedraw = (context: Context): Pick<Context, 'redrawn'> => ({
  redrawn: { ...context.redrawn, [current(context)]: (context.redrawn?.[current(context)] ?? 0) + 1 },
})

/** Whether it may pass although its check has failed. */
export const mayPassUnchecked = ({ input: { safety } }: Context): boolean => safety !== undefined && allowsUnchecked(safety)

/** The judgement of one that was not checked. */
export const uncheckedOf = (context: Context, why: string): Judgement => unchecked(policiesOf(context), why)

/** What the save is told of the policies; nothing where none applies. */
export function judgedAs(context: Context): { safety?: Judgement; blockedForS?: number } {
  const { safety } = context.input
  if (!safety) return {}
  const missing = safety.policies.flatMap((policy) => policy.missing ?? [])
  const judgement = context.judgement ?? uncheckedOf(context, `there is no classifier ${missing.join(', ')}`)
  return { safety: judgement, blockedForS: Math.min(...safety.policies.map((policy) => policy.blockedForS)) }
}

const isBlocked = ({ safety }: FinishedImage): boolean => safety?.action === 'block'

/** A blocked picture as the session tells of it: its bytes are for operators. */
const blockedAs = ({ sha256, seed, width, height, bytes, safety }: FinishedImage) => ({
  artifact: sha256,
  seed,
  width,
  height,
  bytes,
  ...(safety && { safety }),
})

/** What came of the images: those that passed, and where there are any those that were blocked. */
export function outputOf({ images }: Context) {
  const all = Object.values(images)
  const blocked = all.filter(isBlocked).map(blockedAs)
  return { images: all.filter((image) => !isBlocked(image)), ...(blocked.length > 0 && { blocked }) }
}
