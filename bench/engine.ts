/**
 * A real engine and a real worker node in this process, on a private Redis of their own: durable workflows of five
 * steps that do nothing, on the host lane, as `darkroom api` and `darkroom worker` would run them.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { assign, setup } from 'xstate'
import { z } from 'zod'
import { readConfig } from '../src/config.ts'
import { operation, type OperationTable } from '../src/domains/operation.ts'
import { fakeChild } from '../test/support/child.ts'
import { keys } from '../src/keys.ts'
import { createLog } from '../src/log.ts'
import { connect, untilReady, type Redis } from '../src/redis.ts'
import { startWorker } from '../src/workers/boot.ts'
import { Engine } from '../src/engine/engine.ts'
import { defineWorkflow, type Workflow } from '../src/workflows/index.ts'
import { step } from '../src/workflows/step.ts'
import { writeModel } from '../test/support/model.ts'
import { startTestRedis } from '../test/support/redis.ts'

/** Steps of a workflow. */
export const length = 5
/** Steps that the worker runs at a time. */
export const concurrency = 100

const Input = z.strictObject({ n: z.int() })
const At = z.strictObject({ n: z.int(), index: z.int() })
type At = z.infer<typeof At>

const chain = defineWorkflow({
  name: 'bench-chain',
  version: 1,
  title: 'Chain',
  description: `${length} steps, one after another, that do nothing.`,
  input: Input,
  output: z.strictObject({}),
  machine: setup({
    types: { context: {} as At, input: {} as { n: number } },
    actors: { 'bench.nothing': step<At, At>() },
  }).createMachine({
    id: 'chain',
    context: ({ input }) => ({ n: input?.n ?? 0, index: 0 }),
    initial: 'step0',
    states: {
      ...Object.fromEntries(
        Array.from({ length }, (_, index) => [
          `step${index}`,
          {
            invoke: {
              id: `step${index}`,
              src: 'bench.nothing' as const,
              input: ({ context }: { context: At }) => ({ n: context.n, index }),
              onDone: { target: `step${index + 1}`, actions: assign({ index: index + 1 }) },
            },
          },
        ]),
      ),
      [`step${length}`]: { type: 'final' as const },
    },
  }),
  resolveInput: (input) => Promise.resolve(Input.parse(input)),
  progress: () => ({ fraction: 0 }),
  resources: { lanes: ['host'], note: 'nothing' },
})

export interface Bench extends AsyncDisposable {
  redisUrl: string
  redis: Redis
  engine: Engine
  /** Submits workflow number n; resolves when it is accepted. */
  start(n: number): Promise<void>
  /** Called at each end of a session, as its commit tells the workers of it. */
  onEnd: () => void
  /** @throws Error unless every session that was started has succeeded */
  check(): Promise<void>
}

interface Further {
  /** Besides the chain. */
  workflows?: Workflow[]
  /** Further settings (`DARKROOM_…`). */
  settings?: Record<string, string>
}

/** @param run what each step does: nothing but look at the clock */
export async function openBench(run: (at: At) => void = () => undefined, further: Further = {}): Promise<Bench> {
  const closers: (() => unknown)[] = []
  const close = async (): Promise<void> => {
    for (const act of closers.toReversed()) await act()
  }
  try {
    return await open(run, further, closers, close)
  } catch (error) {
    await close()
    throw error
  }
}

async function open(run: (at: At) => void, further: Further, closers: (() => unknown)[], close: () => Promise<void>): Promise<Bench> {
  const folder = await mkdtemp(join(tmpdir(), 'darkroom-bench-'))
  closers.push(() => rm(folder, { recursive: true, force: true }))
  await writeModel(join(folder, 'models'))
  const server = await startTestRedis()
  closers.push(() => server.stop())
  const config = readConfig({
    DARKROOM_DATA: join(folder, 'data'),
    DARKROOM_MODELS: join(folder, 'models'),
    DARKROOM_HOST_LANE: String(concurrency),
    DARKROOM_LOG: 'warn',
    ...further.settings,
  })
  const log = createLog(config.logLevel, 'bench')
  const operations: OperationTable = {
    'bench.nothing': operation({
      input: At,
      output: At,
      lane: 'host',
      attempts: 1,
      timeoutMs: 60_000,
      run: (at) => {
        run(at)
        return Promise.resolve(at)
      },
    }),
  }
  const workflows = [chain, ...(further.workflows ?? [])]
  const node = await startWorker({
    config,
    log,
    redisUrl: server.url,
    command: fakeChild(),
    attempts: join(folder, 'attempts'),
    operations,
    workflows,
  })
  closers.push(() => node.drain())
  const redis = connect(server.url, { patience: 'fail' })
  const subscriber = connect(server.url, { patience: 'wait' })
  const listener = connect(server.url, { patience: 'wait' })
  for (const connection of [redis, subscriber, listener]) closers.push(() => connection.disconnect())
  await untilReady(redis, 10_000)
  const engine = new Engine({ redis, subscriber, config, log, operations, workflows })
  closers.push(() => engine.close())
  await listener.subscribe(keys.control())

  let started = 0
  const bench: Bench = {
    redisUrl: server.url,
    redis,
    engine,
    start: async (n) => {
      started++
      await engine.start({ workflow: chain.name, input: { n }, tags: [], priority: 5, keyId: null })
    },
    onEnd: () => undefined,
    check: async () => {
      const [all, succeeded] = await Promise.all([redis.zcard(keys.index(0, 'all')), redis.zcard(keys.index(0, 'status', 'succeeded'))])
      if (all !== started || succeeded !== started)
        throw new Error(`void: of ${started} sessions ${all} are there and ${succeeded} succeeded`)
    },
    [Symbol.asyncDispose]: close,
  }
  listener.on('message', () => bench.onEnd())
  return bench
}
