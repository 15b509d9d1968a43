/** Workflows of one or two small steps, for tests of the engine: loaded by the APIs and workers of a farm as a `module`. */
import { appendFileSync } from 'node:fs'
import { assign, setup } from 'xstate'
import { z } from 'zod'
import { operation, type OperationTable } from '../../src/domains/operation.ts'
import type { ModelPin } from '../../src/domains/values.ts'
import { step, steps } from '../../src/workflows/step.ts'
import { defineWorkflow, type Workflow } from '../../src/workflows/index.ts'

const Input = z.strictObject({
  /** A file that gets a line whenever the step runs. */
  ledger: z.string(),
  /** How long the step keeps its whole process from doing anything else, and on which worker (part of its name), ms. */
  blockMs: z.number().default(0),
  blockOn: z.string().default(''),
  /** Waits this long, by a timer of the machine, before the step, ms. */
  delayMs: z.number().default(0),
})
type Input = z.infer<typeof Input>

const machine = setup({
  types: { context: {} as { input: Input }, input: {} as Input, output: {} as Record<string, never> },
  actors: { 'test.work': step<Input, Record<string, never>>() },
  delays: { asked: ({ context }) => context.input.delayMs },
}).createMachine({
  id: 'rehearsal',
  context: ({ input }) => ({ input }),
  initial: 'waiting',
  states: {
    waiting: { after: { asked: 'working' } },
    working: {
      invoke: { id: 'work', src: 'test.work', input: ({ context }) => context.input, onDone: 'done' },
    },
    done: { type: 'final' },
  },
  output: {},
})

const rehearsal = defineWorkflow({
  name: 'rehearsal',
  title: 'Rehearsal',
  description: 'One step that leaves a line in a file.',
  input: Input,
  output: z.unknown(),
  machine,
  resources: { lanes: ['host'], note: 'nothing' },
})

/** One step that every worker has, in a machine that only those with this module know. */
const lookup = defineWorkflow({
  name: 'lookup',
  title: 'Lookup',
  description: 'Finds a model on a worker.',
  input: z.strictObject({ model: z.string() }),
  machine: setup({
    types: { context: {} as { input: { model: ModelPin }; found: unknown }, input: {} as { model: ModelPin } },
    actors: steps('model.resolve'),
  }).createMachine({
    id: 'lookup',
    context: ({ input }) => ({ input, found: null }),
    initial: 'resolving',
    states: {
      resolving: {
        invoke: {
          id: 'resolve',
          src: 'model.resolve',
          input: ({ context }) => context.input,
          onDone: { target: 'done', actions: assign({ found: ({ event }) => event.output }) },
        },
      },
      done: { type: 'final' },
    },
    output: ({ context }) => context.found,
  }),
  resolveInput: async (input, catalogue) => {
    const { id, bodyHash } = await catalogue.model(input.model)
    return { model: { id, bodyHash } }
  },
})

export const workflows: Workflow[] = [rehearsal, lookup]

export const operations: OperationTable = {
  'test.work': operation({
    input: Input,
    output: z.unknown(),
    lane: 'host',
    attempts: 3,
    timeoutMs: 60_000,
    run: ({ ledger, blockMs, blockOn }) => {
      const own = process.env['REHEARSAL_NAME'] ?? ''
      appendFileSync(ledger, `${own}\n`)
      if (own === blockOn) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, blockMs)
      return Promise.resolve({})
    },
  }),
}
