import { crc32 } from 'node:zlib'
import { z } from 'zod'
import { lasting } from '../command.ts'
import { operation } from '../operation.ts'
import { AllocationId, Bytes, Count, Crc32, Sha256, Target } from '../values.ts'
import { asOperator, find, hex, Made, nameOf, obtain, verifyCopy, view, watched, within } from './allocation.ts'
import { memoryError } from './errors.ts'
import { AllocationView } from './figures/report.ts'

/** `to` null: a new allocation is made, as `make` says. */
const Input = z.strictObject({
  target: Target,
  to: AllocationId.nullable(),
  make: Made.nullable(),
  at: Count,
  bytes: Bytes,
  crc32: Crc32,
  chunks: z.array(Sha256),
  verify: z.boolean(),
  asOperator,
})

/**
 * Puts the chunks that `read` left as artifacts into an allocation or a new one.
 * @throws DarkroomError `memory.unknown`, `memory.exhausted`, `memory.out_of_range`, `memory.corrupt`,
 *   `artifact.missing`
 */
export const write = operation({
  ...lasting,
  input: Input,
  output: z.strictObject({ allocation: AllocationView, bytes: Bytes, crc32: Crc32 }),
  async run(input, tools) {
    const device = tools.device(input.target)
    const { to, make, at, bytes } = input
    if ((to === null) === (make === null))
      throw memoryError('invalid', 'to or make must be given, not both and not neither', { field: 'to' })
    const target = make ? await obtain(at + bytes, make, device, tools) : await find(to ?? '', device, tools, input.asOperator, 'to')
    try {
      within(target, nameOf(target.id, device), at, bytes, 'at')
      let [done, sum] = [0, 0]
      for (const sha256 of input.chunks) {
        const chunk = new Uint8Array(await tools.artifacts.read(sha256))
        await device.memory.write(target.id, chunk, { at: at + done, signal: tools.signal })
        sum = crc32(chunk, sum)
        done += chunk.byteLength
        tools.progress({ stage: 'copy', call: done, calls: bytes })
      }
      if (done !== bytes || hex(sum) !== input.crc32)
        throw memoryError('corrupt', `the chunks hold ${done} bytes with CRC-32 ${hex(sum)}, not ${bytes} with ${input.crc32}`)
      if (input.verify) {
        const arrived = await device.memory.checksum(target.id, { at, bytes }, watched('verify', tools))
        verifyCopy(nameOf(target.id, device), sum, arrived)
      }
      return { allocation: view(device.memory.inspect(target.id), device), bytes, crc32: input.crc32 }
    } catch (error) {
      if (make) await device.release(target.id).catch(() => undefined)
      throw error
    }
  },
})
