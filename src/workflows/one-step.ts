import { assign, setup } from 'xstate'
import type { z } from 'zod'
import type { OperationTable } from '../domains/operation.ts'
import type { WireError } from '../errors.ts'
import { step } from './step.ts'
import type { Catalogue, Workflow } from './define.ts'

interface Context {
  input: Record<string, unknown>
  output: Record<string, unknown> | null
  error: WireError | null
}

export interface OperationWorkflow<Given> extends Pick<Workflow, 'title' | 'description' | 'scope'> {
  /** What a client may send. */
  input: z.ZodType<Given>
  /** The operation's input, from what the client sent. */
  whole(given: Given, catalogue: Catalogue): Promise<Record<string, unknown>>
}

/** A domain operation as a workflow of its own: `memory.copy` is `memory-copy@1`, whose one step it is. */
export function operationWorkflow<Given>(operations: OperationTable, name: string, about: OperationWorkflow<Given>): Workflow {
  const operation = operations[name]
  if (!operation) throw new Error(`there is no operation ${name}`)
  const { title, description, input, scope } = about
  const machine = setup({
    types: {
      context: {} as Context,
      input: {} as Record<string, unknown>,
      output: {} as Record<string, unknown> | { error: WireError | null },
    },
    actors: { [name]: step<Record<string, unknown>, Record<string, unknown>>() },
  }).createMachine({
    id: name.replace('.', '-'),
    context: ({ input: given }) => ({ input: given, output: null, error: null }),
    initial: 'running',
    states: {
      running: {
        invoke: {
          id: 'run',
          src: name,
          input: ({ context }) => context.input,
          onDone: { target: 'done', actions: assign({ output: ({ event }) => event.output as Record<string, unknown> }) },
          onError: { target: 'failed', actions: assign({ error: ({ event }) => event.error as WireError }) },
        },
      },
      done: { type: 'final' },
      failed: { type: 'final', tags: 'failed' },
    },
    output: ({ context }) => context.output ?? { error: context.error },
  })
  return {
    name: name.replace('.', '-'),
    version: 1,
    title,
    description,
    input,
    output: operation.output,
    machine,
    exact: false,
    makeWhole: async (given, catalogue) =>
      operation.input.parse(await about.whole(input.parse(given), catalogue)) as Record<string, unknown>,
    progress: (_context, _step, fraction) => ({ fraction }),
    steps: () => 1,
    ...(scope && { scope }),
    resources: { lanes: [operation.lane], note: 'one command to the worker of one device; it fails when that worker ends' },
  }
}
