import { z } from 'zod'
import { lasting } from '../command.ts'
import { operation } from '../operation.ts'
import { AllocationId, Bytes, Count, Crc32, Target } from '../values.ts'
import { asOperator, find, hex, holder, Offset, verifyCopy, watched, within } from './allocation.ts'
import { memoryError } from './errors.ts'

/** `bytes` null: as many as both ranges hold. */
const Input = z.strictObject({
  target: Target,
  from: AllocationId,
  fromAt: Count,
  to: AllocationId,
  at: Count,
  bytes: Bytes.nullable(),
  verify: z.boolean(),
  asOperator,
})

/**
 * Within one device, in any direction.
 * @throws DarkroomError `memory.unknown`, `memory.elsewhere`, `memory.out_of_range`, `memory.corrupt`
 */
export const copy = operation({
  ...lasting,
  input: Input,
  /** `crc32` of the target's range, where it was verified. */
  output: z.strictObject({ bytes: Bytes, seconds: z.number(), crc32: Crc32.nullable() }).meta({ id: 'MemoryCopied' }),
  async run(input, tools) {
    const device = tools.device(input.target)
    const source = await find(input.from, device, tools, input.asOperator, 'from')
    const target = await find(input.to, device, tools, input.asOperator, 'to')
    const { fromAt, at } = input
    const left = [within(source, input.from, fromAt, input.bytes, 'fromAt'), within(target, input.to, at, input.bytes, 'at')]
    const bytes = input.bytes ?? Math.min(...left)
    const began = performance.now()
    await device.memory.copy({ from: source.id, fromAt, to: target.id, at, bytes }, watched('copy', tools))
    const seconds = (performance.now() - began) / 1000
    if (!input.verify) return { bytes, seconds, crc32: null }
    const sent = await device.memory.checksum(source.id, { at: fromAt, bytes }, watched('verify', tools))
    const arrived = await device.memory.checksum(target.id, { at, bytes }, { signal: tools.signal })
    verifyCopy(input.to, sent, arrived)
    return { bytes, seconds, crc32: hex(arrived) }
  },
  command: {
    title: 'Copy memory',
    description: 'Within one device, in any direction: host to host, host to device and back, device to device.',
    input: z.strictObject({
      from: AllocationId,
      fromAt: Offset,
      to: AllocationId,
      at: Offset,
      bytes: Bytes.optional().describe('default: as much as both hold from there on'),
      verify: z.boolean().default(false).describe('compare the checksums of both sides afterwards'),
    }),
    async resolve(given, catalogue) {
      const target = await holder(given.from, 'input.from', catalogue)
      const other = await holder(given.to, 'input.to', catalogue)
      if (other.worker !== target.worker)
        throw memoryError('elsewhere', `${given.from} and ${given.to} are on two devices`, { field: 'input.to' })
      return { ...given, bytes: given.bytes ?? null, target, asOperator: catalogue.mayOperate }
    },
    route: { method: 'post', path: '/memory/copy', body: 'CopyMemory', answers: 'The result' },
  },
})
