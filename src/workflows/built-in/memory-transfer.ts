import { assign, setup } from 'xstate'
import { z } from 'zod'
import { DeviceName } from '../../domains/command.ts'
import { memoryError } from '../../domains/memory/errors.ts'
import { asOperator, holder, make, milliseconds, Offset, RangeBytes } from '../../domains/memory/allocation.ts'
import { memory } from '../../domains/memory/index.ts'
import { AllocationId } from '../../domains/values.ts'
import { defineWorkflow } from '../define.ts'
import { steps } from '../step.ts'

const { 'memory.read': read, 'memory.write': write } = memory
type ReadInput = z.infer<typeof read.input>
type ReadOutput = z.infer<typeof read.output>
type WriteInput = z.infer<typeof write.input>
type WriteOutput = z.infer<typeof write.output>

/** What to read, and how to write it; what was read is known later. */
interface Input {
  read: ReadInput
  write: Omit<WriteInput, keyof ReadOutput>
}

/** The source's worker reads into artifacts, the target's writes them: both ends may be anywhere in the farm. */
const machine = setup({
  types: { context: {} as Input & { chunks: ReadOutput }, input: {} as Input, output: {} as WriteOutput },
  actors: steps('memory.read', 'memory.write'),
}).createMachine({
  id: 'memory-transfer',
  context: ({ input }) => ({ ...input, chunks: { bytes: 0, crc32: '', chunks: [] } }),
  initial: 'reading',
  states: {
    reading: {
      invoke: {
        id: 'read',
        src: 'memory.read',
        input: ({ context }) => context.read,
        onDone: { target: 'writing', actions: assign({ chunks: ({ event }) => event.output }) },
      },
    },
    writing: {
      invoke: {
        id: 'write',
        src: 'memory.write',
        input: ({ context }) => ({ ...context.write, ...context.chunks }),
        onDone: 'done',
      },
    },
    done: { type: 'final', output: ({ event }) => event['output'] as WriteOutput },
  },
  output: ({ event }) => event['output'] as WriteOutput,
})

export const memoryTransfer = defineWorkflow({
  name: 'memory-transfer',
  title: 'Transfer memory',
  description: 'From one device to another, wherever they are; into an allocation there, or a new one.',
  input: z.strictObject({
    from: AllocationId,
    fromAt: Offset,
    bytes: RangeBytes,
    to: AllocationId.optional().describe('an allocation to write into; else `device` says where a new one is made'),
    device: DeviceName.optional(),
    at: Offset,
    ...make,
    verify: z.boolean().default(true).describe('compare the checksum of what arrived'),
  }),
  output: write.output.meta({ id: 'MemoryTransferred' }),
  machine,
  async resolveInput({ from, fromAt, bytes = null, to, device, at, kind, placement, timeToLiveS, verify }, catalogue) {
    if ((to === undefined) === (device === undefined))
      throw memoryError('invalid', 'give either `to`, an allocation, or `device`, where a new one is made', { field: 'input.to' })
    const isOperator = asOperator.parse(catalogue.mayOperate)
    const target = to === undefined ? await catalogue.device(device, 'input.device') : await holder(to, 'input.to', catalogue)
    const made = to === undefined ? { kind, placement, ownedBy: 'key', timeToLiveMs: milliseconds(timeToLiveS) } : null
    return {
      read: { target: await holder(from, 'input.from', catalogue), id: from, at: fromAt, bytes, asOperator: isOperator },
      write: { target, to: to ?? null, make: made, at, verify, asOperator: isOperator },
    }
  },
  progress: (_context, name, fraction) => ({ fraction: (name === 'memory.read' ? 0 : 0.5) + fraction / 2 }),
  steps: () => 2,
  route: { method: 'post', path: '/memory/transfer', body: 'TransferMemory', fields: { id: 'from' }, answers: 'The result' },
  resources: { lanes: ['control'], note: 'commands to the workers of two devices; it fails when one of them ends' },
})
