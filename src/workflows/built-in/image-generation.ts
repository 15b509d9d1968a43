import { assign, setup, spawnChild } from 'xstate'
import { z } from 'zod'
import type { PictureLimits } from '../../domains/device/status.ts'
import type { inference } from '../../domains/inference/index.ts'
import { ImageRef, ImageRequest, maxSeed, ModelName, samplers, Seed, type ModelPin } from '../../domains/values.ts'
import { fieldProblems, invalidFields, type WireError } from '../../errors.ts'
import { defineWorkflow } from '../define.ts'
import { steps } from '../step.ts'

type DecodeOutput = z.infer<(typeof inference)['inference.decode']['output']>
type DenoiseOutput = z.infer<(typeof inference)['inference.denoise']['output']>

/** A picture has at most 2048² pixels. */
const maxPixels = 4_194_304
const side = z.int().min(64, 'must be at least 64').max(4096, 'must be at most 4096').multipleOf(8, 'must be a multiple of 8')

/**
 * What every tokenizer, PNG text chunk and log can hold: no control characters but line breaks and tabs, no half of a
 * surrogate pair.
 */
const Prompt = z
  .string()
  .max(8000, 'must be at most 8,000 characters')
  .regex(/^(?:[^\p{Cc}\p{Cs}]|[\t\n\r])*$/u, 'must be text without control characters')

/** What a client may send; what it leaves out the model's recommended settings fill in, the seed is drawn. */
const Input = z
  .strictObject({
    model: ModelName.default('darkroom-tiny'),
    prompt: Prompt.describe('what to draw'),
    negativePrompt: Prompt.default('').describe('what not to draw'),
    width: side.optional().describe('pixels, a multiple of 8; default: the model’s own size'),
    height: side.optional().describe('pixels, a multiple of 8; default: the model’s own size'),
    steps: z.int().min(1).max(200).optional().describe('denoise steps'),
    guidance: z.number().min(0).max(50).optional().describe('classifier-free guidance scale; 1 turns it off'),
    seed: Seed.optional().describe(
      'seed of the first image; image i has seed + i; drawn when left out. PyTorch starts from its low 32 bits',
    ),
    sampler: z.enum(samplers).optional().describe('sampler'),
    count: z.int().min(1).max(64).default(1).describe('how many images'),
    pin: z.enum(['class', 'strict']).default('class').describe('strict: never begin again on another hardware class'),
  })
  .refine(({ width = 64, height = 64 }) => width * height <= maxPixels, {
    path: ['width'],
    message: `width · height must be at most ${maxPixels} pixels`,
  })
  .refine(({ seed = 0, count }) => seed <= maxSeed - (count - 1), {
    path: ['seed'],
    message: `the last image would have a seed beyond 2^53 - 1, which is ${maxSeed}`,
  })

/**
 * A picture that is too large for a device would hold it up: no pause and no cancel is heard within a call.
 * @param scale pixels of one latent cell's side
 * @throws DarkroomError `api.invalid`, with the figures
 */
function checkSize({ model, steps, width, height }: ResolvedInput, scale: number, limits: PictureLimits | null): void {
  if (!limits) return
  const [pixels, most, mostPixelSteps] = [width * height, limits.cells * scale ** 2, limits.cellSteps * scale ** 2]
  const more = `of ${model} on every device that may take it; name a \`device\` whose \`limits\` in GET /v1/devices are higher`
  if (pixels > most)
    throw invalidFields([
      { field: 'input.width', message: `width · height must be at most ${most} pixels, not ${pixels}: so much is drawn ${more}` },
    ])
  if (pixels * steps > mostPixelSteps)
    throw invalidFields([
      {
        field: 'input.steps',
        message: `width · height · steps must be at most ${mostPixelSteps}, not ${pixels * steps}: so much is drawn ${more}`,
      },
    ])
}

/** The request with everything filled in: the session's input, which never changes. */
const ResolvedInput = ImageRequest.extend({
  model: ModelName,
  /** null when nobody has hashed the model before: the session's first step does. */
  modelHash: z.string().nullable(),
  count: z.int(),
  pin: z.enum(['class', 'strict']),
})
type ResolvedInput = z.infer<typeof ResolvedInput>

const Output = z.strictObject({ images: z.array(ImageRef) })

interface Context {
  input: ResolvedInput
  /** What was found where the input does not say it. Absent in sessions that began under a version without it. */
  modelHash?: string | null
  conditioning: string | null
  /** Images still to draw, by their number; the first is the one at work. */
  todo: number[]
  denoised: DenoiseOutput | null
  images: Record<number, ImageRef>
  /** How often a tensor that one step left for the next was gone. */
  lost: number
}

const maxLost = 5
const hashOf = ({ input, modelHash }: Context): string | null => input.modelHash ?? modelHash ?? null
const pinOf = (context: Context): ModelPin => ({ id: context.input.model, bodyHash: hashOf(context) ?? '' })
const current = (context: Context): number => context.todo[0] ?? 0

/** What the pixels of image number `image` depend on. */
function requestOf(context: Context, image: number): ImageRequest {
  const { prompt, negativePrompt, width, height, steps, guidance, seed, sampler } = context.input
  return { model: pinOf(context), prompt, negativePrompt, width, height, steps, guidance, seed: seed + image, sampler }
}

