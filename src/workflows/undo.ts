/**
 * What a workflow's steps have done is undone by a session of its own, once the workflow has failed or was cancelled:
 * that is over at once, and the undoing may take its time. Steps run one after another, the last one done first. One
 * that fails is tried again after a while, and at last fails the session, where everybody sees it; `retry` goes on
 * there.
 */
import { assign, enqueueActions, setup, type AnyEventObject } from 'xstate'
import { z } from 'zod'
import type { OperationTable } from '../domains/operation.ts'
import type { WireError } from '../errors.ts'
import { defineWorkflow, type Workflow } from './define.ts'
import { step } from './step.ts'

/** Tries of one step beside those that its operation has. */
const tries = 6
/** Before the second try, ms; then twice as long each time. */
const pauseMs = 2000

const Input = z.strictObject({
  /** The session whose steps are undone. */
  of: z.string(),
  /** In the order in which they run. */
  steps: z.array(z.strictObject({ step: z.string(), input: z.unknown() })),
})
type Input = z.infer<typeof Input>

interface Context extends Input {
  at: number
  failures: number
  error: WireError | null
}

export const undoName = 'undo'

/** The workflow that runs any of these operations. */
export function undoWorkflow(operations: OperationTable): Workflow {
  const machine = setup({
    types: { context: {} as Context, input: {} as Input, events: {} as AnyEventObject },
    actors: Object.fromEntries(Object.keys(operations).map((name) => [name, step<unknown, unknown>()])),
    actions: {
      run: enqueueActions(({ context: { steps, at, failures }, enqueue }) => {
        // By name, as data: XState's types would have every one written out.
        const spawnChild = enqueue.spawnChild as (source: string, options: { id: string; input: unknown }) => void
        const next = steps[at]
        if (next) spawnChild(next.step, { id: `undo.${at}.${failures}`, input: next.input })
      }),
    },
    guards: {
      isDone: ({ context: { steps, at } }) => at >= steps.length,
      mayTryAgain: ({ context: { failures } }) => failures + 1 < tries,
    },
    delays: { pause: ({ context: { failures } }) => pauseMs * 2 ** (failures - 1) },
  }).createMachine({
    id: undoName,
    context: ({ input }) => ({ ...input, at: 0, failures: 0, error: null }),
    initial: 'choosing',
    states: {
      choosing: { always: [{ guard: 'isDone', target: 'done' }, { target: 'undoing' }] },
      undoing: {
        entry: 'run',
        on: {
          'xstate.done.actor.*': { target: 'choosing', actions: assign({ at: ({ context }) => context.at + 1, failures: 0 }) },
          'xstate.error.actor.*': [
            { guard: 'mayTryAgain', target: 'waiting', actions: assign({ failures: ({ context }) => context.failures + 1 }) },
            { target: 'failed', actions: assign({ error: ({ event }) => event['error'] as WireError }) },
          ],
        },
      },
      waiting: { after: { pause: 'undoing' } },
      done: { type: 'final' },
      failed: { type: 'final', tags: 'failed' },
    },
    output: ({ context: { at, error } }) => (error ? { error } : { undone: at }),
  })
  return defineWorkflow({
    name: undoName,
    title: 'Undo the steps of a session',
    description: 'What a session has done and its workflow says how to undo, the last first. Begun by the session’s end.',
    input: Input,
    output: z.strictObject({ undone: z.int() }),
    machine,
    steps: ({ steps }) => (steps as unknown[]).length * tries,
  })
}
