import { assign, setup } from 'xstate'
import { z } from 'zod'
import { mostRejudged, PolicyText } from '../../domains/postprocessing/rejudge.ts'
import { ClassifierPin } from '../../domains/postprocessing/safety/policy.ts'
import type { CategoryScores } from '../../domains/postprocessing/safety/judgement.ts'
import { mostScored } from '../../domains/postprocessing/score.ts'
import { PictureId, PicturePin } from '../../domains/values.ts'
import { invalidFields } from '../../errors.ts'
import { defineWorkflow } from '../define.ts'
import { steps } from '../step.ts'
import { namedPolicies, pinsOf, policyFields, unhashed } from './policy-input.ts'
import { emptyTally, tallied, Tally } from './rejudging.ts'
import { appliedTo, classifiersOf } from './safety-input.ts'

const mostPictures = 2000

/** `classifiers`: that look at the pictures; none where their stored scores are judged. */
const Resolved = z.strictObject({
  pictures: z.array(PicturePin),
  policies: z.tuple([PolicyText], PolicyText),
  classifiers: z.array(ClassifierPin),
})
type Resolved = z.infer<typeof Resolved>

const Output = Tally.extend({
  leftOut: z.array(z.string()).meta({ description: 'rules that ask whose request it was: nobody knows that of a file' }),
}).meta({ id: 'RejudgedPictures' })

interface Context {
  input: Resolved
  hashes: Record<string, string>
  /** How many pictures are done. */
  at: number
  /** Of those that are judged next, where they were looked at. */
  scored: { scores: CategoryScores | null; problem: string | null }[]
  tally: Tally
}

const isAnew = ({ classifiers }: Resolved): boolean => classifiers.length > 0
const nextOf = ({ input, at }: Context) => input.pictures.slice(at, at + (isAnew(input) ? mostScored : mostRejudged))

/** [hash] → for each stretch of pictures: [score] → rejudge. */
const machine = setup({
  types: { context: {} as Context, input: {} as Resolved, output: {} as z.infer<typeof Output> },
  actors: steps('model.hash', 'postprocessing.score', 'postprocessing.rejudge'),
  guards: {
    isPinned: ({ context: { input, hashes } }) => unhashed(input.classifiers, hashes) === undefined,
    isDone: ({ context: { input, at } }) => at >= input.pictures.length,
    isAnew: ({ context: { input } }) => isAnew(input),
  },
}).createMachine({
  id: 'image-rejudge',
  context: ({ input }) => ({ input, hashes: {}, at: 0, scored: [], tally: emptyTally() }),
  initial: 'pinning',
  states: {
    pinning: { always: [{ guard: 'isPinned', target: 'choosing' }, { target: 'hashing' }] },
    hashing: {
      invoke: {
        id: 'hash',
        src: 'model.hash',
        input: ({ context: { input, hashes } }) => ({
          model: { id: unhashed(input.classifiers, hashes)?.id ?? '', bodyHash: null, kind: 'classifier' as const },
        }),
        onDone: {
          target: 'pinning',
          actions: assign({
            hashes: ({ context, event: { output } }) => ({ ...context.hashes, [output.model.id]: output.model.bodyHash }),
          }),
        },
      },
    },
    choosing: {
      always: [{ guard: 'isDone', target: 'done' }, { guard: 'isAnew', target: 'scoring' }, { target: 'judging' }],
    },
    scoring: {
      invoke: {
        id: 'score',
        src: 'postprocessing.score',
        input: ({ context }) => ({ pictures: nextOf(context), classifiers: pinsOf(context.input.classifiers, context.hashes) }),
        onDone: { target: 'judging', actions: assign({ scored: ({ event }) => event.output.pictures }) },
      },
    },
    judging: {
      invoke: {
        id: 'rejudge',
        src: 'postprocessing.rejudge',
        input: ({ context }) => ({
          pictures: nextOf(context).map(({ sha256 }, i) => ({ sha256, ...context.scored[i] })),
          policies: context.input.policies,
          ...(isAnew(context.input) && { classifiers: pinsOf(context.input.classifiers, context.hashes) }),
        }),
        onDone: {
          target: 'choosing',
          actions: assign(({ context, event: { output } }) => ({
            at: context.at + output.verdicts.length,
            scored: [],
            tally: tallied(context.tally, output.verdicts),
          })),
        },
      },
    },
    done: { type: 'final' },
  },
  output: ({ context: { tally, input } }) => ({
    ...tally,
    leftOut: input.policies.flatMap(({ name, policy }) =>
      policy.rules.filter(({ keys }) => keys !== undefined).map((rule) => `${name}: ${rule.name}`),
    ),
  }),
})

export const imageRejudge = defineWorkflow({
  name: 'image-rejudge',
  title: 'Judge pictures again',
  description:
    'What policies say now of pictures that are kept, against what was done with them: by the scores that are kept beside them, which needs no device, or anew by the classifiers. Nothing is drawn, and nothing is done with the pictures.',
  input: z.strictObject({
    pictures: z.array(PictureId).min(1).max(mostPictures).optional().describe('ids of the pictures'),
    session: z.string().min(1).max(64).optional().describe('in place of them: a session, whose pictures they are, a batch too'),
    ...policyFields,
    anew: z.boolean().default(false).describe('whether the classifiers look at them again; else their stored scores are judged'),
  }),
  output: Output,
  machine,
  async resolveInput({ pictures, session, anew, ...named }, catalogue) {
    if ((pictures === undefined) === (session === undefined))
      throw invalidFields([{ field: 'input.pictures', message: 'must be said, or a session: one of the two' }])
    const ids = new Set(pictures ?? (await catalogue.results(session ?? '', 'input.session')).pictures.filter((id) => id !== null))
    const field = pictures ? 'input.pictures' : 'input.session'
    if (ids.size === 0 || ids.size > mostPictures)
      throw invalidFields([{ field, message: `has ${ids.size} pictures, and 1 to ${mostPictures} are judged at a time` }])
    const found: z.infer<typeof PicturePin>[] = []
    for (const id of ids) {
      const { sha256, width, height } = await catalogue.picture(id, field)
      found.push({ sha256, width, height })
    }
    const policies = await namedPolicies(named, catalogue)
    const asked = { texts: [], keyId: null }
    const applied = anew ? await Promise.all(policies.map((policy) => appliedTo(policy, asked, catalogue, 'input.policy'))) : []
    const [first, ...more] = applied
    const classifiers = first ? classifiersOf({ policies: [first, ...more] }) : []
    return Resolved.parse({ pictures: found, policies, classifiers })
  },
  progress(context, step, fraction) {
    const { input, at, scored } = context as Context
    const next = nextOf(context as Context).length
    const half = isAnew(input) ? (step === 'postprocessing.rejudge' || scored.length > 0 ? 1 : fraction) : fraction
    return { fraction: Math.min(0.999, (at + (step === 'model.hash' ? 0 : half * next)) / input.pictures.length) }
  },
  steps(input) {
    const { pictures, classifiers } = input as Resolved
    const stretch = classifiers.length > 0 ? mostScored / 2 : mostRejudged
    return classifiers.length + Math.ceil(pictures.length / stretch)
  },
  route: { method: 'post', path: '/images/rejudge', body: 'RejudgePictures', answers: 'What they are now' },
  resources: { lanes: ['gpu', 'host'], note: 'by stored scores no device; anew one, with memory by the classifiers' },
})
