import { assign, setup } from 'xstate'
import { z } from 'zod'
import { Example, maxExamples, Sample, type train } from '../../domains/inference/train.ts'
import { AdapterName, ImageRef, ImageRequest, ModelName, PictureId, Seed, type ModelPin } from '../../domains/values.ts'
import { DarkroomError, invalidFields } from '../../errors.ts'
import { wantedOf } from '../../models/entry.ts'
import { defineWorkflow, type Catalogue } from '../define.ts'
import { SamplerForm } from '../sampler-form.ts'
import { steps } from '../step.ts'
import { Prompt, side } from './form-values.ts'

const [fewest, most] = [1, 100_000]

const SampleInput = z.strictObject({
  prompt: Prompt.optional().describe('default: the caption of the first picture'),
  steps: z.int().min(1).max(200).optional().describe('denoise steps; default: the model’s own'),
  guidance: z.number().min(0).max(50).optional().describe('default: the model’s own'),
  sampler: SamplerForm.optional(),
  every: z.int().min(1).max(most).optional().describe('steps from one to the next; default: a tenth of all'),
})

const Input = z.strictObject({
  model: ModelName.default('darkroom-tiny'),
  name: AdapterName.describe('name of the LoRA that is made; there may be none of that name'),
  examples: z
    .array(
      z.strictObject({
        picture: PictureId.describe('id of a picture: uploaded by POST /v1/artifacts, or one of your sessions’'),
        caption: Prompt.describe('what is to be seen in it'),
      }),
    )
    .min(1, 'must have at least one picture')
    .max(maxExamples, `must have at most ${maxExamples} pictures`)
    .describe('what it is trained with'),
  width: side.optional().describe('pixels that pictures are brought to; default: the model’s own size'),
  height: side.optional().describe('pixels; default: the model’s own size'),
  steps: z.int().min(fewest).max(most).default(500).describe('training steps'),
  rank: z.int().min(1).max(256).default(8).describe('of the difference that is learned'),
  alpha: z.number().gt(0, 'must be above 0').max(1024).optional().describe('alpha / rank is how much of it is added; default: rank'),
  learningRate: z.number().gt(0, 'must be above 0').max(1, 'must be at most 1').default(1e-4).describe('of AdamW'),
  batch: z.int().min(1).max(64).default(1).describe('pictures a step'),
  seed: Seed.optional().describe('whatever is random follows from it; drawn when left out'),
  sample: SampleInput.optional().describe('how what it has learned is shown on the way'),
})

const Resolved = ImageRequest.pick({ width: true, height: true, seed: true, steps: true }).extend({
  model: z.strictObject({ id: z.string(), bodyHash: z.string().nullable() }),
  name: AdapterName,
  examples: Example.array(),
  rank: z.int(),
  alpha: z.number(),
  learningRate: z.number(),
  batch: z.int(),
  sample: Sample,
})
type Resolved = z.infer<typeof Resolved>

const Image = ImageRef.omit({ seed: true })
const Output = z.strictObject({
  adapter: z.strictObject({ name: z.string(), path: z.string(), bytes: z.int() }),
  loss: z.number().describe('mean of the last tenth of the steps'),
  images: z.array(Image).describe('the last sample'),
})

interface Context {
  input: Resolved
  /** What was found where the input does not say it. */
  bodyHash: string | null
  trained: z.infer<(typeof train)['output']> | null
  stored: z.infer<typeof Output>['adapter'] | null
  image: z.infer<typeof Image> | null
}

const pinOf = ({ input: { model }, bodyHash }: Context): ModelPin => wantedOf({ ...model, bodyHash: model.bodyHash ?? bodyHash ?? '' })

