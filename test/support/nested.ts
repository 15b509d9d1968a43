/**
 * Further workflows for tests: `leaf` is one step on the host; `tree` uses everything a machine may be made of, and its output can be
 * computed by hand: `total` is what its leaves and its own steps counted, `word` what it was signalled.
 */
import { assign, setup } from 'xstate'
import { z } from 'zod'
import { operation } from '../../src/domains/operation.ts'
import { DarkroomError } from '../../src/errors.ts'
import { session } from '../../src/workflows/child-session.ts'
import { step } from '../../src/workflows/step.ts'
import { defineWorkflow, type Workflow } from '../../src/workflows/index.ts'
import { sleep } from './wait.ts'

const Count = z.strictObject({ n: z.int().min(0), ms: z.int().default(0), fails: z.boolean().default(false) })
interface Counted {
  n: number
}

const leaf = defineWorkflow({
  name: 'leaf',
  input: Count,
  output: z.strictObject({ n: z.int() }),
  machine: setup({
    types: { context: {} as { input: z.infer<typeof Count>; n: number }, input: {} as z.infer<typeof Count> },
    actors: { 'test.count': step<z.infer<typeof Count>, Counted>() },
  }).createMachine({
    id: 'leaf',
    context: ({ input }) => ({ input, n: 0 }),
    initial: 'counting',
    states: {
      counting: {
        invoke: {
          id: 'count',
          src: 'test.count',
          input: ({ context }) => context.input,
          onDone: { target: 'done', actions: assign({ n: ({ event }) => event.output.n }) },
        },
      },
      done: { type: 'final' },
    },
    output: ({ context }) => ({ n: context.n }),
  }),
})

interface TreeContext {
  input: { n: number; ms: number; delayMs: number }
  total: number
  word: string
  failure: string
}
const add = assign<TreeContext, { type: string; output: Counted }, undefined, { type: string }, never>({
  total: ({ context, event }) => context.total + event.output.n,
})

const patience = ({ context }: { context: TreeContext }): number => context.input.delayMs

/** A step, then at once: two leaves (one fails and is made up for), a delay, a signal; then a step that counts again. */
const tree = defineWorkflow({
  name: 'tree',
  input: z.strictObject({ n: z.int(), ms: z.int().default(0), delayMs: z.int().default(100) }),
  machine: setup({
    types: {
      context: {} as TreeContext,
      input: {} as { n: number; ms: number; delayMs: number },
      events: {} as { type: 'signal.go'; data?: { word: string } } | { type: 'signal.stop' },
      output: {} as Record<string, unknown>,
    },
    actors: {
      'test.count': step<z.infer<typeof Count>, Counted>(),
      'leaf@1': session<{ n: number; ms?: number; fails?: boolean }, Counted>(),
    },
    delays: { patience },
  }).createMachine({
    id: 'tree',
    context: ({ input }) => ({ input, total: 0, word: '', failure: '' }),
    initial: 'first',
    on: { 'signal.stop': '.done' },
    states: {
      first: {
        invoke: {
          id: 'first',
          src: 'test.count',
          input: ({ context }) => ({ n: context.input.n, ms: 0, fails: false }),
          onDone: { target: 'middle', actions: add as never },
        },
      },
      middle: {
        type: 'parallel',
        onDone: 'last',
        states: {
          good: {
            initial: 'run',
            states: {
              run: {
                invoke: {
                  id: 'good',
                  src: 'leaf@1',
                  input: ({ context }) => ({ n: 10, ms: context.input.ms }),
                  onDone: { target: 'over', actions: add as never },
                },
              },
              over: { type: 'final' },
            },
          },
          bad: {
            initial: 'run',
            states: {
              run: {
                invoke: {
                  id: 'bad',
                  src: 'leaf@1',
                  input: { n: 100, fails: true },
                  onError: { target: 'over', actions: assign({ failure: ({ event }) => (event.error as { code: string }).code }) },
                },
              },
              over: { type: 'final' },
            },
          },
          delay: { initial: 'wait', states: { wait: { after: { patience: 'over' } }, over: { type: 'final' } } },
          word: {
            initial: 'wait',
            states: {
              wait: {
                on: {
                  'signal.go': {
                    target: 'over',
                    actions: assign({ word: ({ context, event }) => context.word + (event.data?.word ?? '') }),
                  },
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
          src: 'test.count',
          input: { n: 1000, ms: 0, fails: false },
          onDone: { target: 'done', actions: add as never },
        },
      },
      done: { type: 'final' },
    },
    output: ({ context: { total, word, failure } }) => ({ total, word, failure }),
  }),
})

/** What an undisturbed `tree` gives. */
export const treeOutput = (n: number, word: string): Record<string, unknown> => ({ total: n + 1010, word, failure: 'worker.failed' })

/** A workflow that names itself for ever, and one whose child's request is refused. */
const deep = defineWorkflow({
  name: 'deep',
  input: z.strictObject({ child: z.enum(['deep', 'leaf']) }),
  machine: setup({
    types: { context: {} as { child: string }, input: {} as { child: string } },
    actors: { 'deep@1': session<{ child: string }, unknown>(), 'leaf@1': session<{ n: number }, unknown>() },
  }).createMachine({
    id: 'deep',
    context: ({ input }) => ({ child: input?.child ?? '' }),
    initial: 'choose',
    states: {
      choose: { always: [{ guard: ({ context }) => context.child === 'leaf', target: 'leaf' }, { target: 'deep' }] },
      leaf: { invoke: { id: 'x', src: 'leaf@1', input: { n: -1 } } },
      deep: { invoke: { id: 'x', src: 'deep@1', input: { child: 'deep' } } },
    },
  }),
})

export const workflows: Workflow[] = [leaf, tree, deep]

export const operations = {
  'test.count': operation({
    input: Count,
    output: z.strictObject({ n: z.int() }),
    lane: 'host',
    attempts: 3,
    timeoutMs: 60_000,
    run: async ({ n, ms, fails }) => {
      await sleep(ms)
      if (fails) throw new DarkroomError('worker.failed', 'it was told to fail')
      return { n }
    },
  }),
}
