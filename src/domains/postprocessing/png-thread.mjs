/**
 * Rows of a PNG, filtered and deflated in a thread: many threads write one picture, and the event loop hands the device
 * its next step meanwhile. Plain JavaScript, because Node loads it without the compiler of the main thread.
 */
import { createHash } from 'node:crypto'
import { readSync, writeSync } from 'node:fs'
import { chunkOf } from '../../artifacts/png-chunk.mjs'
import { deflated } from './png-deflate.mjs'

/** Method 8 with a window of 32 KiB, no dictionary (RFC 1950, §2.2). */
const zlibHeader = Uint8Array.of(0x78, 0x5e)
/** Number of the filter (PNG, W3C, §9.2). */
const paeth = 4
/** Of Adler-32, the largest prime below 2¹⁶ (RFC 1950, §8.2). */
const base = 65_521

/**
 * @typedef {Uint8Array | number} Pixels RGB or RGBA row by row: memory that threads share, or the descriptor of an open
 *   file
 */

/**
 * The bands of a picture. What threads have made of it is in memory that they share.
 * @typedef {object} Bands
 * @property {Pixels} pixels
 * @property {number} height rows
 * @property {number} rows that a band has at most
 * @property {number} rowBytes
 * @property {number} channels
 * @property {Int32Array} taken how many bands threads have taken
 * @property {Uint8Array} chunks of each band the one that holds its part of the one stream of zlib, `chunkBytes` apart
 * @property {number} chunkBytes
 * @property {Int32Array} lengths of these chunks; 0 of one that is to come, `lost` of one that will not
 * @property {Uint32Array} adlers Adler-32 of each band
 */

/** @typedef {Bands & { head: Uint8Array }} Picture with what its file begins with */

const lost = -1
/** How long the chunk of a band that a thread has taken is waited for, ms. */
export const patienceMs = 60_000
/** Bytes of a file that are read at a time. */
const pieceBytes = 256 * 1024

/**
 * Makes bands of a picture, as others do at the same time: each takes the next one.
 * @param {Bands} bands
 */
export default (bands) => {
  while (makeNext(bands));
}

/**
 * Makes the next band that no thread has taken. False where there is none.
 * @param {Bands} bands
 */
function makeNext({ pixels, height, rows, rowBytes, channels, taken, chunks, chunkBytes, lengths, adlers }) {
  const number = Atomics.add(taken, 0, 1)
  if (number >= lengths.length) return false
  let length = lost
  try {
    const until = Math.min(height, (number + 1) * rows)
    const first = Math.max(0, number * rows - 1)
    const filtered = filter(read(pixels, first * rowBytes, until * rowBytes), rowBytes, channels, number === 0)
    const chunk = deflate(filtered, number === 0, until === height)
    chunks.set(chunk, number * chunkBytes)
    adlers[number] = adler32(filtered)
    length = chunk.length
  } finally {
    Atomics.store(lengths, number, length)
    Atomics.notify(lengths, number)
  }
  return true
}

/**
 * The file, piece by piece, of a picture whose bands are made.
 * @param {Picture} picture
 * @param {(number: number) => void} [wait] called for a band that is still to come, until it is there
 */
export function* piecesOf({ head, height, rows, rowBytes, chunks, chunkBytes, lengths, adlers }, wait) {
  yield head
  let checksum = { a: 1, b: 0 }
  for (let number = 0; number < lengths.length; number++) {
    while (wait && Atomics.load(lengths, number) === 0) wait(number)
    const length = Atomics.load(lengths, number)
    if (length <= 0) throw new Error('a part of the picture could not be made')
    yield chunks.subarray(number * chunkBytes, number * chunkBytes + length)
    const bytes = (Math.min(height, (number + 1) * rows) - number * rows) * (rowBytes + 1)
    checksum = joined(checksum, adlers[number] ?? 0, bytes)
  }
  const last = Buffer.alloc(4)
  last.writeUInt32BE(checksum.b * 65_536 + checksum.a)
  yield chunkOf('IDAT', last)
  yield chunkOf('IEND')
}

/**
 * Writes the file while its bands are made. It makes those that nobody has taken itself, and so waits for no thread but
 * for one that is at work.
 * @param {Picture & { fd: number }} picture
 * @returns {{ sha256: string, bytes: number } | { code: string | undefined, message: string }} or why it cannot be
 *   written: an error itself would come without its code
 */
