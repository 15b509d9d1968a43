import { assign, setup } from 'xstate'
import { z } from 'zod'
import {
  AllocationId,
  ReadInput,
  WriteInput,
  WriteOutput,
  type ReadInput as Read,
  type ReadOutput,
  type WriteInput as Write,
} from '../../domains/memory/schema.ts'
import { type WireError } from '../../errors.ts'
import { Device } from './device.ts'
import { Bytes, holder, make, milliseconds, Offset } from './memory.ts'
import { step } from '../step.ts'
import type { Workflow } from '../define.ts'
import { memoryError } from '../../domains/memory/errors.ts'

const Input = z.strictObject({
  from: AllocationId,
  fromAt: Offset.default(0),
  bytes: Bytes.optional().describe('default: to the end'),
  to: AllocationId.optional().describe('an allocation to write into; else `device` says where a new one is made'),
  device: Device.optional(),
  at: Offset.default(0),
  ...make,
  verify: z.boolean().default(true).describe('compare the checksum of what arrived'),
})

const Whole = z.strictObject({ read: ReadInput, write: WriteInput.omit({ bytes: true, crc32: true, chunks: true }) })
type Whole = z.infer<typeof Whole>

interface Context {
  input: Whole
  read: ReadOutput | null
  output: WriteOutput | null
  error: WireError | null
}

/** The source's worker reads into artifacts, the target's writes them: both ends may be anywhere in the farm. */
const machine = setup({
  types: {
    context: {} as Context,
    input: {} as Whole,
    output: {} as WriteOutput | { error: WireError | null },
  },
  actors: { 'memory.read': step<Read, ReadOutput>(), 'memory.write': step<Write, WriteOutput>() },
}).createMachine({
  id: 'memory-transfer',
  context: ({ input }) => ({ input, read: null, output: null, error: null }),
  initial: 'reading',
  states: {
    reading: {
      invoke: {
        id: 'read',
        src: 'memory.read',
        input: ({ context }) => context.input.read,
        onDone: { target: 'writing', actions: assign({ read: ({ event }) => event.output }) },
        onError: { target: 'failed', actions: assign({ error: ({ event }) => event.error as WireError }) },
      },
    },
    writing: {
      invoke: {
        id: 'write',
        src: 'memory.write',
        input: ({ context }) => ({ ...context.input.write, ...(context.read ?? { bytes: 0, crc32: '', chunks: [] }) }),
        onDone: { target: 'done', actions: assign({ output: ({ event }) => event.output, read: null }) },
        onError: { target: 'failed', actions: assign({ error: ({ event }) => event.error as WireError }) },
      },
    },
    done: { type: 'final' },
    failed: { type: 'final', tags: 'failed' },
  },
  output: ({ context }) => context.output ?? { error: context.error },
})

export const memoryTransfer: Workflow = {
  name: 'memory-transfer',
  version: 1,
  title: 'Transfer memory',
  description: 'From one device to another, wherever they are; into an allocation there, or a new one.',
  input: Input,
  output: WriteOutput,
  machine,
  exact: false,
  async makeWhole(input, catalogue) {
    const { from, fromAt, bytes, to, device, at, kind, placement, timeToLiveS, verify } = Input.parse(input)
    if ((to === undefined) === (device === undefined))
      throw memoryError('invalid', 'give either `to`, an allocation, or `device`, where a new one is made', {
        field: 'input.to',
      })
    const asOperator = catalogue.mayOperate
    const target = to === undefined ? await catalogue.device(device ?? '', 'input.device') : await holder(to, 'input.to', catalogue)
    const made = to === undefined ? { kind, placement, ownedBy: 'key' as const, timeToLiveMs: milliseconds(timeToLiveS) } : null
    return Whole.parse({
      read: { target: await holder(from, 'input.from', catalogue), id: from, at: fromAt, bytes: bytes ?? null, asOperator },
      write: { target, to: to ?? null, make: made, at, verify, asOperator },
    })
  },
  progress: (_context, name, fraction) => ({ fraction: (name === 'memory.read' ? 0 : 0.5) + fraction / 2 }),
  steps: () => 2,
  resources: { lanes: ['control'], note: 'commands to the workers of two devices; it fails when one of them ends' },
}
