/**
 * A picture is drawn small, and enlarged once a person has approved it: drawn again from the same seed, with a second
 * pass at twice the size. Whoever is asked answers within a day; no device is held meanwhile.
 */
import { assign, child, defineWorkflow, imageGeneration, setup, z } from 'darkroom/workflows'

const Input = z.strictObject({ prompt: z.string(), model: z.string().default('darkroom-tiny'), seed: z.int().min(0).default(1) })
const Output = z.looseObject({ approved: z.boolean() })
type Context = z.infer<typeof Input> & { drawn: Record<string, unknown>; approved: boolean }

const machine = setup({
  types: {} as { context: Context; input: z.infer<typeof Input> },
  actors: child(imageGeneration),
}).createMachine({
  context: ({ input }) => ({ ...input, drawn: {}, approved: false }),
  initial: 'drawing',
  states: {
    drawing: {
      invoke: {
        src: 'image-generation@1',
        input: ({ context: { prompt, model, seed } }) => ({ prompt, model, seed }),
        onDone: { target: 'asking', actions: assign({ drawn: ({ event }) => event.output }) },
      },
    },
    asking: {
      on: { 'signal.approve': { target: 'enlarging', actions: assign({ approved: true }) }, 'signal.discard': 'done' },
      after: { 86_400_000: 'done' },
    },
    enlarging: {
      invoke: {
        src: 'image-generation@1',
        input: ({ context: { prompt, model, seed } }) => ({ prompt, model, seed, hires: { scale: 2 } }),
        onDone: { target: 'done', actions: assign({ drawn: ({ event }) => event.output }) },
      },
    },
    done: { type: 'final' },
  },
  output: ({ context: { drawn, approved } }) => ({ ...drawn, approved }),
})

export const approvedUpscale = defineWorkflow({ name: 'approved-upscale', input: Input, output: Output, machine })
