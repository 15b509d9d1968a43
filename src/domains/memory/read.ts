import { crc32 } from 'node:zlib'
import { z } from 'zod'
import { lasting } from '../command.ts'
import { operation } from '../operation.ts'
import { Bytes, Crc32, Sha256 } from '../values.ts'
import { find, hex, within } from './allocation.ts'
import { Range } from './checksum.ts'

/**
 * A transfer is stored in at most so many chunks, of at least so many bytes: hashing one must not hold up the worker.
 */
const maxChunks = 1024
const minChunkBytes = 8 << 20

/**
 * A range as artifacts, for a worker elsewhere to write: `chunks` are scratch artifacts that together are the range.
 * @throws DarkroomError `memory.unknown`, `memory.out_of_range`, `memory.corrupt`
 */
export const read = operation({
  ...lasting,
  input: Range,
  output: z.strictObject({ bytes: Bytes, crc32: Crc32, chunks: z.array(Sha256) }),
  async run({ target, id, at, bytes: asked, asOperator }, tools) {
    const device = tools.device(target)
    const held = await find(id, device, tools, asOperator, 'id')
    const left = within(held, id, at, asked, 'at')
    const bytes = asked ?? left
    const size = Math.max(minChunkBytes, Math.ceil(bytes / maxChunks))
    const chunks: string[] = []
    let sum = 0
    for (let done = 0; done < bytes;) {
      const chunk = new Uint8Array(Math.min(size, bytes - done))
      await device.memory.read(held.id, chunk, { at: at + done, verify: true, signal: tools.signal })
      sum = crc32(chunk, sum)
      chunks.push(await tools.keep(chunk, 'scratch'))
      done += chunk.byteLength
      tools.progress({ stage: 'copy', call: done, calls: bytes })
    }
    return { bytes, crc32: hex(sum), chunks }
  },
})
