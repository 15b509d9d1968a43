/**
 * Rows of a PNG, deflated in a thread: many threads write one picture, and the event loop hands the device its next
 * step meanwhile. Plain JavaScript, because Node loads it without the compiler of the main thread.
 */
import { constants, Deflate } from 'pako'
import { chunkOf } from '../../artifacts/png-chunk.mjs'

const level = 3
/** Method 8 with a window of 32 KiB, no dictionary (RFC 1950, §2.2). */
const zlibHeader = Uint8Array.of(0x78, 0x5e)

/**
 * A band of rows as the chunk of a PNG that holds its part of the one stream of zlib, and what the checksum of the
 * whole needs: Adler-32 of the `bytes` that were deflated. All but the last end at a whole byte, so that they can be
 * written apart and stand one behind the other. No filter: pictures with areas of one colour become larger by them.
 * @param {{ pixels: Uint8Array, rowBytes: number, isFirst: boolean, isLast: boolean }} band whole rows of RGB or RGBA
 */
export default ({ pixels, rowBytes, isFirst, isLast }) => {
  const count = pixels.length / rowBytes
  // Each row behind the number of its filter, 0 (PNG, W3C, §9).
  const rows = new Uint8Array(count * (rowBytes + 1))
  for (let y = 0; y < count; y++) rows.set(pixels.subarray(y * rowBytes, (y + 1) * rowBytes), y * (rowBytes + 1) + 1)
  const deflate = new Deflate({ level, raw: true })
  /** @type {Uint8Array[]} */
  const parts = isFirst ? [zlibHeader] : []
  deflate.onData = (part) => parts.push(/** @type {Uint8Array} */ (part))
  deflate.push(rows, isLast ? constants.Z_FINISH : constants.Z_SYNC_FLUSH)
  if (deflate.err !== 0) throw new Error(`deflate failed: ${deflate.msg || deflate.err}`)
  return { chunk: chunkOf('IDAT', ...parts), adler: adler32(rows), bytes: rows.length }
}

/**
 * RFC 1950, §8.2.
 * @param {Uint8Array} bytes
 */
function adler32(bytes) {
  let a = 1
  let b = 0
  for (let at = 0; at < bytes.length;) {
    // So many numbers keep both sums below 2³¹.
    for (const end = Math.min(at + 3800, bytes.length); at < end; at++) {
      a += bytes[at] ?? 0
      b += a
    }
    a %= 65_521
    b %= 65_521
  }
  return b * 65_536 + a
}
