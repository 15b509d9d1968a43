import { child, defineWorkflow, imageGeneration, setup, z } from 'darkroom/workflows'

const machine = setup({
  types: { context: {} as { prompt: string }, input: {} as { prompt: string } },
  actors: child(imageGeneration),
}).createMachine({
  context: ({ input }) => input,
  initial: 'sketching',
  states: {
    sketching: { invoke: { src: 'image-generation@1', input: ({ context }) => ({ ...context, steps: 6 }), onDone: 'waiting' } },
    waiting: { on: { 'signal.approve': 'drawing', 'signal.discard': 'done' }, after: { 86_400_000: 'done' } },
    drawing: { invoke: { src: 'image-generation@1', input: ({ context }) => ({ ...context, steps: 30 }), onDone: 'done' } },
    done: { type: 'final' },
  },
})

export const approvedPicture = defineWorkflow({ name: 'approved-picture', input: z.strictObject({ prompt: z.string() }), machine })
