import { setup } from 'xstate'
import type { Command, Operation, OperationTable } from '../domains/operation.ts'
import { defineWorkflow, type Workflow } from './define.ts'
import { step } from './step.ts'

type Fields = Record<string, unknown>

/** A command as a workflow of its own: `memory.copy` is `memory-copy@1`, whose one step it is. */
export function oneStep(name: string, { input, output, lane }: Operation, command: Command): Workflow {
  const { title, description, scope, route } = command
  const machine = setup({
    types: { context: {} as Fields, input: {} as Fields, output: {} as Fields },
    actors: { [name]: step<Fields, Fields>() },
  }).createMachine({
    id: workflowName(name),
    context: ({ input: given }) => given,
    initial: 'running',
    states: {
      running: { invoke: { id: 'run', src: name, input: ({ context }) => context, onDone: 'done' } },
      done: { type: 'final', output: ({ event }) => event['output'] as Fields },
    },
    output: ({ event }) => event['output'] as Fields,
  })
  return defineWorkflow({
    name: workflowName(name),
    title,
    description,
    input: command.input,
    output,
    machine,
    resolveInput: async (given, catalogue) => input.parse(await command.resolve(given, catalogue)) as Fields,
    steps: () => 1,
    ...(scope && { scope }),
    route,
    resources: {
      lanes: [lane],
      note: lane === 'control' ? 'one command to the worker of one device; it fails when that worker ends' : 'one step',
    },
  })
}

/** The workflows of all operations that clients may ask for. */
export const commandWorkflows = (operations: OperationTable): Workflow[] =>
  Object.entries(operations).flatMap(([name, operation]) => (operation.command ? [oneStep(name, operation, operation.command)] : []))

/** `memory.copy` → `memory-copy`; `postprocessing.convert` → `image-convert`, as workflows of pictures are called. */
export const workflowName = <const Name extends string>(name: Name): CommandName<Name> =>
  name.replace('postprocessing.', 'image.').replace('.', '-') as CommandName<Name>
export type CommandName<Name extends string> = Name extends `postprocessing.${infer Verb}`
  ? `image-${Verb}`
  : Name extends `${infer Domain}.${infer Verb}`
    ? `${Domain}-${Verb}`
    : never