/** Saves are spawned as `save.<image>`. */
const imageOf = ({ actorId }: { actorId: string }): number => Number(actorId.split('.')[1])

const isLost = (error: unknown): boolean =>
  ['artifact.missing', 'artifact.corrupt'].includes((error as Partial<WireError> | null)?.code ?? '')

/**
 * [hash] → resolve → encode → for each image: denoise → decode → save, where `save` is not waited for before the next
 * image. A tensor that one step leaves for the next is a hint: when it is gone, the machine goes back to `encode` for
 * that image. `class.lost` begins again from `encode`.
 */
const machine = setup({
  types: {
    context: {} as Context,
    input: {} as ResolvedInput,
    output: {} as z.infer<typeof Output>,
    events: {} as
      | { type: 'class.lost' }
      | { type: `xstate.done.actor.save.${number}`; output: ImageRef; actorId: string }
      | { type: `xstate.error.actor.save.${number}`; error: WireError; actorId: string },
  },
  actors: steps('model.hash', 'model.resolve', 'inference.encode', 'inference.denoise', 'inference.decode', 'postprocessing.save'),
  guards: {
    mayDrawAgain: ({ context, event }) => context.lost < maxLost && isLost((event as unknown as { error: unknown }).error),
    isPinned: ({ context }) => hashOf(context) !== null,
    hasMore: ({ context }) => context.todo.length > 0,
    isComplete: ({ context }) => Object.keys(context.images).length === context.input.count,
  },
}).createMachine({
  id: 'image-generation',
  context: ({ input }) => ({
    input,
    modelHash: null,
    conditioning: null,
    todo: Array.from({ length: input?.count ?? 0 }, (_, image) => image),
    denoised: null,
    images: {},
    lost: 0,
  }),
  initial: 'pinning',
  on: {
    'xstate.done.actor.save.*': {
      actions: assign({ images: ({ context, event }) => ({ ...context.images, [imageOf(event)]: event.output }) }),
    },
    'xstate.error.actor.save.*': {
      guard: 'mayDrawAgain',
      actions: assign({ todo: ({ context, event }) => [...context.todo, imageOf(event)], lost: ({ context }) => context.lost + 1 }),
    },
  },
  states: {
    pinning: { always: [{ guard: 'isPinned', target: 'resolving' }, { target: 'hashing' }] },
    hashing: {
      invoke: {
        id: 'hash',
        src: 'model.hash',
        input: ({ context }) => ({ model: { id: context.input.model, bodyHash: null } }),
        onDone: { target: 'drawing', actions: assign({ modelHash: ({ event }) => event.output.model.bodyHash }) },
      },
    },
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
                    workflow: 'image-generation@1',
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
  },
  output: ({ context }) => ({ images: Object.values(context.images) }),
})

/** Share of one image's time that each step takes, roughly; the denoise step is nearly all of it. */
const shares: Record<string, { from: number; to: number }> = {
  'model.hash': { from: 0, to: 0.01 },
  'model.resolve': { from: 0, to: 0.01 },
  'inference.encode': { from: 0.01, to: 0.03 },
  'inference.denoise': { from: 0.03, to: 0.93 },
  'inference.decode': { from: 0.93, to: 0.97 },
  'postprocessing.save': { from: 0.97, to: 1 },
}

export const imageGeneration = defineWorkflow({
  name: 'image-generation',
  description: 'Text to image: one picture or several, image i with seed + i, each a PNG that carries its own receipt.',
  input: Input,
  output: Output,
  machine,
  exact: true,
  async resolveInput(given, catalogue) {
    const model = await catalogue.model(given.model)
    const { width, height, steps: calls, guidance, sampler } = model.recommended
    const own = { width, height, steps: calls, guidance, sampler }
    const said = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
    const whole = Input.safeParse({ ...own, ...said })
    if (!whole.success) {
      // What the client sent is within the limits: these are the model's.
      const problems = fieldProblems(whole.error.issues, 'input', 'input.').map(({ field, message }) => ({
        field,
        message: `${message}, and the own setting of model ${model.id} is ${own[field.slice('input.'.length) as keyof typeof own]}: say one`,
      }))
      throw invalidFields(problems)
    }
    const input = ResolvedInput.parse({
      seed: catalogue.draw(2 ** 32),
      ...whole.data,
      model: model.id,
      modelHash: model.bodyHash,
    })
    checkSize(input, model.scale, await catalogue.limits({ id: model.id, bodyHash: model.bodyHash }))
    return input
  },
  progress(context, step, fraction) {
    const { input, todo } = context as Context
    const share = shares[step] ?? { from: 0, to: 0 }
    const before = input.count - todo.length
    const within = share.from + fraction * (share.to - share.from)
    return { fraction: Math.min(0.999, (before + within) / input.count), image: Math.min(before + 1, input.count), images: input.count }
  },
  isStrict: ({ pin }) => pin === 'strict',
  steps: ({ count }) => 2 + 3 * Number(count),
  resources: { lanes: ['gpu', 'host'], note: 'one device; memory by model and size' },
})
