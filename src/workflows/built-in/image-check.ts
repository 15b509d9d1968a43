import { assign, setup } from 'xstate'
import { z } from 'zod'
import { unchecked } from '../../domains/postprocessing/check.ts'
import { Judgement } from '../../domains/postprocessing/safety/judgement.ts'
import { ImageRequest, PictureId, PicturePin } from '../../domains/values.ts'
import type { WireError } from '../../errors.ts'
import { defineWorkflow } from '../define.ts'
import { steps } from '../step.ts'
import { namedPolicies, pinsOf, policyFields, unhashed } from './policy-input.ts'
import { allowsUnchecked, appliedTo, classifiersOf, Safety } from './safety-input.ts'

const Resolved = Safety.pick({ policies: true }).extend({ picture: PicturePin })
type Resolved = z.infer<typeof Resolved>
const Output = Judgement.meta({ id: 'PictureCheck' })
type Output = z.infer<typeof Output>

interface Context {
  input: Resolved
  /** Of classifiers that the input has none of. */
  hashes: Record<string, string>
  judgement: Output | null
}

/** Why no classifier looks at it. */
const missingOf = ({ policies }: Resolved): string => `there is no classifier ${policies.flatMap(({ missing = [] }) => missing).join(', ')}`

/** [hash] → check. */
const machine = setup({
  types: { context: {} as Context, input: {} as Resolved, output: {} as Output },
  actors: steps('model.hash', 'postprocessing.check'),
  guards: {
    isPinned: ({ context: { input, hashes } }) => unhashed(classifiersOf(input), hashes) === undefined,
    hasNone: ({ context: { input } }) => classifiersOf(input).length === 0,
    mayPassUnchecked: ({ context: { input }, event }) =>
      allowsUnchecked(input) && !(event as unknown as { error: WireError }).error.code.startsWith('artifact.'),
  },
}).createMachine({
  id: 'image-check',
  context: ({ input }) => ({ input, hashes: {}, judgement: null }),
  initial: 'pinning',
  states: {
    pinning: {
      always: [
        {
          guard: 'hasNone',
          target: 'done',
          actions: assign({ judgement: ({ context: { input } }) => unchecked(input.policies, missingOf(input)) }),
        },
        { guard: 'isPinned', target: 'checking' },
        { target: 'hashing' },
      ],
    },
    hashing: {
      invoke: {
        id: 'hash',
        src: 'model.hash',
        input: ({ context: { input, hashes } }) => ({
          model: { id: unhashed(classifiersOf(input), hashes)?.id ?? '', bodyHash: null, kind: 'classifier' as const },
        }),
        onDone: {
          target: 'pinning',
          actions: assign({
            hashes: ({ context, event: { output } }) => ({ ...context.hashes, [output.model.id]: output.model.bodyHash }),
          }),
        },
      },
    },
    checking: {
      invoke: {
        id: 'check',
        src: 'postprocessing.check',
        input: ({ context: { input, hashes } }) => ({ ...input, classifiers: pinsOf(classifiersOf(input), hashes) }),
        onDone: { target: 'done', actions: assign({ judgement: ({ event }) => event.output }) },
        onError: {
          guard: 'mayPassUnchecked',
          target: 'done',
          actions: assign({
            judgement: ({ context: { input }, event }) => unchecked(input.policies, (event.error as WireError).message),
          }),
        },
      },
    },
    done: { type: 'final' },
  },
  output: ({ context: { input, judgement } }) => judgement ?? unchecked(input.policies, missingOf(input)),
})

export const imageCheck = defineWorkflow({
  name: 'image-check',
  title: 'Check a picture',
  description:
    'What policies of content safety say of a picture: the verdict with its rule and what would pass, and the scores of their classifiers. Nothing is done with the picture.',
  input: z.strictObject({
    picture: PictureId.describe('id of the picture'),
    ...policyFields,
    prompt: ImageRequest.shape.prompt.max(8000).optional().describe('that rules on prompts look at; default: they look at none'),
  }),
  output: Output,
  machine,
  async resolveInput({ picture, prompt, ...named }, catalogue) {
    const { sha256, width, height } = await catalogue.picture(picture, 'input.picture')
    const asked = { texts: prompt === undefined ? [] : [prompt], keyId: catalogue.keyId }
    const texts = await namedPolicies(named, catalogue)
    const policies = await Promise.all(texts.map((text) => appliedTo(text, asked, catalogue, 'input.policy')))
    return Resolved.parse({ picture: { sha256, width, height }, policies })
  },
  steps: (input) => 1 + classifiersOf(input as Resolved).length,
  route: { method: 'post', path: '/images/check', body: 'CheckPicture', answers: 'The verdict' },
  resources: { lanes: ['gpu', 'host'], note: 'one device; memory by the classifiers' },
})
