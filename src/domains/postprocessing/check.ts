import { z } from 'zod'
import { operation, type Tools } from '../operation.ts'
import { Fraction, ModelPin, PicturePin } from '../values.ts'
import { safetyError } from './safety/errors.ts'
import { judged, uncheckedVerdict, unscored, Verdict, type Scores } from './safety/judge.ts'
import { AppliedPolicy } from './safety/policy.ts'

/** Set where the picture is what the session has drawn: pixels, and no PNG. */
const Drawn = z.literal(true).optional()
const Classifiers = z.array(ModelPin.pick({ id: true, bodyHash: true }))

const asked = z.strictObject({ picture: PicturePin, drawn: Drawn, classifiers: Classifiers.min(1) })
/** In the order of the classifiers: the score of each category that it knows. */
const answered = z.strictObject({ scores: z.array(z.array(z.strictObject({ category: z.string(), score: Fraction })).min(1)).min(1) })

/** A verdict with what it follows from. */
export const Judgement = Verdict.extend({
  /** By category the highest score, and which of the classifiers gave it. */
  scores: z.record(z.string(), z.strictObject({ score: Fraction, by: z.string() })),
  classifiers: Classifiers,
})
export type Judgement = z.infer<typeof Judgement>

/** By category the highest of several scores: a picture is as bad as the strictest classifier has it. */
function highest(classifiers: z.infer<typeof Classifiers>, all: z.infer<typeof answered>['scores']): Judgement['scores'] {
  const scores = new Map<string, Judgement['scores'][string]>()
  for (const [i, { id }] of classifiers.entries()) {
    for (const { category, score } of all[i] ?? []) if (score >= (scores.get(category)?.score ?? 0)) scores.set(category, { score, by: id })
  }
  return Object.fromEntries(scores)
}

const scoresOf = (scores: Judgement['scores']): Scores =>
  Object.fromEntries(Object.entries(scores).map(([category, { score }]) => [category, score]))

/**
 * What policies say of a picture, by the scores of their classifiers.
 * @throws DarkroomError `safety.classifier_broken` when a category that a policy asks for has no score;
 * `artifact.missing` when the pixels are gone: the machine draws them again
 */
export const check = operation({
  lane: 'gpu',
  attempts: 3,
  timeoutMs: 120_000,
  needs: ({ classifiers }) => ({ models: classifiers.map((each) => ({ ...each, kind: 'classifier' as const })) }),
  input: asked.extend({ policies: z.tuple([AppliedPolicy], AppliedPolicy) }),
  output: Judgement,
  python: { input: asked, output: answered, files: ['picture'] },
  async run({ policies, ...request }, tools: Tools) {
    const { classifiers, picture } = request
    const { scores: all } = answered.parse((await tools.python(request, { picture: picture.sha256 })).output)
    const scores = highest(classifiers, all)
    const known = scoresOf(scores)
    const lacking = policies.flatMap((policy) => unscored(policy, known).map((category) => ({ policy, category })))
    const [refused] = lacking.filter(({ policy }) => !policy.allowUnchecked)
    const names = classifiers.map(({ id }) => id).join(', ')
    if (refused)
      throw safetyError(
        'classifier_broken',
        `policy ${refused.policy.name} asks for ${refused.category}, of which ${names} ${classifiers.length > 1 ? 'say' : 'says'} nothing`,
      )
    const why = `no classifier scores ${[...new Set(lacking.map(({ category }) => category))].join(', ')}`
    const verdict = lacking.length > 0 ? { ...judged(policies, known), unchecked: why } : judged(policies, known)
    return { ...verdict, scores, classifiers }
  },
})

/** What policies say where no classifier has looked, with the reason. */
export const unchecked = (policies: z.infer<typeof check.input>['policies'], why: string): Judgement => ({
  ...uncheckedVerdict(policies, why),
  scores: {},
  classifiers: [],
})
