/** A workflow that holds device memory while it does one thing or another: what becomes of the memory is what tests look at. */
import { assign, setup } from 'xstate'
import { z } from 'zod'
import { memory } from '../../src/domains/memory/index.ts'
import type { AllocationView } from '../../src/domains/memory/figures/report.ts'
import { operation, type Tools } from '../../src/domains/operation.ts'
import { Target } from '../../src/domains/values.ts'
import { DarkroomError } from '../../src/errors.ts'
import { defineWorkflow, type Workflow } from '../../src/workflows/index.ts'
import { step } from '../../src/workflows/step.ts'

const Next = z.enum(['succeed', 'fail', 'wait', 'copy', 'linger', 'block'])
const Input = z.strictObject({ device: z.string(), bytes: z.int().min(2), next: Next })
type Resolved = Omit<z.infer<typeof Input>, 'device'> & { target: Target }
interface Context {
  input: Resolved
  id: string
}
const On = z.strictObject({ target: Target, id: z.string() })
const Bytes = z.strictObject({ target: Target, bytes: z.int(), blockMs: z.int() })
/** Longer than a lease, and than a worker is believed to be there without a word. */
const blockMs = 8000

/**
 * `succeed`, `fail`: ends so at once. `wait`: until it is signalled. `copy`: copies half of what it holds onto the other half, for ever.
 * `linger`: allocates more, for the caller's key, and never comes to an end with it. `block`: allocates more, too, and then is in a call
 * that lets its process do nothing else for 8 s.
 */
const machine = setup({
  types: {
    context: {} as Context,
    input: {} as Resolved,
    events: {} as { type: 'signal.go' },
  },
  actors: {
    'memory.allocate': step<Record<string, unknown>, AllocationView>(),
    'test.fail': step<object, unknown>(),
    'test.copy': step<z.infer<typeof On>, unknown>(),
    'test.linger': step<z.infer<typeof Bytes>, unknown>(),
  },
  guards: { is: ({ context }, next: string) => context.input.next === next },
}).createMachine({
  id: 'holding',
  context: ({ input }) => ({ input, id: '' }),
  initial: 'allocating',
  states: {
    allocating: {
      invoke: {
        id: 'allocate',
        src: 'memory.allocate',
        input: ({ context: { input } }) => ({
          target: input.target,
          bytes: input.bytes,
          kind: 'device',
          placement: 'automatic',
          ownedBy: 'session',
          timeToLiveMs: null,
        }),
        onDone: { target: 'holding', actions: assign({ id: ({ event }) => event.output.id }) },
      },
    },
    holding: {
      always: [
        { guard: { type: 'is', params: 'succeed' }, target: 'done' },
        { guard: { type: 'is', params: 'fail' }, target: 'failing' },
        { guard: { type: 'is', params: 'copy' }, target: 'copying' },
        { guard: { type: 'is', params: 'linger' }, target: 'lingering' },
        { guard: { type: 'is', params: 'block' }, target: 'lingering' },
      ],
      on: { 'signal.go': 'done' },
    },
    failing: { invoke: { id: 'fail', src: 'test.fail', input: {}, onDone: 'done' } },
    copying: {
      invoke: {
        id: 'copy',
        src: 'test.copy',
        input: ({ context }) => ({ target: context.input.target, id: context.id }),
        onDone: 'done',
      },
    },
    lingering: {
      invoke: {
        id: 'linger',
        src: 'test.linger',
        input: ({ context: { input } }) => ({ target: input.target, bytes: input.bytes, blockMs: input.next === 'block' ? blockMs : 0 }),
        onDone: 'done',
      },
    },
    done: { type: 'final' },
  },
  output: ({ context }) => ({ id: context.id }),
})

export const workflows: Workflow[] = [
  defineWorkflow({
    name: 'holding',
    input: Input,
    machine,
    resolveInput: async ({ device, ...rest }, catalogue) => ({ ...rest, target: await catalogue.device(device, 'input.device') }),
  }),
]

const command = { lane: 'host', attempts: 1, timeoutMs: 600_000, output: z.unknown() } as const
const aimed = { ...command, lane: 'control' } as const

export const operations = {
  'test.fail': operation({
    ...command,
    input: z.strictObject({}),
    run: () => Promise.reject(new DarkroomError('worker.failed', 'it was told to fail')),
  }),
  'test.copy': operation({
    ...aimed,
    input: On,
    needs: ({ target }) => ({ target }),
    run: async ({ target, id }, tools: Tools) => {
      const { memory: held } = tools.device(target)
      const n = Number(id.split('.')[2])
      const bytes = Math.floor(held.inspect(n).bytes / 2)
      for (;;) await held.copy({ from: n, to: n, at: bytes, bytes }, { signal: tools.signal })
    },
  }),
  'test.linger': operation({
    ...aimed,
    input: Bytes,
    needs: ({ target }) => ({ target }),
    run: async ({ blockMs: ms, ...input }, tools: Tools) => {
      const make = { kind: 'device', placement: 'automatic', ownedBy: 'key', timeToLiveMs: 600_000 }
      const made = await memory['memory.allocate'].run({ ...input, ...make }, tools)
      if (ms > 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
      await new Promise<void>((resolve) => tools.signal.addEventListener('abort', () => resolve(), { once: true }))
      return made
    },
  }),
}
