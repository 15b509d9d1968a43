import { z } from 'zod'
import type { Compaction } from '../device-memory.ts'
import { DeviceName, lasting } from '../command.ts'
import { operation } from '../operation.ts'
import { Bytes, Count, Fraction, Target } from '../values.ts'
import { watched } from './allocation.ts'

/** The worker's own allocations really move (`compaction`); Python's pool is emptied, not moved. */
const Output = z
  .strictObject({
    compaction: z.strictObject({
      moves: Count,
      bytesMoved: Count,
      bytesCopied: Count,
      arenasFreed: Count,
      before: Fraction,
      after: Fraction,
    }) satisfies z.ZodType<Compaction>,
    /** null where no child runs, or a step keeps it from it until that ends. */
    python: z.strictObject({ freedBytes: Count.nullable() }).nullable(),
  })
  .meta({ id: 'MemoryDefragmented' })

/** Moves placed allocations together, and empties Python's pool. */
export const defragment = operation({
  ...lasting,
  input: z.strictObject({ target: Target, maxBytes: Bytes.nullable() }),
  output: Output,
  async run({ target, maxBytes }, tools) {
    const device = tools.device(target)
    const options = { ...watched('move', tools), ...(maxBytes !== null && { maxBytes }) }
    const compaction = await device.memory.defragment(device.index ?? 0, options)
    const trimmed = await device.trimPython(0)
    return { compaction, python: trimmed && { freedBytes: trimmed.freedBytes } }
  },
  command: {
    title: 'Defragment memory',
    description: 'Moves placed allocations of a device together and gives emptied arenas back; Python’s own pool is emptied, not moved.',
    scope: 'operate',
    input: z.strictObject({ device: DeviceName, maxBytes: Bytes.optional().describe('most bytes to move; default: no limit') }),
    resolve: async ({ device, maxBytes = null }, catalogue) => ({ target: await catalogue.device(device, 'input.device'), maxBytes }),
    route: { method: 'post', path: '/memory/defragment', body: 'DefragmentMemory', answers: 'The result' },
  },
})
