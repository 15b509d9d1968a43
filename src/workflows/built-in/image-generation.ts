import { assign, setup, spawnChild } from 'xstate'
import { z } from 'zod'
import {
  samplers,
  type DecodeInput,
  type DecodeOutput,
  type DenoiseInput,
  type DenoiseOutput,
  type EncodeInput,
  type EncodeOutput,
} from '../../domains/inference/schema.ts'
import type { ResolveInput, ResolveOutput } from '../../domains/model/schema.ts'
import type { SaveInput, SaveOutput } from '../../domains/postprocessing/schema.ts'
import type { WireError } from '../../errors.ts'
import { step } from '../step.ts'
import type { Workflow } from '../define.ts'

/** Most pixels of a picture, 2048². */
const maxPixels = 4_194_304
const side = z.int().min(64, 'must be at least 64').max(4096, 'must be at most 4096').multipleOf(8, 'must be a multiple of 8')

/** What every tokenizer, PNG text chunk and log can hold: no control characters but line breaks and tabs, no half of a surrogate pair. */
const Prompt = z
  .string()
  .max(8000, 'must be at most 8,000 characters')
  .regex(/^(?:[^\p{Cc}\p{Cs}]|[\t\n\r])*$/u, 'must be text without control characters')

/** What a client may send; what it leaves out the model's recommended settings fill in, the seed is drawn. */
const Input = z
  .strictObject({
    model: z.string().min(1).max(200).default('darkroom-tiny').describe('name of the model'),
    prompt: Prompt.describe('what to draw'),
    negativePrompt: Prompt.default('').describe('what not to draw'),
    width: side.optional().describe('pixels, a multiple of 8; default: the model’s own size'),
    height: side.optional().describe('pixels, a multiple of 8; default: the model’s own size'),
    steps: z.int().min(1).max(200).optional().describe('denoise steps'),
    guidance: z.number().min(0).max(50).optional().describe('classifier-free guidance scale; 1 turns it off'),
    seed: z
      .int()
      .min(0)
      .max(2 ** 32 - 1)
      .optional()
      .describe('seed of the first image; image i has seed + i; drawn when left out'),
    sampler: z.enum(samplers).optional().describe('sampler'),
    count: z.int().min(1).max(64).default(1).describe('how many images'),
    pin: z.enum(['class', 'strict']).default('class').describe('strict: never begin again on another hardware class'),
  })
  .refine(({ width = 64, height = 64 }) => width * height <= maxPixels, {
    path: ['width'],
    message: `width · height must be at most ${maxPixels} pixels`,
  })

/** The request made whole: the session's input, which never changes. */
const Whole = z.strictObject({
  model: z.string(),
  modelHash: z.string(),
  prompt: z.string(),
  negativePrompt: z.string(),
  width: z.int(),
  height: z.int(),
  steps: z.int(),
  guidance: z.number(),
  seed: z.int(),
  sampler: z.enum(samplers),
  count: z.int(),
  pin: z.enum(['class', 'strict']),
})
type Whole = z.infer<typeof Whole>

const Output = z.strictObject({
  images: z.array(
    z.strictObject({
      sha256: z.string(),
      mediaType: z.literal('image/png'),
      width: z.int(),
      height: z.int(),
      seed: z.int(),
      bytes: z.int(),
    }),
  ),
})

interface Context {
  input: Whole
  conditioning: string | null
  /** Images still to draw, by their number; the first is the one at work. */
  todo: number[]
  denoised: DenoiseOutput | null
  images: Record<number, SaveOutput>
  /** How often a tensor that one step left for the next was gone. */
  lost: number
  error: WireError | null
}

const maxLost = 5
const pinOf = ({ input }: Context): { id: string; bodyHash: string } => ({ id: input.model, bodyHash: input.modelHash })
const current = (context: Context): number => context.todo[0] ?? 0

function requestOf(context: Context, image: number): Omit<DenoiseInput, 'conditioning'> {
  const { prompt, negativePrompt, width, height, steps, guidance, seed, sampler } = context.input
  return { model: pinOf(context), prompt, negativePrompt, width, height, steps, guidance, seed: (seed + image) % 2 ** 32, sampler }
}

/** Saves are spawned as `save.<image>`. */
const imageOf = ({ actorId }: { actorId: string }): number => Number(actorId.split('.')[1])

const isLost = (error: unknown): boolean =>
  ['artifact.missing', 'artifact.corrupt'].includes((error as Partial<WireError> | null)?.code ?? '')

/**
 * resolve → encode → for each image: denoise → decode → save, where `save` is not waited for before the next image. A tensor that one step
 * leaves for the next is a hint: when it is gone, the machine goes back to `encode` for that image. `class.lost` begins again from `encode`.
 */
