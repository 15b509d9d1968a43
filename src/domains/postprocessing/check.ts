import { z } from 'zod'
import { operation, type Tools } from '../operation.ts'
import { Drawn, PicturePin } from '../values.ts'
import { safetyError } from './safety/errors.ts'
import { judged, uncheckedVerdict, unscored } from './safety/judge.ts'
import { Classifiers, highest, Judgement, RawScores, scoresOf } from './safety/judgement.ts'
import { AppliedPolicy } from './safety/policy.ts'

const asked = z.strictObject({ picture: PicturePin, drawn: Drawn, classifiers: Classifiers.min(1) })
const answered = z.strictObject({ scores: RawScores.min(1) })

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
