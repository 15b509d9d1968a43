/**
 * Rows of a PNG, filtered and deflated in a thread: many threads write one picture, and the event loop hands the device
 * its next step meanwhile. Plain JavaScript, because Node loads it without the compiler of the main thread.
 */
import { chunkOf } from '../../artifacts/png-chunk.mjs'
import { deflated } from './png-deflate.mjs'

/** Method 8 with a window of 32 KiB, no dictionary (RFC 1950, §2.2). */
const zlibHeader = Uint8Array.of(0x78, 0x5e)
/** Number of the filter (PNG, W3C, §9.2). */
const paeth = 4

/**
 * @typedef {{ number: number, chunk: Uint8Array, adler: number, bytes: number }} Band a band of rows as the chunk of a
 *   PNG that holds its part of the one stream of zlib, and what the checksum of the whole needs: Adler-32 of the
 *   `bytes` that were deflated
 */

/**
 * The bands that this thread makes of a picture, of all that are made in several at once: each takes the next one.
 * @param {{ pixels: Uint8Array, rowBytes: number, channels: number, rows: number, taken: Int32Array }} picture shared
 *   memory: RGB or RGBA row by row, of which a band has `rows` at most, and how many bands are taken
 * @returns {Band[]}
 */
export default ({ pixels, rowBytes, channels, rows, taken }) => {
  const height = pixels.length / rowBytes
  /** @type {Band[]} */
  const bands = []
  for (let number = Atomics.add(taken, 0, 1); number * rows < height; number = Atomics.add(taken, 0, 1)) {
    const until = Math.min(height, (number + 1) * rows)
    const filtered = filter(pixels, rowBytes, channels, number * rows, until)
    bands.push({ number, ...deflate(filtered, number === 0, until === height) })
  }
  return bands
}

/**
 * Rows `from` to before `until`, each behind the number of its filter, Paeth's (PNG, W3C, §9.4): of left, above and
 * upper left the one that is nearest to left + above − upper left, in this order. Without branches, which noise would
 * have the processor guess wrong.
 * @param {Uint8Array} pixels
 * @param {number} rowBytes
 * @param {number} channels
 * @param {number} from
 * @param {number} until
 */
function filter(pixels, rowBytes, channels, from, until) {
  const filtered = new Uint8Array((until - from) * (rowBytes + 1))
  // Left of a row, and above the first one, all is 0.
  let row = new Uint8Array(channels + rowBytes)
  let above = new Uint8Array(channels + rowBytes)
  if (from > 0) above.set(pixels.subarray((from - 1) * rowBytes, from * rowBytes), channels)
  for (let y = from, at = 0; y < until; y++) {
    row.set(pixels.subarray(y * rowBytes, (y + 1) * rowBytes), channels)
    filtered[at++] = paeth
    for (let i = 0; i < rowBytes; i++, at++) {
      const left = row[i] ?? 0
      const up = above[i + channels] ?? 0
      const corner = above[i] ?? 0
      const toLeft = distance(up - corner)
      const toUp = distance(left - corner)
      const toCorner = distance(up - corner + left - corner)
      const other = chosen(up, corner, toCorner - toUp)
      const toOther = chosen(toUp, toCorner, toCorner - toUp)
      filtered[at] = (row[i + channels] ?? 0) - chosen(left, other, toOther - toLeft)
    }
    ;[row, above] = [above, row]
  }
  return filtered
}

/** @param {number} difference */
const distance = (difference) => (difference ^ (difference >> 31)) - (difference >> 31)

/**
 * The other one where `lead` is below 0.
 * @param {number} one
 * @param {number} other
 * @param {number} lead
 */
const chosen = (one, other, lead) => one ^ ((one ^ other) & (lead >> 31))

/**
 * All but the last end at a whole byte, so that they can be written apart and stand one behind the other.
 * @param {Uint8Array} rows
 * @param {boolean} isFirst
 * @param {boolean} isLast
 */
function deflate(rows, isFirst, isLast) {
  const parts = [...(isFirst ? [zlibHeader] : []), deflated(rows, isLast)]
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
