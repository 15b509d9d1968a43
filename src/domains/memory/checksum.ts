import { z } from 'zod'
import { lasting } from '../command.ts'
import { operation } from '../operation.ts'
import { AllocationId, Bytes, Count, Crc32, Target } from '../values.ts'
import { asOperator, find, hex, holder, Offset, RangeBytes, watched, within } from './allocation.ts'

/** A range of an allocation; `bytes` null: to the end. */
export const Range = z.strictObject({ target: Target, id: AllocationId, at: Count, bytes: Bytes.nullable(), asOperator })

/** CRC-32 (IEEE 802.3) of a range. @throws DarkroomError `memory.unknown`, `memory.out_of_range` */
export const checksum = operation({
  ...lasting,
  input: Range,
  output: z.strictObject({ id: AllocationId, at: Count, bytes: Bytes, crc32: Crc32 }).meta({ id: 'MemoryChecksum' }),
  async run({ target, id, at, bytes: asked, asOperator: isOperator }, tools) {
    const device = tools.device(target)
    const held = await find(id, device, tools, isOperator, 'id')
    const left = within(held, id, at, asked, 'at')
    const bytes = asked ?? left
    return { id, at, bytes, crc32: hex(await device.memory.checksum(held.id, { at, bytes }, watched('verify', tools))) }
  },
  command: {
    title: 'Checksum of memory',
    description: 'CRC-32 of a range of an allocation.',
    input: z.strictObject({ id: AllocationId, at: Offset, bytes: RangeBytes }),
    resolve: async ({ id, at, bytes = null }, catalogue) => ({
      id,
      at,
      bytes,
      target: await holder(id, 'input.id', catalogue),
      asOperator: catalogue.mayOperate,
    }),
    route: { method: 'post', path: '/memory/checksum', body: 'ChecksumMemory', answers: 'The result' },
  },
})
