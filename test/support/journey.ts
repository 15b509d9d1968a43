/**
 * A workflow that passes the crash points, for processes that die there; beside it the `script`, for those that it does not pass. It waits for the signal `go`, so that a test can make its
 * preparations. Each run of a step leaves a line `<name> <run>` in a file, the ledger, and gives the run as its result: a step may run
 * twice, and one of its runs is in the session's output.
 */
import { appendFileSync, existsSync, readFileSync } from 'node:fs'
import { randomUUID } from 'node:crypto'
import { assign, setup } from 'xstate'
import { z } from 'zod'
import { operation, type OperationTable } from '../../src/domains/operation.ts'
import { DarkroomError } from '../../src/errors.ts'
import { session } from '../../src/workflows/child-session.ts'
import { step } from '../../src/workflows/step.ts'
import { defineWorkflow, type Workflow } from '../../src/workflows/index.ts'
import * as script from './script.ts'

const Mark = z.strictObject({
  ledger: z.string(),
  name: z.string(),
  /** It fails once, and is tried again. */
  fails: z.boolean().default(false),
  /** So many of its runs take their worker with them. */
  kills: z.int().default(0),
})
type Mark = z.input<typeof Mark>
export interface Marked {
  name: string
  run: string
}

/** The runs of each step in a ledger, in their order. */
export function runsIn(ledger: string): Map<string, string[]> {
  const runs = new Map<string, string[]>()
  for (const line of existsSync(ledger) ? readFileSync(ledger, 'utf8').trim().split('\n') : []) {
    const [name = '', run = ''] = line.split(' ')
    runs.set(name, [...(runs.get(name) ?? []), run])
  }
  return runs
}

export const operations: OperationTable = {
  ...script.operations,
  'test.mark': operation({
    input: Mark,
    output: z.strictObject({ name: z.string(), run: z.string() }),
    lane: 'host',
    attempts: 3,
    timeoutMs: 120_000,
    run: async ({ ledger, name, fails, kills }, tools) => {
      const before = runsIn(ledger).get(name)?.length ?? 0
      const run = randomUUID()
      appendFileSync(ledger, `${name} ${run}\n`)
      if (before < kills) process.kill(process.pid, 'SIGKILL')
      tools.progress({ stage: 'run', call: 1, calls: 2 })
      await tools.note(`${name} runs`)
      await tools.keep(Buffer.from(`${ledger} ${name}`), 'image')
      if (fails && !runsIn(ledger).has(`${name}-failed`)) {
        appendFileSync(ledger, `${name}-failed ${run}\n`)
        throw new DarkroomError('worker.busy', 'it was told to fail once')
      }
      return { name, run }
    },
  }),
}

const ErrandInput = z.strictObject({ ledger: z.string(), name: z.string(), waits: z.boolean() })
type ErrandInput = z.infer<typeof ErrandInput>

/** A child: one step, once the signal has come if it waits for it. */
const errand = defineWorkflow({
  name: 'errand',
  input: ErrandInput,
  output: z.unknown(),
  machine: setup({
    types: {
      context: {} as { input: ErrandInput; marked: Marked | null },
      input: {} as ErrandInput,
      events: {} as { type: 'signal.go' },
      output: {} as Marked | null,
    },
    actors: { 'test.mark': step<Mark, Marked>() },
  }).createMachine({
    id: 'errand',
    context: ({ input }) => ({ input, marked: null }),
    initial: 'begin',
    states: {
      begin: { always: [{ guard: ({ context }) => context.input.waits, target: 'waiting' }, { target: 'run' }] },
      waiting: { on: { 'signal.go': 'run' } },
      run: {
        invoke: {
          id: 'mark',
          src: 'test.mark',
          input: ({ context: { input } }) => ({ ledger: input.ledger, name: input.name }),
          onDone: { target: 'over', actions: assign({ marked: ({ event }) => event.output }) },
        },
      },
      over: { type: 'final' },
    },
    output: ({ context }) => context.marked,
  }),
})

const JourneyInput = z.strictObject({
  ledger: z.string(),
  /** So many runs of its first step take their worker with them. */
  kills: z.int().default(0),
  /** The child waits for a signal of its own. */
  waits: z.boolean().default(false),
})
type JourneyInput = z.infer<typeof JourneyInput>
interface JourneyContext {
  input: JourneyInput
  marked: Marked[]
}

const add = assign<JourneyContext, { type: string; output: Marked }, undefined, { type: string }, never>({
  marked: ({ context, event }) => [...context.marked, event.output],
}) as never

/** A step; then at once a child, a step that fails at first, and a delay with a step behind it; then a step that joins them. */
const journey = defineWorkflow({
  name: 'journey',
  input: JourneyInput,
  output: z.strictObject({ marked: z.array(z.unknown()) }),
  machine: setup({
    types: { context: {} as JourneyContext, input: {} as JourneyInput, events: {} as { type: 'signal.go' } },
    actors: { 'test.mark': step<Mark, Marked>(), 'errand@1': session<ErrandInput, Marked>() },
  }).createMachine({
    id: 'journey',
    context: ({ input }) => ({ input, marked: [] }),
    initial: 'waiting',
    states: {
      waiting: { on: { 'signal.go': 'first' } },
      first: {
        invoke: {
          id: 'first',
          src: 'test.mark',
          input: ({ context: { input } }) => ({ ledger: input.ledger, name: 'first', kills: input.kills }),
          onDone: { target: 'middle', actions: add },
        },
      },
      middle: {
        type: 'parallel',
        onDone: 'last',
        states: {
          child: {
            initial: 'run',
            states: {
              run: {
                invoke: {
                  id: 'child',
                  src: 'errand@1',
                  input: ({ context: { input } }) => ({ ledger: input.ledger, name: 'child', waits: input.waits }),
                  onDone: { target: 'over', actions: add },
                  onError: {
                    target: 'over',
                    actions: assign({ marked: ({ context }) => [...context.marked, { name: 'child', run: 'cancelled' }] }),
                  },
                },
              },
              over: { type: 'final' },
            },
          },
          again: {
            initial: 'run',
            states: {
              run: {
                invoke: {
                  id: 'again',
                  src: 'test.mark',
                  input: ({ context: { input } }) => ({ ledger: input.ledger, name: 'again', fails: true }),
                  onDone: { target: 'over', actions: add },
                },
              },
              over: { type: 'final' },
            },
          },
          late: {
            initial: 'wait',
            states: {
              wait: { after: { 300: 'run' } },
              run: {
                invoke: {
                  id: 'late',
                  src: 'test.mark',
                  input: ({ context: { input } }) => ({ ledger: input.ledger, name: 'late' }),
                  onDone: { target: 'over', actions: add },
                },
              },
              over: { type: 'final' },
            },
          },
        },
      },
      last: {
        invoke: {
          id: 'last',
          src: 'test.mark',
          input: ({ context: { input } }) => ({ ledger: input.ledger, name: 'last' }),
          onDone: { target: 'over', actions: add },
        },
      },
      over: { type: 'final' },
    },
    output: ({ context }) => ({ marked: context.marked }),
  }),
})

/** The steps of a journey, by name. */
export const journeySteps = ['again', 'child', 'first', 'last', 'late']

export const workflows: Workflow[] = [...script.workflows, errand, journey]
