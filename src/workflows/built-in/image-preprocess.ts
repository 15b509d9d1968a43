import { assign, setup } from 'xstate'
import { z } from 'zod'
import { Control, ControlResize, type Exactness, ImageRef, PicturePin, PictureId } from '../../domains/values.ts'
import { invalidFields } from '../../errors.ts'
import { defineWorkflow } from '../define.ts'
import { steps } from '../step.ts'
import { pinnedPreprocessor, UnpinnedPreprocessor, unpinnedNetwork } from './pinning.ts'
import { completePreprocessor, PreprocessorInput } from './preprocessor-input.ts'

const side = z.int().min(8, 'must be at least 8').max(4096, 'must be at most 4096')

const Input = z.strictObject({
  picture: PictureId.optional().describe('id of the picture; `pose` needs none'),
  preprocessor: PreprocessorInput,
  resize: ControlResize.optional().describe('how the picture comes to width · height; default: crop'),
  width: side.optional().describe('pixels; default: the picture’s own'),
  height: side.optional().describe('pixels; default: the picture’s own'),
})

const Resolved = Control.pick({ picture: true, resize: true }).extend({
  preprocessor: UnpinnedPreprocessor,
  ...PicturePin.pick({ width: true, height: true }).shape,
})
type Resolved = z.infer<typeof Resolved>
const Output = z.strictObject({ images: z.array(ImageRef.omit({ seed: true })) })
type Image = z.infer<typeof Output>['images'][number]

interface Context {
  input: Resolved
  /** Of the network, where the input does not say it; absent in sessions that began under a version without it. */
  bodyHash?: string
  pixels: string
  exactness?: Exactness | undefined
  image: Image | null
}

const isOpen = ({ preprocessor }: Resolved): boolean => unpinnedNetwork(preprocessor).some(({ bodyHash }) => bodyHash === null)

/** What the pixels follow from. */
const requestOf = ({ input: { preprocessor, ...input }, bodyHash = '' }: Context) => ({
  ...input,
  preprocessor: pinnedPreprocessor(preprocessor, (network) => ({ id: network.id, bodyHash: network.bodyHash ?? bodyHash })),
})

/** [hash] → preprocess → keep. */
const machine = setup({
  types: { context: {} as Context, input: {} as Resolved, output: {} as z.infer<typeof Output> },
  actors: steps('model.hash', 'inference.preprocess', 'postprocessing.keep'),
}).createMachine({
  id: 'image-preprocess',
  context: ({ input }) => ({ input, pixels: '', image: null }),
  initial: 'pinning',
  states: {
    pinning: { always: [{ guard: ({ context }) => isOpen(context.input), target: 'hashing' }, { target: 'preprocessing' }] },
    hashing: {
      invoke: {
        id: 'hash',
        src: 'model.hash',
        input: ({ context: { input } }) => ({
          model: { id: unpinnedNetwork(input.preprocessor)[0]?.id ?? '', bodyHash: null, kind: 'preprocessor' as const },
        }),
        onDone: { target: 'preprocessing', actions: assign({ bodyHash: ({ event }) => event.output.model.bodyHash }) },
      },
    },
    preprocessing: {
      invoke: {
        id: 'preprocess',
        src: 'inference.preprocess',
        input: ({ context }) => requestOf(context),
        onDone: {
          target: 'keeping',
          actions: assign({ pixels: ({ event }) => event.output.pixels, exactness: ({ event }) => event.output.exactness }),
        },
      },
    },
    keeping: {
      invoke: {
        id: 'keep',
        src: 'postprocessing.keep',
        input: ({ context }) => ({
          pixels: context.pixels,
          width: context.input.width,
          height: context.input.height,
          workflow: 'image-preprocess@1',
          request: requestOf(context),
          ...(context.exactness && { exactness: context.exactness }),
        }),
        onDone: { target: 'done', actions: assign({ image: ({ event }) => event.output }) },
      },
    },
    done: { type: 'final' },
  },
  output: ({ context }) => ({ images: context.image ? [context.image] : [] }),
})

/** Where each step begins in the whole, and how much of it it is. */
const shares: Readonly<Record<string, readonly [from: number, share: number]>> = {
  'model.hash': [0, 0.05],
  'inference.preprocess': [0.05, 0.75],
  'postprocessing.keep': [0.8, 0.199],
}

export const imagePreprocess = defineWorkflow({
  name: 'image-preprocess',
  title: 'Make a picture for a ControlNet',
  description:
    'What a ControlNet is shown of an ordinary picture: its edges, its coarse parts, its brightness; with a network of yours its depth or what it shows; or figures drawn from joints.',
  input: Input,
  output: Output,
  machine,
  async resolveInput({ picture, preprocessor, resize, width, height }, catalogue) {
    const no = (field: string, message: string) => invalidFields([{ field: `input.${field}`, message }])
    if (preprocessor.name === 'pose') {
      if (picture !== undefined) throw no('picture', 'must be left out: the preprocessor pose draws its figures from joints alone')
      if (width === undefined || height === undefined)
        throw no(width === undefined ? 'width' : 'height', 'is missing: figures that are drawn from joints have no size of their own')
      return Resolved.parse({ preprocessor, width, height })
    }
    if (picture === undefined) throw no('picture', 'is missing: send the id of a picture, or joints with the preprocessor pose')
    if ((width === undefined) !== (height === undefined))
      throw no(width === undefined ? 'width' : 'height', 'is missing: send both sides, or none for the picture’s own size')
    if (width === undefined && resize !== undefined) throw no('resize', 'is said of another size, and there is none: send width and height')
    const { hasAlpha: _, ...pin } = await catalogue.picture(picture, 'input.picture')
    return Resolved.parse({
      picture: pin,
      preprocessor: await completePreprocessor(preprocessor, catalogue, 'input.preprocessor'),
      ...(width !== undefined && { resize: resize ?? 'crop' }),
      width: width ?? pin.width,
      height: height ?? pin.height,
    })
  },
  progress(_context, step, fraction) {
    const [from, share] = shares[step] ?? [0, 0]
    return { fraction: from + share * fraction }
  },
  steps: (input) => 2 + Number(isOpen(input as Resolved)),
  resources: { lanes: ['gpu', 'host'], note: 'one device, for a moment; its memory by the network, where one sees' },
})
