import { child, defineWorkflow, imageGeneration, setup, z } from 'darkroom/workflows'

const Input = z.strictObject({ prompt: z.string() })
const types = {} as { context: z.infer<typeof Input>; input: z.infer<typeof Input> }

const machine = setup({ types, actors: child(imageGeneration) }).createMachine({
  context: ({ input }) => input,
  initial: 'sketching',
  states: {
    sketching: {
      invoke: { src: 'image-generation@1', input: ({ context }) => ({ ...context, steps: 6 }), onDone: 'waiting' },
    },
    waiting: { on: { 'signal.approve': 'drawing', 'signal.discard': 'done' }, after: { 86_400_000: 'done' } },
    drawing: { invoke: { src: 'image-generation@1', input: ({ context }) => context, onDone: 'done' } },
    done: { type: 'final' },
  },
})

export const approvedPicture = defineWorkflow({ name: 'approved-picture', input: Input, machine })
