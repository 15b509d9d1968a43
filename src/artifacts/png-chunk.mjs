/** Chunks of a PNG (W3C, §5.3). Plain JavaScript, because the threads that deflate pixels make them too. */
import { crc32 } from 'node:zlib'

/**
 * Its length, its name, its data and the checksum of both.
 * @param {string} name four letters
 * @param {...Uint8Array} parts of the data, one behind the other
 * @returns {Buffer}
 */
export function chunkOf(name, ...parts) {
  const bytes = parts.reduce((sum, part) => sum + part.length, 0)
  const chunk = Buffer.allocUnsafe(bytes + 12)
  chunk.writeUInt32BE(bytes, 0)
  chunk.write(name, 4, 'latin1')
  let end = 8
  for (const part of parts) {
    chunk.set(part, end)
    end += part.length
  }
  chunk.writeUInt32BE(crc32(chunk.subarray(4, end)), end)
  return chunk
}
