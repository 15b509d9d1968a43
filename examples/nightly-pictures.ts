/**
 * A list of prompts for the night: one picture after another, so that the sessions of the day come between. A picture
 * that fails is noted, and the next one is drawn.
 */
import { assign, child, defineWorkflow, imageGeneration, setup, z } from 'darkroom/workflows'

const Input = z.strictObject({
  prompts: z.array(z.string()).min(1).max(1000),
  model: z.string().default('darkroom-tiny'),
  seed: z.int().min(0).default(1),
})
const Failure = z.strictObject({ prompt: z.string(), code: z.string() })
const Output = z.strictObject({ images: z.array(z.looseObject({ sha256: z.string() })), failed: z.array(Failure) })
type Context = z.infer<typeof Input> & z.infer<typeof Output> & { at: number }

const machine = setup({
  types: {} as { context: Context; input: z.infer<typeof Input> },
  actors: child(imageGeneration),
  guards: { isLast: ({ context }) => context.at >= context.prompts.length },
}).createMachine({
  context: ({ input }) => ({ ...input, at: 0, images: [], failed: [] }),
  initial: 'drawing',
  states: {
    drawing: {
      invoke: {
        src: 'image-generation@1',
        input: ({ context: { prompts, model, seed, at } }) => ({ prompt: prompts[at] ?? '', model, seed: seed + at }),
        onDone: {
          target: 'next',
          actions: assign({ images: ({ context, event }) => [...context.images, ...event.output.images] }),
        },
        onError: {
          target: 'next',
          actions: assign({
            failed: ({ context: { failed, prompts, at }, event }) => [
              ...failed,
              { prompt: prompts[at] ?? '', code: (event.error as { code: string }).code },
            ],
          }),
        },
      },
    },
    next: {
      entry: assign({ at: ({ context }) => context.at + 1 }),
      always: [{ guard: 'isLast', target: 'done' }, { target: 'drawing' }],
    },
    done: { type: 'final' },
  },
  output: ({ context: { images, failed } }) => ({ images, failed }),
})

export const nightlyPictures = defineWorkflow({ name: 'nightly-pictures', input: Input, output: Output, machine })
