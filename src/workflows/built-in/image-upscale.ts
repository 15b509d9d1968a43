import { assign, setup } from 'xstate'
import { z } from 'zod'
import { PlannedEnlargement } from '../../domains/postprocessing/settings.ts'
import { ImageRef, PictureId, PicturePin } from '../../domains/values.ts'
import { defineWorkflow } from '../define.ts'
import { steps } from '../step.ts'
import { keepEnlarged, type Enlarged } from './enlarged.ts'
import { isLost } from './image-state.ts'
import { completeUpscale, upscaleFields } from './upscale-input.ts'

/** Of a network nobody has hashed before the hash is null: the session's first step finds it. */
const Resolved = PlannedEnlargement.extend({ picture: PicturePin })
type Resolved = z.infer<typeof Resolved>
const Output = z.strictObject({ images: z.array(ImageRef.omit({ seed: true })) }).meta({ id: 'UpscaledImage' })

interface Context {
  input: Resolved
  /** Of the network, where the input does not say it. */
  bodyHash: string | null
  made: Enlarged | null
  image: z.infer<typeof Output>['images'][number] | null
  /** How often the pixels were gone before they were kept. */
  lost: number
}

const maxLost = 5

const isOpen = ({ upscaler }: Resolved): boolean => typeof upscaler === 'object' && upscaler.bodyHash === null

/** What the pixels follow from. */
function requestOf({ input: { upscaler, ...input }, bodyHash }: Context) {
  return {
    ...input,
    upscaler: typeof upscaler === 'string' ? upscaler : { id: upscaler.id, bodyHash: upscaler.bodyHash ?? bodyHash ?? '' },
  }
}

/** [hash] → upscale → keep. */
const machine = setup({
  types: { context: {} as Context, input: {} as Resolved, output: {} as z.infer<typeof Output>, events: {} as { type: 'class.lost' } },
  actors: steps('model.hash', 'postprocessing.upscale', 'postprocessing.keep'),
}).createMachine({
  id: 'image-upscale',
  context: ({ input }) => ({ input, bodyHash: null, made: null, image: null, lost: 0 }),
  initial: 'pinning',
  states: {
    pinning: { always: [{ guard: ({ context }) => isOpen(context.input), target: 'hashing' }, { target: 'upscaling' }] },
    hashing: {
      invoke: {
        id: 'hash',
        src: 'model.hash',
        input: ({ context: { input } }) => ({
          model: { id: typeof input.upscaler === 'string' ? '' : input.upscaler.id, bodyHash: null, kind: 'upscaler' as const },
        }),
        onDone: { target: 'upscaling', actions: assign({ bodyHash: ({ event }) => event.output.model.bodyHash }) },
      },
    },
    upscaling: {
      on: { 'class.lost': { target: 'upscaling', reenter: true } },
      invoke: {
        id: 'upscale',
        src: 'postprocessing.upscale',
        input: ({ context }) => requestOf(context),
        onDone: { target: 'keeping', actions: assign({ made: ({ event }) => event.output }) },
      },
    },
    keeping: {
      invoke: {
        id: 'keep',
        src: 'postprocessing.keep',
        input: ({ context }) => keepEnlarged(requestOf(context), context.made, true),
        onDone: { target: 'done', actions: assign({ image: ({ event }) => event.output }) },
        onError: {
          guard: ({ context, event }) => context.lost < maxLost && isLost(event.error),
          target: 'upscaling',
          actions: assign({ lost: ({ context }) => context.lost + 1 }),
        },
      },
    },
    done: { type: 'final' },
  },
  output: ({ context }) => ({ images: context.image ? [context.image] : [] }),
})

/** Where each step begins in the whole, and how much of it it is. */
const shares: Readonly<Record<string, readonly [from: number, share: number]>> = {
  'model.hash': [0, 0.05],
  'postprocessing.upscale': [0.05, 0.85],
  'postprocessing.keep': [0.9, 0.099],
}

export const imageUpscale = defineWorkflow({
  name: 'image-upscale',
  title: 'Enlarge a picture',
  description:
    'A picture at a larger size, by an upscaler, which is a network, or by a filter; transparency is kept. The PNG carries its own receipt.',
  input: z.strictObject({
    picture: PictureId.describe('id of the picture: uploaded by POST /v1/artifacts, or one of your sessions’'),
    ...upscaleFields,
  }),
  output: Output,
  machine,
  exact: true,
  async resolveInput({ picture, ...asked }, catalogue) {
    const { hasAlpha: _, ...pin } = await catalogue.picture(picture, 'input.picture')
    return Resolved.parse({ picture: pin, ...(await completeUpscale(asked, pin, catalogue)) })
  },
  progress(_context, step, fraction) {
    const [from, share] = shares[step] ?? [0, 0]
    return { fraction: from + share * fraction }
  },
  steps: (input) => 2 + Number(isOpen(input as Resolved)),
  route: { method: 'post', path: '/images/upscale', body: 'UpscaleImage', answers: 'The larger picture' },
  resources: { lanes: ['gpu', 'host'], note: 'one device; its memory by the upscaler and its tiles, RAM by the size of the result' },
})
