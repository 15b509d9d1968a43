import { assign, setup } from 'xstate'
import { z } from 'zod'
import { Preprocessor } from '../../domains/preprocessors.ts'
import { Control, ControlResize, ImageRef, PicturePin, PictureId } from '../../domains/values.ts'
import { invalidFields } from '../../errors.ts'
import { defineWorkflow } from '../define.ts'
import { steps } from '../step.ts'

const side = z.int().min(8, 'must be at least 8').max(4096, 'must be at most 4096')

const Input = z.strictObject({
  picture: PictureId.optional().describe('id of the picture; `pose` needs none'),
  preprocessor: Preprocessor,
  resize: ControlResize.optional().describe('how the picture comes to width · height; default: crop'),
  width: side.optional().describe('pixels; default: the picture’s own'),
  height: side.optional().describe('pixels; default: the picture’s own'),
})

const Resolved = Control.pick({ picture: true, resize: true }).extend({
  preprocessor: Preprocessor,
  ...PicturePin.pick({ width: true, height: true }).shape,
})
type Resolved = z.infer<typeof Resolved>
const Output = z.strictObject({ images: z.array(ImageRef.omit({ seed: true })) })
type Image = z.infer<typeof Output>['images'][number]

interface Context {
  input: Resolved
  pixels: string
  image: Image | null
}

/** preprocess → keep. */
const machine = setup({
  types: { context: {} as Context, input: {} as Resolved, output: {} as z.infer<typeof Output> },
  actors: steps('inference.preprocess', 'postprocessing.keep'),
}).createMachine({
  id: 'image-preprocess',
  context: ({ input }) => ({ input, pixels: '', image: null }),
  initial: 'preprocessing',
  states: {
    preprocessing: {
      invoke: {
        id: 'preprocess',
        src: 'inference.preprocess',
        input: ({ context }) => context.input,
        onDone: { target: 'keeping', actions: assign({ pixels: ({ event }) => event.output.pixels }) },
      },
    },
    keeping: {
      invoke: {
        id: 'keep',
        src: 'postprocessing.keep',
        input: ({ context: { input, pixels } }) => ({
          pixels,
          width: input.width,
          height: input.height,
          workflow: 'image-preprocess@1',
          request: { ...input },
        }),
        onDone: { target: 'done', actions: assign({ image: ({ event }) => event.output }) },
      },
    },
    done: { type: 'final' },
  },
  output: ({ context }) => ({ images: context.image ? [context.image] : [] }),
})

export const imagePreprocess = defineWorkflow({
  name: 'image-preprocess',
  title: 'Make a picture for a ControlNet',
  description:
    'What a ControlNet is shown of an ordinary picture: its edges, its coarse parts, its brightness; or figures drawn from joints.',
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
      preprocessor,
      ...(width !== undefined && { resize: resize ?? 'crop' }),
      width: width ?? pin.width,
      height: height ?? pin.height,
    })
  },
  progress: (_context, step, fraction) => ({ fraction: step === 'postprocessing.keep' ? 0.8 + 0.199 * fraction : 0.8 * fraction }),
  steps: () => 2,
  resources: { lanes: ['gpu', 'host'], note: 'one device, for a moment' },
})
