import { z } from 'zod'
import { workerError } from '../../errors.ts'
import { operation } from '../operation.ts'
import { PicturePin } from '../values.ts'
import { CategoryScores, Classifiers, highest, RawScores } from './safety/judgement.ts'

/** Pictures that are looked at in one step. */
export const mostScored = 16

const request = z.strictObject({ pictures: z.array(PicturePin).min(1).max(mostScored), classifiers: Classifiers.min(1) })
/** In the order of the pictures; `problem`: why one could not be looked at, which has no scores. */
const answered = z.strictObject({
  pictures: z.array(z.strictObject({ scores: RawScores, problem: z.string().nullable() })),
})

/**
 * What classifiers say of pictures that are kept: scores alone, which no policy has judged.
 * @throws DarkroomError `safety.classifier_broken`, `worker.protocol`
 */
export const score = operation({
  lane: 'gpu',
  attempts: 3,
  timeoutMs: 600_000,
  needs: ({ classifiers }) => ({ models: classifiers.map((each) => ({ ...each, kind: 'classifier' as const })) }),
  input: request,
  output: z.strictObject({
    pictures: z.array(z.strictObject({ scores: CategoryScores.nullable(), problem: z.string().nullable() })),
  }),
  python: { input: request, output: answered, files: { numbered: 'picture' } },
  async run(given, tools) {
    const files = Object.fromEntries(given.pictures.map(({ sha256 }, n) => [`picture${n}`, sha256]))
    const { pictures } = answered.parse((await tools.python(given, files)).output)
    const [asked, told] = [given.pictures.length, pictures.length]
    if (asked !== told) throw workerError('protocol', `the Python child answered for ${told} pictures, and was asked about ${asked}`)
    return {
      pictures: pictures.map(({ scores, problem }) => ({
        scores: problem === null ? highest(given.classifiers, scores) : null,
        problem,
      })),
    }
  },
})
