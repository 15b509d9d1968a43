/**
 * A workflow that does what its input says, line by line: for tests that need a session at a certain place. Its output is what its lines
 * said, in their order. Loaded by the APIs and workers of a farm as a `module`. Processes that start after `deploy` was called have version 2
 * of it, too.
 */
import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { assign, setup } from 'xstate'
import { z } from 'zod'
import { operation, type OperationTable } from '../../src/domains/operation.ts'
import type { ModelPin } from '../../src/domains/values.ts'
import { DarkroomError } from '../../src/errors.ts'
import { session } from '../../src/workflows/child-session.ts'
import { step, steps } from '../../src/workflows/step.ts'
import { defineWorkflow, type Workflow } from '../../src/workflows/index.ts'
import { sleep } from './wait.ts'

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
/**
 * `resolve` is a step of the product: workers without this module have it. `picture` is a child session of that seed. `nowhere` is a step on
 * a device, with a model that no worker has.
 */
export type Line =
  | z.input<typeof Say>
  | { waitMs: number }
  | { signal: true }
  | { child: Line[] }
  | { resolve: ModelPin }
  | { picture: number }
  | { nowhere: true }

const Input = z.strictObject({
  /** Of the test's own: each run of a step leaves a line `<name> <pid>` in its file `ledger`. */
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
}

const ledgerOf = (folder: string): string => join(folder, 'ledger')

/** The runs of each step in a session's folder: the pids they ran in, in their order. */
export function runsIn(folder: string): Record<string, number[]> {
  const file = ledgerOf(folder)
  const runs: Record<string, number[]> = {}
  for (const line of existsSync(file) ? readFileSync(file, 'utf8').trim().split('\n') : []) {
    const [name = '', pid] = line.split(' ')
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
      appendFileSync(ledgerOf(folder), `${say} ${process.pid}\n`)
      if (blockMs > 0 && process.env['SCRIPT_WORKER'] === blockOn) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, blockMs)
      while (holds && existsSync(join(folder, `${say}.hold`)) && !tools.signal.aborted) await sleep(20)
      if ((runsIn(folder)[say]?.length ?? 0) <= fails) throw new DarkroomError('worker.busy', `${say} was told to fail`)
      return mark + say
    },
  }),
  'test.nowhere': operation({
    input: z.unknown(),
    output: z.unknown(),
    lane: 'gpu',
    needs: () => ({ models: [{ id: 'a model of nobody', bodyHash: 'f'.repeat(64) }] }),
    attempts: 1,
    timeoutMs: 1000,
    run: () => Promise.reject(new Error('no worker has the model of this step')),
  }),
}

type Args = { context: Context }
type Happened = { type: string; output?: unknown; data?: unknown }
const lineOf = ({ context: { input, at } }: Args): Record<string, unknown> => input.lines[at] ?? {}
/** To the next line, with what this one said. */
const say = (what: (event: Happened) => unknown) => ({
  target: 'next',
  actions: assign<Context, Happened, undefined, Happened, never>({
    at: ({ context }) => context.at + 1,
    said: ({ context, event }) => [...context.said, what(event)],
  }) as never,
})
const has = (field: string, target: string) => ({ guard: (args: Args) => field in lineOf(args), target })
const ends = {
  onDone: say(({ output }) => output),
  onError: { guard: ({ context }: Args) => context.input.ignores, ...say(() => 'failed') },
}

/** A version marks what it says, so that the output shows which machine ran. */
function script(version: number): Workflow {
  const mark = version === 1 ? '' : `v${version}:`
  return defineWorkflow({
    name: 'script',
    version,
    input: Input,
    machine: setup({
      types: { context: {} as Context, input: {} as Input, events: {} as { type: 'signal.go'; data?: unknown } },
      actors: {
        'test.say': step<unknown, string>(),
        'test.nowhere': step<unknown, unknown>(),
        'script@1': session<unknown, { said: unknown[] }>(),
        'image-generation@1': session<{ prompt: string; seed: number }, unknown>(),
        ...steps('model.resolve'),
      },
      delays: { asked: (args) => Number(lineOf(args)['waitMs']) },
    }).createMachine({
      id: 'script',
      context: ({ input }) => ({ input, at: 0, said: [] }),
      initial: 'next',
      states: {
        next: {
          always: [
            has('say', 'saying'),
            has('resolve', 'resolving'),
            has('waitMs', 'waiting'),
            has('signal', 'listening'),
            has('child', 'child'),
            has('picture', 'drawing'),
            has('nowhere', 'stranded'),
            { target: 'done' },
          ],
        },
        saying: {
          invoke: {
            id: 'say',
            src: 'test.say',
            input: (args: Args) => ({ ...lineOf(args), folder: args.context.input.folder, mark }),
            ...ends,
          },
        },
        resolving: {
          invoke: {
            id: 'resolve',
            src: 'model.resolve',
            input: (args: Args) => ({ model: lineOf(args)['resolve'] as ModelPin }),
            ...ends,
          },
        },
        waiting: { after: { asked: say(() => 'waited') } },
        listening: { on: { 'signal.go': say(({ data }) => data) } },
        child: {
          invoke: {
            id: 'child',
            src: 'script@1',
            input: (args: Args) => ({ folder: args.context.input.folder, lines: lineOf(args)['child'] }),
            onDone: say(({ output }) => (output as { said: unknown[] }).said),
            onError: ends.onError,
          },
        },
        drawing: {
          invoke: {
            id: 'picture',
            src: 'image-generation@1',
            input: (args: Args) => ({ prompt: 'a red circle', seed: Number(lineOf(args)['picture']) }),
            ...ends,
          },
        },
        stranded: { invoke: { id: 'nowhere', src: 'test.nowhere', input: {}, ...ends } },
        done: { type: 'final' },
      },
      output: ({ context: { said } }) => ({ said }),
    }),
  })
}

const deployed = (data: string): string => join(data, 'deployed')

/** From now on processes that start with this data folder have the next release. */
export const deploy = (data: string): void => writeFileSync(deployed(data), '')

export const workflows: Workflow[] = existsSync(deployed(process.env['DARKROOM_DATA'] ?? '')) ? [script(1), script(2)] : [script(1)]