export function write({ fd, ...picture }) {
  const sha256 = createHash('sha256')
  /** @param {number} number */
  const wait = (number) => {
    if (makeNext(picture) || Atomics.wait(picture.lengths, number, 0, patienceMs) !== 'timed-out') return
    throw new Error('a part of the picture did not come')
  }
  let bytes = 0
  try {
    for (const piece of piecesOf(picture, wait)) {
      for (let at = 0; at < piece.length;) at += writeSync(fd, piece, at, piece.length - at, bytes + at)
      sha256.update(piece)
      bytes += piece.length
    }
    return { sha256: sha256.digest('hex'), bytes }
  } catch (error) {
    const { code, message } = /** @type {NodeJS.ErrnoException} */ (error)
    return { code, message }
  }
}

/**
 * SHA-256 of a file, 64 hex digits.
 * @param {number} fd
 */
export function hash(fd) {
  const piece = new Uint8Array(pieceBytes)
  const sha256 = createHash('sha256')
  for (let at = 0, count; (count = readSync(fd, piece, 0, pieceBytes, at)) > 0; at += count) sha256.update(piece.subarray(0, count))
  return sha256.digest('hex')
}

/**
 * Adler-32 of what it was of with so many bytes more (RFC 1950, §8.2: both sums are linear in what stands before).
 * @param {{ a: number, b: number }} before
 * @param {number} adler of these bytes by themselves, whose sums began at 1 and 0
 * @param {number} bytes
 */
function joined({ a, b }, adler, bytes) {
  return {
    a: (a + (adler % 65_536) - 1 + base) % base,
    b: (b + (bytes % base) * (a - 1 + base) + Math.floor(adler / 65_536)) % base,
  }
}

/**
 * Bytes `from` to before `until`.
 * @param {Pixels} pixels
 * @param {number} from
 * @param {number} until
 */
function read(pixels, from, until) {
  if (typeof pixels !== 'number') return pixels.slice(from, until)
  const bytes = new Uint8Array(until - from)
  const count = readSync(pixels, bytes, 0, bytes.length, from)
  if (count < bytes.length) throw new Error(`the pixels end after ${from + count} bytes`)
  return bytes
}

/**
 * Rows, each behind the number of its filter, Paeth's (PNG, W3C, §9.4): of left, above and upper left the one that is
 * nearest to left + above − upper left, in this order. Without branches, which noise would have the processor guess
 * wrong; one channel after the other, so that what is left of a number and above that is at hand.
 * @param {Uint8Array} pixels
 * @param {number} rowBytes
 * @param {number} channels
 * @param {boolean} isFirst else the row above them stands before them
 */
function filter(pixels, rowBytes, channels, isFirst) {
  const first = isFirst ? 0 : rowBytes
  const filtered = new Uint8Array(((pixels.length - first) / rowBytes) * (rowBytes + 1))
  // Left of a row, and above the first one, all is 0.
  let above = isFirst ? new Uint8Array(rowBytes) : pixels.subarray(0, rowBytes)
  for (let from = first, at = 0; from < pixels.length; from += rowBytes, at += rowBytes + 1) {
    const row = pixels.subarray(from, from + rowBytes)
    const made = filtered.subarray(at + 1, at + 1 + rowBytes)
    filtered[at] = paeth
    for (let channel = 0; channel < channels; channel++) {
      for (let i = channel, left = 0, corner = 0; i < rowBytes; i += channels) {
        const value = row[i] ?? 0
        const up = above[i] ?? 0
        const toLeft = distance(up - corner)
        const toUp = distance(left - corner)
        const toCorner = distance(up - corner + left - corner)
        const other = chosen(up, corner, toCorner - toUp)
        const toOther = chosen(toUp, toCorner, toCorner - toUp)
        made[i] = value - chosen(left, other, toOther - toLeft)
        left = value
        corner = up
      }
    }
    above = row
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
  return chunkOf('IDAT', ...(isFirst ? [zlibHeader] : []), deflated(rows, isLast))
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
    a %= base
    b %= base
  }
  return b * 65_536 + a
}
