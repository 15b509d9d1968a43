/**
 * The part of an image generation's form that speaks of how its texts are read, how they lead the picture, and of the
 * noise that it begins with; and how that part is completed.
 */
import { z } from 'zod'
import type { Catalogue } from '../../domains/operation.ts'
import { textsOf, usesSyntax } from '../../domains/prompt-syntax.ts'
import { ClipSkip, Fraction, maxSeed, PromptSyntax, Seed, type ImageRequest } from '../../domains/values.ts'
import { invalidFields, type FieldProblem } from '../../errors.ts'
import type { Model } from '../../models/entry.ts'
import { familyNames } from '../../models/families.ts'
import { isFlow } from '../../models/flow.ts'

const share = (what: string) => Fraction.describe(`${what}, 0 to 1`)

const VariationInput = z.strictObject({
  seed: Seed.optional().describe(
    'seed of the other noise, for the first image; image i has it + i, and all have one `seed`; drawn when left out',
  ),
  strength: share('how far the first noise lies towards the other'),
})
const IntervalInput = z.strictObject({
  start: share('share of the denoise calls that come before guidance').default(0),
  end: share('share of them after which it ends').default(1),
})

/** What a form of a workflow that draws may say of its texts and what they lead. */
export const promptFields = {
  promptSyntax: PromptSyntax.optional().describe(
    'how brackets are read: `plain` as letters; `a1111` and `comfy` as weights, (word:1.3), [word], and BREAK; default: a1111, plain for models that hear no weights',
  ),
  clipSkip: ClipSkip.optional().describe('layer of CLIP’s text encoder that is heard, from the end; default: the model’s own'),
  variation: VariationInput.optional().describe('a first noise beside that of the seed'),
  guidanceRescale: share('how much guidance is kept from overexposing').optional(),
  guidanceInterval: IntervalInput.optional().describe('the part of the denoise calls that is guided; default: all'),
}

/** As python/darkroom/prompts.py has it. */
const mostWeight = 10

type Texts = Pick<ImageRequest, 'prompt' | 'negativePrompt'>
type Said = z.output<z.ZodObject<typeof promptFields>>
type Given = Said & Parameters<typeof textsOf>[0] & { guidance?: number | undefined; steps?: number | undefined; count: number }
type Leading = Pick<Model, 'id' | 'family' | 'recommended' | 'limits'>
type Completed = Pick<ImageRequest, keyof typeof promptFields>

/**
 * What is said of the texts, with everything filled in; what is not said stays absent, but for the syntax of a text
 * that has one.
 * @throws DarkroomError `api.invalid`
 */
export function completePrompt(given: Given, model: Leading, { draw }: Pick<Catalogue, 'draw'>): Completed {
  const { clipSkip, variation, guidanceRescale, guidanceInterval } = given
  const promptSyntax = given.promptSyntax ?? (!isFlow(model.family) && textsOf(given).some(usesSyntax) ? 'a1111' : undefined)
  const problems = [...contradictions(given, model.recommended), ...unheard(given, model)]
  if (promptSyntax !== undefined && promptSyntax !== 'plain') problems.push(...heavyWeights(given))
  if (problems.length > 0) throw invalidFields(problems)
  return {
    // Absent is plain: what draws the same picture is the same request.
    ...(promptSyntax && promptSyntax !== 'plain' && { promptSyntax }),
    ...(clipSkip !== undefined && { clipSkip }),
    ...(variation && variation.strength > 0 && { variation: { seed: variation.seed ?? draw(2 ** 32), strength: variation.strength } }),
    ...(guidanceRescale !== undefined && { guidanceRescale }),
    ...(guidanceInterval && { guidanceInterval }),
  }
}

/** What cannot be meant, whatever the model is. */
function contradictions(given: Given, recommended: Leading['recommended']): FieldProblem[] {
  const { guidance = recommended.guidance, steps = recommended.steps, variation, guidanceRescale, guidanceInterval, count } = given
  const problems: FieldProblem[] = []
  const problem = (field: string, message: string): void => void problems.push({ field: `input.${field}`, message })
  if (guidance <= 1)
    for (const [field, value] of Object.entries({ guidanceRescale, guidanceInterval }))
      if (value !== undefined)
        problem(field, `is said of guidance, and guidance ${guidance} is none: raise \`guidance\` above 1, or leave it out`)
  if (guidanceInterval) {
    const { start, end } = guidanceInterval
    if (start >= end) problem('guidanceInterval.end', `must be more than start, ${start}`)
    else if (Math.floor(start * steps) >= Math.floor(end * steps))
      problem('guidanceInterval', `from ${start} to ${end} of ${steps} steps is less than one: nothing would be guided; widen it`)
  }
  if (variation?.seed !== undefined && variation.seed > maxSeed - (count - 1))
    problem('variation.seed', `the last image would have one beyond 2^53 - 1, which is ${maxSeed}`)
  return problems
}

/** What a model of another family than CLIP's cannot heed. */
function unheard({ promptSyntax, clipSkip, guidanceRescale, guidanceInterval }: Said, { id, family, limits }: Leading): FieldProblem[] {
  if (!isFlow(family)) return []
  const name = `${id} (${familyNames[family]})`
  const problems: FieldProblem[] = []
  if (promptSyntax !== undefined && promptSyntax !== 'plain')
    problems.push({ field: 'input.promptSyntax', message: `must be plain or left out for ${name}, which hears no weights` })
  if (clipSkip !== undefined)
    problems.push({ field: 'input.clipSkip', message: `must be left out for ${name}, whose text encoder’s layer is its own` })
  if (guidanceRescale !== undefined)
    problems.push({ field: 'input.guidanceRescale', message: `must be left out for ${name}, which draws by flow matching` })
  if (guidanceInterval !== undefined && limits?.guidance === 'input')
    problems.push({
      field: 'input.guidanceInterval',
      message: `must be left out for ${name}, which takes guidance as an input in every call`,
    })
  return problems
}

/** Numbers behind a colon that end a bracket, and are no weight of a word. */
function heavyWeights(given: Texts): FieldProblem[] {
  return (['prompt', 'negativePrompt'] as const).flatMap((field) => {
    let open = 0
    for (const [sign, number] of given[field].matchAll(/\\[\\()[\]]|\(|:\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*\)|\)/g)) {
      if (number !== undefined && open > 0 && Math.abs(Number(number)) > mostWeight) {
        const way = 'write \\( and \\) for brackets that are letters, or send `promptSyntax`: "plain"'
        return [{ field: `input.${field}`, message: `has the weight ${number}; it must be from -${mostWeight} to ${mostWeight}: ${way}` }]
      }
      if (sign === '(') open++
      else if (sign.endsWith(')') && !sign.startsWith('\\')) open = Math.max(0, open - 1)
    }
    return []
  })
}

/** What the text encoder is told. */
export const readingOf = ({
  prompt,
  negativePrompt,
  guidance,
  promptSyntax,
  clipSkip,
}: Pick<ImageRequest, 'prompt' | 'negativePrompt' | 'guidance' | 'promptSyntax' | 'clipSkip'>) => ({
  prompt,
  negativePrompt,
  guidance,
  ...(promptSyntax && { promptSyntax }),
  ...(clipSkip !== undefined && { clipSkip }),
})

/** The seeds of image number `image`: with a variation it is the other noise's that counts on, as in the web UI. */
export const seedsOf = ({ seed, variation }: Pick<ImageRequest, 'seed' | 'variation'>, image: number) =>
  variation ? { seed, variation: { ...variation, seed: variation.seed + image } } : { seed: seed + image }
