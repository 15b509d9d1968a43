/** What a model's family cannot draw is refused at submit, by the field that asks for it. */
import { closest } from 'fastest-levenshtein'
import type { ImageRequest } from '../../domains/values.ts'
import { invalidFields } from '../../errors.ts'
import type { Model } from '../../models/entry.ts'
import { familyNames } from '../../models/families.ts'

type Asked = Pick<ImageRequest, 'width' | 'height' | 'steps' | 'guidance' | 'negativePrompt' | 'sampler' | 'schedule'>

/**
 * @param at the field that refusals name the others within
 * @throws DarkroomError `api.invalid` with every field that the model of `limits` cannot heed, and what to say instead
 */
export function checkLimits({ id, family, limits }: Pick<Model, 'id' | 'family' | 'limits'>, asked: Asked, at = 'input'): void {
  if (!limits) return
  const { multiple = 1, side: most = Infinity, steps: trained = Infinity, samplers, guidance = 'free' } = limits
  const name = `${id} (${(familyNames as Record<string, string>)[family] ?? family})`
  const problems: { field: string; message: string }[] = []
  const refuse = (field: keyof Asked, message: string) => problems.push({ field: `${at}.${field}`, message })
  for (const side of ['width', 'height'] as const) {
    if (asked[side] % multiple !== 0) {
      const nearest = Math.max(multiple, Math.round(asked[side] / multiple) * multiple)
      refuse(side, `must be a multiple of ${multiple} for ${name}, such as ${nearest}, not ${asked[side]}`)
    }
    if (asked[side] > most) refuse(side, `must be at most ${most} for ${name}, which has learnt so many places, not ${asked[side]}`)
  }
  if (asked.steps > trained) refuse('steps', `must be at most ${trained} for ${name}, which was trained with so many, not ${asked.steps}`)
  if (samplers && !samplers.includes(asked.sampler)) {
    const nearest = closest(asked.sampler, [...samplers])
    refuse(
      'sampler',
      `must be one of ${samplers.join(', ')} for ${name}, which draws by flow matching; the nearest to ${asked.sampler} is ${nearest}`,
    )
  }
  if (samplers && asked.schedule !== undefined)
    refuse('schedule', `must be Automatic or left out for ${name}, whose model says how its steps are spread, not ${asked.schedule}`)
  if (guidance === 'none' && asked.guidance > 1)
    refuse('guidance', `must be 1 or left out for ${name}, which has no guidance, not ${asked.guidance}`)
  if (guidance !== 'free' && asked.negativePrompt !== '')
    refuse('negativePrompt', `must be left out for ${name}, which hears no negative prompt; say in \`prompt\` what to draw instead`)
  if (problems.length > 0) throw invalidFields(problems)
}
