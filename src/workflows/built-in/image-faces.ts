import { assign, setup } from 'xstate'
import { z } from 'zod'
import type { postprocessing } from '../../domains/postprocessing/index.ts'
import { postprocessingError } from '../../domains/postprocessing/errors.ts'
import type { Catalogue } from '../../domains/operation.ts'
import { Fraction, ImageRef, ModelName, PictureId, PicturePin, Sha256 } from '../../domains/values.ts'
import { DarkroomError } from '../../errors.ts'
import { defineWorkflow } from '../define.ts'
import { steps } from '../step.ts'
import { isLost } from './image-state.ts'

const Network = z.strictObject({ id: z.string(), bodyHash: Sha256.nullable() })
const Resolved = z.strictObject({ picture: PicturePin, detector: Network, restorer: Network, strength: Fraction })
type Resolved = z.infer<typeof Resolved>
const Output = z.strictObject({ images: z.array(ImageRef.omit({ seed: true })), faces: z.int() }).meta({ id: 'RestoredFaces' })
type Made = z.infer<(typeof postprocessing)['postprocessing.faces']['output']>

interface Context {
  input: Resolved
  /** Of those that nobody had hashed, by what they are for. */
  hashes: { detector?: string; restorer?: string }
  made: Made | null
  image: z.infer<typeof Output>['images'][number] | null
  /** How often the pixels were gone before they were kept. */
  lost: number
}

const maxLost = 5
const roles = ['detector', 'restorer'] as const
const unhashed = ({ input, hashes }: Context) => roles.find((role) => input[role].bodyHash === null && hashes[role] === undefined)

function requestOf({ input, hashes }: Context) {
  const pin = (role: (typeof roles)[number]) => ({ id: input[role].id, bodyHash: input[role].bodyHash ?? hashes[role] ?? '' })
  return { picture: input.picture, strength: input.strength, detector: pin('detector'), restorer: pin('restorer') }
}

/** [hash] → faces → keep. */
const machine = setup({
  types: { context: {} as Context, input: {} as Resolved, output: {} as z.infer<typeof Output>, events: {} as { type: 'class.lost' } },
  actors: steps('model.hash', 'postprocessing.faces', 'postprocessing.keep'),
}).createMachine({
  id: 'image-faces',
  context: ({ input }) => ({ input, hashes: {}, made: null, image: null, lost: 0 }),
  initial: 'pinning',
  states: {
    pinning: { always: [{ guard: ({ context }) => unhashed(context) !== undefined, target: 'hashing' }, { target: 'restoring' }] },
    hashing: {
      invoke: {
        id: 'hash',
        src: 'model.hash',
        input: ({ context }) => {
          const role = unhashed(context) ?? 'detector'
          return { model: { id: context.input[role].id, bodyHash: null, kind: `face-${role}` as const } }
        },
        onDone: {
          target: 'pinning',
          actions: assign({
            hashes: ({ context, event }) => ({ ...context.hashes, [unhashed(context) ?? 'detector']: event.output.model.bodyHash }),
          }),
        },
      },
    },
    restoring: {
      on: { 'class.lost': { target: 'restoring', reenter: true } },
      invoke: {
        id: 'faces',
        src: 'postprocessing.faces',
        input: ({ context }) => requestOf(context),
        onDone: { target: 'keeping', actions: assign({ made: ({ event }) => event.output }) },
      },
    },
    keeping: {
      invoke: {
        id: 'keep',
        src: 'postprocessing.keep',
        input: ({ context }) => ({
          pixels: context.made?.pixels ?? '',
          width: context.input.picture.width,
          height: context.input.picture.height,
          hasAlpha: context.made?.hasAlpha ?? false,
          workflow: 'image-faces@1',
          request: requestOf(context),
          ...(context.made && { exactness: context.made.exactness }),
        }),
        onDone: { target: 'done', actions: assign({ image: ({ event }) => event.output }) },
        onError: {
          guard: ({ context, event }) => context.lost < maxLost && isLost(event.error),
          target: 'restoring',
          actions: assign({ lost: ({ context }) => context.lost + 1 }),
        },
      },
    },
    done: { type: 'final' },
  },
  output: ({ context: { image, made } }) => ({ images: image ? [image] : [], faces: made?.faces ?? 0 }),
})

/**
 * The network of that name.
 * @throws DarkroomError `postprocessing.weights_missing` where there is none; `model.unusable`
 */
async function networkOf(role: (typeof roles)[number], name: string, catalogue: Pick<Catalogue, 'ofKind'>) {
  try {
    const { id, bodyHash } = await catalogue.ofKind(`face-${role}`, name, `input.${role}`)
    return { id, bodyHash }
  } catch (error) {
    if (!(error instanceof DarkroomError) || error.code !== 'model.unknown') throw error
    throw postprocessingError('weights_missing', `faces need a ${role}, and ${error.message}`, { field: `input.${role}`, cause: error })
  }
}

export const imageFaces = defineWorkflow({
  name: 'image-faces',
  title: 'Restore the faces of a picture',
  description:
    'Each face that a detector finds is drawn anew by a restorer, and laid back into its place; what is no face keeps its bytes. Both networks are yours to bring.',
  input: z.strictObject({
    picture: PictureId.describe('id of the picture'),
    restorer: ModelName.default('GFPGANv1.4').describe('GFPGAN or RestoreFormer, as GET /v1/models?kind=face-restorer lists it'),
    detector: ModelName.default('yunet').describe('what finds faces, as GET /v1/models?kind=face-detector lists it'),
    strength: Fraction.default(1).describe('how much of a restored face takes the place of the one that was there'),
  }),
  output: Output,
  machine,
  exact: true,
  async resolveInput({ picture, restorer, detector, strength }, catalogue) {
    const { sha256, width, height } = await catalogue.picture(picture, 'input.picture')
    return {
      picture: { sha256, width, height },
      detector: await networkOf('detector', detector, catalogue),
      restorer: await networkOf('restorer', restorer, catalogue),
      strength,
    }
  },
  progress: (_context, step, fraction) => ({
    fraction:
      step === 'postprocessing.keep' ? 0.9 + 0.099 * fraction : step === 'postprocessing.faces' ? 0.05 + 0.85 * fraction : 0.05 * fraction,
  }),
  steps: (input) => 2 + roles.filter((role) => (input as Resolved)[role].bodyHash === null).length,
  route: { method: 'post', path: '/images/faces', body: 'RestoreFaces', answers: 'The picture, and how many faces' },
  resources: { lanes: ['gpu', 'host'], note: 'one device; memory by the restorer, and RAM by the size of the picture' },
})
