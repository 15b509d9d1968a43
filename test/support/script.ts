/**
 * A workflow that does what its input says, line by line: for tests that need a session at a certain place. Its output is what its lines
 * said, in their order. Loaded by the APIs and workers of a farm as a `module`. Processes that start after `deploy` was called have version 2 of it, too.
 */
import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { assign, setup } from 'xstate'
import { z } from 'zod'
import { operation, type OperationTable } from '../../src/domains/operation.ts'
import { DarkroomError } from '../../src/errors.ts'
import { session } from '../../src/workflows/child-session.ts'
import { step } from '../../src/workflows/step.ts'
import { defineWorkflow, type Workflow } from '../../src/workflows/index.ts'

const Say = z.strictObject({
  say: z.string(),
  /** It goes on only when there is no file `<name>.hold` in the session's folder. */
  holds: z.boolean().default(false),
  /** That many runs fail, and are tried again as long as attempts are left. */
  fails: z.int().default(0),
  /** How long each run keeps its whole process from doing anything else, and on which worker, ms. */
  blockMs: z.int().default(0),
  blockOn: z.string().default(''),
})
export type Line = z.input<typeof Say> | { waitMs: number } | { signal: true } | { child: Line[] }

const Input = z.strictObject({
  /** Of the test's own: each run of a step leaves a line `<name> <worker> <pid>` in its file `ledger`. */
  folder: z.string(),
  lines: z.array(z.record(z.string(), z.unknown())),
  /** A line that fails is passed over; otherwise it fails the session. */
  ignores: z.boolean().default(false),
})
type Input = z.infer<typeof Input>
interface Context {
  input: Input
  /** How many lines are done. */
  at: number
  said: unknown[]
  error: unknown
}
type Output = { said: unknown[] } | { error: unknown }

const ledgerOf = (folder: string): string => join(folder, 'ledger')

/** The runs of each step in a session's folder: the pids they ran in, in their order. */
export function runsIn(folder: string): Record<string, number[]> {
  const file = ledgerOf(folder)
  const runs: Record<string, number[]> = {}
  for (const line of existsSync(file) ? readFileSync(file, 'utf8').trim().split('\n') : []) {
    const [name = '', , pid] = line.split(' ')
    ;(runs[name] ??= []).push(Number(pid))
  }
  return runs
}

export const operations: OperationTable = {
  'test.say': operation({
    input: Say.extend({ folder: z.string(), mark: z.string() }),
    output: z.string(),
    lane: 'host',
    attempts: 3,
    timeoutMs: 120_000,
    run: async ({ folder, say, mark, holds, fails, blockMs, blockOn }, tools) => {
      const own = process.env['REHEARSAL_NAME'] ?? 'worker'
      appendFileSync(ledgerOf(folder), `${say} ${own} ${process.pid}\n`)
      if (own === blockOn) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, blockMs)
      while (holds && existsSync(join(folder, `${say}.hold`)) && !tools.signal.aborted)
        await new Promise((resolve) => setTimeout(resolve, 20))
      if ((runsIn(folder)[say]?.length ?? 0) <= fails) throw new DarkroomError('worker.busy', `${say} was told to fail`)
      return mark + say
    },
  }),
}

const has = (field: string) => ({ guard: ({ context }: { context: Context }) => field in (context.input.lines[context.at] ?? {}) })
const next = ({ context }: { context: Context }): number => context.at + 1
type Happened = { type: string; output?: unknown; data?: unknown; error?: unknown }
const say = (what: (event: Happened) => unknown) =>
  assign<Context, Happened, undefined, Happened, never>({
    at: next,
    said: ({ context, event }) => [...context.said, what(event)],
  }) as never
const onError = [
  { guard: ({ context }: { context: Context }) => context.input.ignores, target: 'next', actions: say(() => 'failed') },
  {
    target: 'failed',
    actions: assign<Context, Happened, undefined, Happened, never>({ error: ({ event }: { event: Happened }) => event.error }) as never,
  },
]

/** A version marks what it says, so that the output shows which machine ran. */
function script(version: number): Workflow {
  const mark = version === 1 ? '' : `v${version}:`
  return defineWorkflow({
    name: 'script',
    version,
    title: 'Script',
    description: 'Does what its lines say.',
    input: Input,
    output: z.unknown(),
    resolveInput: (input) => Promise.resolve(Input.parse(input)),
    resources: { lanes: ['host'], note: 'nothing' },
    machine: setup({
      types: {
        context: {} as Context,
        input: {} as Input,
        events: {} as { type: 'signal.go'; data?: unknown },
        output: {} as Output,
      },
      actors: { 'test.say': step<unknown, string>(), 'script@1': session<unknown, { said: unknown[] }>() },
      delays: { asked: ({ context }) => Number(context.input.lines[context.at]?.['waitMs']) },
    }).createMachine({
      id: 'script',
      context: ({ input }) => ({ input, at: 0, said: [], error: null }),
      initial: 'next',
      states: {
        next: {
          always: [
            { ...has('say'), target: 'saying' },
            { ...has('waitMs'), target: 'waiting' },
            { ...has('signal'), target: 'listening' },
            { ...has('child'), target: 'child' },
            { target: 'done' },
          ],
        },
        saying: {
          invoke: {
            id: 'say',
            src: 'test.say',
            input: ({ context: { input, at } }: { context: Context }) => ({ ...input.lines[at], folder: input.folder, mark }),
            onDone: { target: 'next', actions: say(({ output }) => output) },
            onError,
          },
        },
        waiting: { after: { asked: { target: 'next', actions: say(() => 'waited') } } },
        listening: { on: { 'signal.go': { target: 'next', actions: say(({ data }) => data) } } },
        child: {
          invoke: {
            id: 'child',
            src: 'script@1',
            input: ({ context: { input, at } }: { context: Context }) => ({ folder: input.folder, lines: input.lines[at]?.['child'] }),
            onDone: { target: 'next', actions: say(({ output }) => (output as { said: unknown[] }).said) },
            onError,
          },
        },
        done: { type: 'final' },
        failed: { type: 'final', tags: 'failed' },
      },
      output: ({ context: { said, error } }) => (error === null ? { said } : { error }),
    }),
  })
}

const deployed = (data: string): string => join(data, 'deployed')

/** From now on processes that start with this data folder have the next release. */
export const deploy = (data: string): void => writeFileSync(deployed(data), '')

export const workflows: Workflow[] = existsSync(deployed(process.env['DARKROOM_DATA'] ?? '')) ? [script(1), script(2)] : [script(1)]