const machine = setup({
  types: {
    context: {} as Context,
    input: {} as Whole,
    output: {} as z.infer<typeof Output> | { error: WireError },
    events: {} as
      | { type: 'class.lost' }
      | { type: `xstate.done.actor.save.${number}`; output: SaveOutput; actorId: string }
      | { type: `xstate.error.actor.save.${number}`; error: WireError; actorId: string },
  },
  actors: {
    'model.resolve': step<ResolveInput, ResolveOutput>(),
    'inference.encode': step<EncodeInput, EncodeOutput>(),
    'inference.denoise': step<DenoiseInput, DenoiseOutput>(),
    'inference.decode': step<DecodeInput, DecodeOutput>(),
    'postprocessing.save': step<SaveInput, SaveOutput>(),
  },
  guards: {
    mayDrawAgain: ({ context, event }) => context.lost < maxLost && isLost((event as unknown as { error: unknown }).error),
    hasMore: ({ context }) => context.todo.length > 0,
    isComplete: ({ context }) => Object.keys(context.images).length === context.input.count,
  },
}).createMachine({
  id: 'image-generation',
  context: ({ input }) => ({
    input,
    conditioning: null,
    todo: Array.from({ length: input?.count ?? 0 }, (_, image) => image),
    denoised: null,
    images: {},
    lost: 0,
    error: null,
  }),
  initial: 'resolving',
  on: {
    'xstate.done.actor.save.*': {
      actions: assign({ images: ({ context, event }) => ({ ...context.images, [imageOf(event)]: event.output }) }),
    },
    'xstate.error.actor.save.*': [
      {
        guard: 'mayDrawAgain',
        actions: assign({ todo: ({ context, event }) => [...context.todo, imageOf(event)], lost: ({ context }) => context.lost + 1 }),
      },
      { target: '.failed', actions: assign({ error: ({ event }) => event.error }) },
    ],
  },
  states: {
    resolving: {
      invoke: { id: 'resolve', src: 'model.resolve', input: ({ context }) => ({ model: pinOf(context) }), onDone: 'drawing' },
    },
    drawing: {
      initial: 'encoding',
      on: { 'class.lost': { target: '.encoding', reenter: true } },
      states: {
        encoding: {
          entry: assign({ conditioning: null, denoised: null }),
          invoke: {
            id: 'encode',
            src: 'inference.encode',
            input: ({ context }) => ({ model: pinOf(context), prompt: context.input.prompt, negativePrompt: context.input.negativePrompt }),
            onDone: { target: 'denoising', actions: assign({ conditioning: ({ event }) => event.output.conditioning }) },
          },
        },
        denoising: {
          invoke: {
            id: 'denoise',
            src: 'inference.denoise',
            input: ({ context }) => ({ ...requestOf(context, current(context)), conditioning: context.conditioning }),
            onDone: { target: 'decoding', actions: assign({ denoised: ({ event }) => event.output }) },
            onError: {
              guard: 'mayDrawAgain',
              target: 'encoding',
              reenter: true,
              actions: assign({ lost: ({ context }) => context.lost + 1 }),
            },
          },
        },
        decoding: {
          invoke: {
            id: 'decode',
            src: 'inference.decode',
            input: ({ context }) => ({
              model: pinOf(context),
              width: context.input.width,
              height: context.input.height,
              latents: context.denoised?.latents ?? '',
            }),
            onDone: {
              target: 'next',
              actions: [
                spawnChild('postprocessing.save', {
                  id: ({ context }) => `save.${current(context)}`,
                  input: ({ context, event }) => ({
                    ...(event as unknown as { output: DecodeOutput }).output,
                    request: requestOf(context, current(context)),
                    exactness: context.denoised?.exactness ?? { key: '', facts: {} },
                  }),
                }),
                assign({ todo: ({ context }) => context.todo.slice(1), denoised: null }),
              ],
            },
            onError: { guard: 'mayDrawAgain', target: 'encoding', actions: assign({ lost: ({ context }) => context.lost + 1 }) },
          },
        },
        next: {
          always: [{ guard: 'hasMore', target: 'denoising' }, { target: '#image-generation.finishing' }],
        },
      },
    },
    finishing: {
      always: [
        { guard: 'hasMore', target: 'drawing' },
        { guard: 'isComplete', target: 'done' },
      ],
    },
    done: { type: 'final' },
    failed: { type: 'final', tags: 'failed' },
  },
  output: ({ context }) => (context.error ? { error: context.error } : { images: Object.values(context.images) }),
})

/** Share of one image's time that each step takes, roughly; the denoise step is nearly all of it. */
const shares: Record<string, { from: number; to: number }> = {
  'model.resolve': { from: 0, to: 0.01 },
  'inference.encode': { from: 0.01, to: 0.03 },
  'inference.denoise': { from: 0.03, to: 0.93 },
  'inference.decode': { from: 0.93, to: 0.97 },
  'postprocessing.save': { from: 0.97, to: 1 },
}

export const imageGeneration: Workflow = {
  name: 'image-generation',
  version: 1,
  title: 'Image generation',
  description: 'Text to image: one picture or several, image i with seed + i, each a PNG that carries its own receipt.',
  input: Input,
  output: Output,
  machine,
  exact: true,
  async makeWhole(input, catalogue) {
    const given = Input.parse(input)
    const model = await catalogue.model(given.model)
    const { width, height, steps, guidance, sampler } = model.recommended
    return Whole.parse({
      width,
      height,
      steps,
      guidance,
      sampler,
      seed: catalogue.draw(2 ** 32),
      ...Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)),
      model: model.id,
      modelHash: model.bodyHash,
    })
  },
  progress(context, step, fraction) {
    const { input, todo } = context as Context
    const share = shares[step] ?? { from: 0, to: 0 }
    const before = input.count - todo.length
    const within = share.from + fraction * (share.to - share.from)
    return { fraction: Math.min(0.999, (before + within) / input.count), image: Math.min(before + 1, input.count), images: input.count }
  },
  isStrict: (input) => input['pin'] === 'strict',
  steps: (input) => 2 + 3 * Number(input['count']),
  resources: { lanes: ['gpu', 'host'], note: 'one device; memory by model and size' },
}
