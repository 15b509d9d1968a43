import { assign, setup } from 'xstate'
import { z } from 'zod'
import { Loaded } from '../../domains/model/load.ts'
import { ModelKind, ModelName, WantedModel, type ModelPin } from '../../domains/values.ts'
import { wanted } from '../../domains/model/named.ts'
import { wantedOf } from '../../models/entry.ts'
import { isBeside } from '../../models/families.ts'
import { defineWorkflow } from '../define.ts'
import { steps } from '../step.ts'

const Resolved = z.strictObject({ model: WantedModel })
type Resolved = z.infer<typeof Resolved>
interface Context extends Resolved {
  /** What was found where the input does not say it. */
  bodyHash: string | null
}

const hashOf = ({ model, bodyHash }: Context): string => model.bodyHash ?? bodyHash ?? ''
/** One that draws, as it is pinned. */
const pinOf = (context: Context): ModelPin => wantedOf({ ...context.model, bodyHash: hashOf(context) })
const pinned = (context: Context): WantedModel => ({ ...context.model, bodyHash: hashOf(context) })

/** [hash] → load: from disk to the device, pinned before anything is read for it. */
const machine = setup({
  types: { context: {} as Context, input: {} as Resolved, output: {} as z.infer<typeof Loaded> },
  actors: steps('model.hash', 'model.resolve', 'model.load'),
}).createMachine({
  id: 'model-loading',
  context: ({ input }) => ({ ...input, bodyHash: null }),
  initial: 'pinning',
  states: {
    pinning: {
      always: [{ guard: ({ context }) => context.model.bodyHash === null, target: 'hashing' }, { target: 'loading' }],
    },
    hashing: {
      invoke: {
        id: 'hash',
        src: 'model.hash',
        input: ({ context }) => ({ model: context.model }),
        onDone: { target: 'loading', actions: assign({ bodyHash: ({ event }) => event.output.model.bodyHash }) },
      },
    },
    // Of sessions that an earlier version of Darkroom has begun.
    resolving: {
      invoke: { id: 'resolve', src: 'model.resolve', input: ({ context }) => ({ model: pinOf(context) }), onDone: 'loading' },
    },
    loading: {
      invoke: { id: 'load', src: 'model.load', input: ({ context }) => ({ model: pinned(context) }), onDone: 'done' },
    },
    done: { type: 'final', output: ({ event }) => event['output'] as z.infer<typeof Loaded> },
  },
  output: ({ event }) => event['output'] as z.infer<typeof Loaded>,
})

/**
 * Where each step begins and ends in the whole; a model is read whole for its hash, and once more for its load. One
 * that was hashed begins at its load.
 */
const shares: Readonly<Record<string, { from: number; to: number }>> = {
  'model.hash': { from: 0, to: 0.45 },
  'model.resolve': { from: 0.45, to: 0.45 },
  'model.load': { from: 0.45, to: 0.999 },
}

export const modelLoading = defineWorkflow({
  name: 'model-loading',
  title: 'Load a model from disk to the device',
  description:
    'Pins a model, a ControlNet, an upscaler or a preprocessor, hashing it first where nobody has, and makes it resident on a device, with one progress over all of it.',
  input: z.strictObject({ model: ModelName, kind: ModelKind }),
  output: Loaded,
  machine,
  resolveInput: async (given, catalogue) => ({ model: await wanted(given, catalogue, isBeside) }) satisfies Resolved,
  progress(context, step, fraction) {
    const { from, to } = shares[step] ?? { from: 0, to: 0 }
    const start = (context as Context).model.bodyHash === null ? 0 : (shares['model.load']?.from ?? 0)
    return { fraction: (from - start + fraction * (to - from)) / (1 - start) }
  },
  steps: () => 2,
  resources: { lanes: ['host', 'gpu'], note: 'one device, for as long as the load takes' },
})
