/**
 * Hashes a file in a thread: reading and SHA-256 take all of a processor, and no event loop waits for them. Plain
 * JavaScript, because Node loads it without the compiler of the main thread.
 */
import { createHash } from 'node:crypto'
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { workerData } from 'piscina'

/** In front of what is read stand the last bytes of what was read before: a number may lie across both. */
const carried = 8
const space = Buffer.alloc(carried + 4 * 1024 * 1024)
const chunk = space.subarray(carried)
const progressBytes = 64 * 1024 * 1024
/** The part of a file that A1111's first hash was of. */
const short = { from: 0x100000, bytes: 0x10000 }

/**
 * A number is infinite or none when all bits of its exponent are set (IEEE 754; fp8 by the 8-bit floating-point
 * specification of the Open Compute Project, whose E4M3 has no infinity and one pattern that is no number): bytes of
 * one, the bits in its highest byte, and those in the byte below.
 *
 * @type {Readonly<Record<string, readonly [bytes: number, high: number, low: number]>>}
 */
const exponents = {
  F16: [2, 0x7c, 0],
  BF16: [2, 0x7f, 0x80],
  F32: [4, 0x7f, 0x80],
  F64: [8, 0x7f, 0xf0],
  F8_E5M2: [1, 0x7c, 0],
  F8_E4M3: [1, 0x7f, 0],
}

/**
 * Counts the odd numbers of one tensor that end in the bytes read now.
 * @param {{ type: string, begin: number, end: number } | undefined} place in the file
 * @param {number} from where in the file what was read begins
 * @param {number} to where it ends
 */
function oddIn(place, from, to) {
  const { type, begin, end } = place ?? { type: '', begin: 0, end: 0 }
  const [width, high, low] = exponents[type] ?? [0, 0, 0]
  if (width === 0) return 0
  const first = Math.max(0, Math.floor((from - begin) / width))
  const last = Math.floor((Math.min(to, end) - begin) / width)
  let odd = 0
  // Within `space`: a number that ends here begins at most `carried` bytes before.
  for (let i = first, at = begin + first * width - from + carried + width - 1; i < last; i++, at += width)
    if ((Number(space[at]) & high) === high && (low === 0 || (Number(space[at - 1]) & low) === low)) odd++
  return odd
}

/** KiB a second; 0 is as fast as it goes, and less than that not at all. @type {Int32Array} */
const pace = workerData.pace

/**
 * `hasHeader`: the file is safetensors, whose body begins behind the header. `floats`: where floating-point numbers
 * lie, in the order of the file; `odd` in the answer says how many of each are infinite or no number. `port` is told
 * how many bytes are done.
 *
 * @typedef {{ type: string, begin: number, end: number }} Floats
 * @typedef {import('node:worker_threads').MessagePort} Port
 *
 * @param {{ path: string, hasHeader: boolean, floats: Floats[], port: Port }} asked
 */
export default ({ path, hasHeader, floats, port }) => hashed(path, hasHeader, floats, (done) => port.postMessage(done))

/**
 * Waits for as long as so many bytes take beyond what they took; a pace that changes meanwhile counts from now on.
 * @param {number} bytes
 * @param {number} from by `performance.now()`
 */
function keepPace(bytes, from) {
  for (;;) {
    const now = Atomics.load(pace, 0)
    const left = now < 0 ? 1000 : now === 0 ? 0 : (bytes / 1024 / now) * 1000 - (performance.now() - from)
    if (left <= 0) return
    // In short turns: a thread that waits for long could not be ended.
    Atomics.wait(pace, 0, now, Math.min(left, 200))
  }
}

/**
 * @param {string} path
 * @param {boolean} hasHeader
 * @param {{ type: string, begin: number, end: number }[]} floats
 * @param {(done: number) => void} progress
 */
function hashed(path, hasHeader, floats, progress) {
  // A named pipe that took the file's place must not be waited for.
  const file = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    const before = fstatSync(file)
    if (!before.isFile()) throw new Error(`${path} is no regular file`)
    const bodyFrom = hasHeader ? headerBytes(file, before.size, path) : 0
    const [whole, body, part] = [createHash('sha256'), createHash('sha256'), createHash('sha256')]
    let at = 0
    let told = 0
    let next = 0
    const odd = floats.map(() => 0)
    for (;;) {
      const from = performance.now()
      const read = readSync(file, chunk, 0, chunk.length, at)
      if (read === 0) break
      const bytes = chunk.subarray(0, read)
      if (bodyFrom > 0) whole.update(bytes)
      if (at + read > bodyFrom) body.update(bytes.subarray(Math.max(0, bodyFrom - at)))
      const [first, end] = [Math.max(0, short.from - at), Math.min(read, short.from + short.bytes - at)]
      if (first < end) part.update(bytes.subarray(first, end))
      while ((floats[next]?.end ?? Infinity) <= at) next++
      for (let i = next; (floats[i]?.begin ?? Infinity) < at + read; i++) odd[i] = (odd[i] ?? 0) + oddIn(floats[i], at, at + read)
      // What comes next is read behind it.
      if (floats.length > 0) space.copyWithin(0, read, read + carried)
      at += read
      keepPace(read, from)
      if (at - told >= progressBytes) progress((told = at))
    }
    const { size, mtimeMs, ino } = fstatSync(file)
    if (at !== before.size || size !== before.size || mtimeMs !== before.mtimeMs) throw new Error(`${path} changed while it was read`)
    const bodyHash = body.digest('hex')
    const sha256 = bodyFrom > 0 ? whole.digest('hex') : bodyHash
    return {
      hashes: { body: bodyHash, sha256, short: part.digest('hex').slice(0, 8) },
      state: { size, modifiedMs: mtimeMs, inode: ino },
      odd,
    }
  } finally {
    closeSync(file)
  }
}

/**
 * Bytes before the tensors: 8 for the length, then the header (safetensors format, README of the project).
 * @param {number} file its descriptor
 * @param {number} size
 * @param {string} path
 */
function headerBytes(file, size, path) {
  const head = Buffer.alloc(8)
  const read = readSync(file, head, 0, 8, 0)
  const header = read === 8 ? head.readBigUInt64LE() : 0n
  if (header === 0n || header > BigInt(size - 8) || header > 100_000_000n) throw new Error(`${path} is no safetensors file`)
  return 8 + Number(header)
}
