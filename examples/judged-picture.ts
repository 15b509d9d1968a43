/**
 * Draw, judge, draw again: a judge says `good` or `again`, and at the third picture it is over. The judge may be a
 * person or a program: whoever sends the signal. One who says nothing within an hour takes the picture as it is.
 */
import { assign, child, defineWorkflow, imageGeneration, setup, z } from 'darkroom/workflows'

const Input = z.strictObject({
  prompt: z.string(),
  model: z.string().default('darkroom-tiny'),
  seed: z.int().min(0).default(1),
  tries: z.int().min(1).max(10).default(3),
})
const Output = z.looseObject({ seed: z.int(), isGood: z.boolean() })
type Context = z.infer<typeof Input> & { turn: number; drawn: Record<string, unknown>; isGood: boolean }

const machine = setup({
  types: {} as { context: Context; input: z.infer<typeof Input> },
  actors: child(imageGeneration),
  guards: { isLast: ({ context }) => context.turn + 1 >= context.tries },
}).createMachine({
  context: ({ input }) => ({ ...input, turn: 0, drawn: {}, isGood: false }),
  initial: 'drawing',
  states: {
    drawing: {
      invoke: {
        src: 'image-generation@1',
        input: ({ context: { prompt, model, seed, turn } }) => ({ prompt, model, seed: seed + turn }),
        onDone: { target: 'judging', actions: assign({ drawn: ({ event }) => event.output }) },
      },
    },
    judging: {
      on: {
        'signal.good': { target: 'done', actions: assign({ isGood: true }) },
        'signal.again': [
          { guard: 'isLast', target: 'done' },
          { target: 'drawing', actions: assign({ turn: ({ context }) => context.turn + 1 }) },
        ],
      },
      after: { 3_600_000: 'done' },
    },
    done: { type: 'final' },
  },
  output: ({ context: { drawn, seed, turn, isGood } }) => ({ ...drawn, seed: seed + turn, isGood }),
})

export const judgedPicture = defineWorkflow({ name: 'judged-picture', input: Input, output: Output, machine })