/** [hash] → train → store it among the models → keep the sample. */
const machine = setup({
  types: { context: {} as Context, input: {} as Resolved, output: {} as z.infer<typeof Output> },
  actors: steps('model.hash', 'model.resolve', 'inference.train', 'model.store', 'postprocessing.keep'),
}).createMachine({
  id: 'lora-training',
  context: ({ input }) => ({ input, bodyHash: null, trained: null, stored: null, image: null }),
  initial: 'pinning',
  states: {
    pinning: { always: [{ guard: ({ context }) => context.input.model.bodyHash !== null, target: 'training' }, { target: 'hashing' }] },
    hashing: {
      invoke: {
        id: 'hash',
        src: 'model.hash',
        input: ({ context }) => ({ model: context.input.model }),
        onDone: { target: 'training', actions: assign({ bodyHash: ({ event }) => event.output.model.bodyHash }) },
      },
    },
    // Of sessions that an earlier version of Darkroom has begun.
    resolving: {
      invoke: { id: 'resolve', src: 'model.resolve', input: ({ context }) => ({ model: pinOf(context) }), onDone: 'training' },
    },
    training: {
      on: { 'class.lost': { target: 'training', reenter: true } },
      invoke: {
        id: 'train',
        src: 'inference.train',
        input: ({ context }) => ({ ...context.input, model: pinOf(context) }),
        onDone: { target: 'storing', actions: assign({ trained: ({ event }) => event.output }) },
      },
    },
    storing: {
      invoke: {
        id: 'store',
        src: 'model.store',
        input: ({ context: { input, trained } }) => ({ adapter: trained?.adapter ?? '', name: input.name }),
        onDone: { target: 'keeping', actions: assign({ stored: ({ event }) => event.output }) },
      },
    },
    keeping: {
      invoke: {
        id: 'keep',
        src: 'postprocessing.keep',
        input: ({ context: { input, trained } }) => ({
          pixels: trained?.pixels ?? '',
          width: input.width,
          height: input.height,
          workflow: 'lora-training@1',
          request: { ...input },
        }),
        onDone: { target: 'done', actions: assign({ image: ({ event }) => event.output }) },
      },
    },
    done: { type: 'final' },
  },
  output: ({ context: { trained, stored, image } }) => ({
    adapter: stored ?? { name: '', path: '', bytes: 0 },
    loss: trained?.loss ?? 0,
    images: image ? [image] : [],
  }),
})

/** @throws DarkroomError `api.invalid` where there is one */
async function checkFree(name: string, catalogue: Catalogue): Promise<void> {
  try {
    await catalogue.ofKind('lora', name, 'input.name')
  } catch (error) {
    if (error instanceof DarkroomError && error.code === 'model.unknown') return
    if (error instanceof DarkroomError && error.code !== 'model.unusable') throw error
  }
  throw invalidFields([{ field: 'input.name', message: `there is a LoRA ${name} already: choose another name, or move that file away` }])
}

export const loraTraining = defineWorkflow({
  name: 'lora-training',
  title: 'Train a LoRA',
  description:
    'A LoRA from captioned pictures, for Stable Diffusion 1, 2 and XL: put among the models, with a sample of what it has learned.',
  input: Input,
  output: Output,
  machine,
  exact: true,
  async resolveInput({ model: named, examples, sample = {}, ...given }, catalogue) {
    await checkFree(given.name, catalogue)
    const model = await catalogue.model(named)
    const { width, height, steps: calls, guidance, sampler } = model.recommended
    const pinned = []
    for (const [i, { picture, caption }] of examples.entries()) {
      const { hasAlpha: _, ...pin } = await catalogue.picture(picture, `input.examples.${i}.picture`)
      pinned.push({ picture: pin, caption })
    }
    return Resolved.parse({
      ...given,
      model: { id: model.id, bodyHash: model.bodyHash },
      examples: pinned,
      width: given.width ?? width,
      height: given.height ?? height,
      alpha: given.alpha ?? given.rank,
      seed: given.seed ?? catalogue.draw(2 ** 32),
      sample: {
        prompt: sample.prompt ?? examples[0]?.caption,
        steps: sample.steps ?? calls,
        guidance: sample.guidance ?? guidance,
        sampler: sample.sampler ?? sampler,
        every: sample.every ?? Math.max(1, Math.round(given.steps / 10)),
      },
    })
  },
  progress: (_context, step, fraction) => ({
    fraction:
      step === 'inference.train' ? 0.05 + 0.9 * fraction : step.startsWith('model.') && step !== 'model.store' ? 0.05 * fraction : 0.95,
  }),
  steps: () => 4,
  resources: { lanes: ['gpu', 'host'], note: 'one device; memory by model and size, and several times that of drawing' },
})
