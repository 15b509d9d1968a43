/**
 * A thread that hashes files, one after another: reading and SHA-256 take all of a processor, and no event loop waits
 * for them. Plain JavaScript, because Node loads it without the compiler of the main thread.
 *
 * Asked `{ id, path, hasHeader }`; answers `{ id, done }` on the way and `{ id, hashes, state }` or `{ id, problem }`
 * at the end. `hasHeader`: the file is safetensors, whose body begins behind the header.
 */
import { createHash } from 'node:crypto'
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs'
import { parentPort } from 'node:worker_threads'

const chunk = Buffer.allocUnsafe(4 * 1024 * 1024)
const progressBytes = 64 * 1024 * 1024
/** The part of a file that A1111's first hash was of. */
const short = { from: 0x100000, bytes: 0x10000 }

/** @param {unknown} message */
const tell = (message) => parentPort?.postMessage(message)

parentPort?.on('message', ({ id, path, hasHeader }) => {
  try {
    tell({ id, ...hashed(path, hasHeader, (done) => tell({ id, done })) })
  } catch (error) {
    tell({ id, problem: /** @type {Error} */ (error).message })
  }
})

/**
 * @param {string} path
 * @param {boolean} hasHeader
 * @param {(done: number) => void} progress
 */
function hashed(path, hasHeader, progress) {
  // A named pipe that took the file's place must not be waited for.
  const file = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    const before = fstatSync(file)
    if (!before.isFile()) throw new Error(`${path} is no regular file`)
    const bodyFrom = hasHeader ? headerBytes(file, before.size, path) : 0
    const [whole, body, part] = [createHash('sha256'), createHash('sha256'), createHash('sha256')]
    let at = 0
    let told = 0
    for (;;) {
      const read = readSync(file, chunk, 0, chunk.length, at)
      if (read === 0) break
      const bytes = chunk.subarray(0, read)
      if (bodyFrom > 0) whole.update(bytes)
      if (at + read > bodyFrom) body.update(bytes.subarray(Math.max(0, bodyFrom - at)))
      const [from, to] = [Math.max(0, short.from - at), Math.min(read, short.from + short.bytes - at)]
      if (from < to) part.update(bytes.subarray(from, to))
      at += read
      if (at - told >= progressBytes) progress((told = at))
    }
    const { size, mtimeMs, ino } = fstatSync(file)
    if (at !== before.size || size !== before.size || mtimeMs !== before.mtimeMs) throw new Error(`${path} changed while it was read`)
    const bodyHash = body.digest('hex')
    const sha256 = bodyFrom > 0 ? whole.digest('hex') : bodyHash
    return { hashes: { body: bodyHash, sha256, short: part.digest('hex').slice(0, 8) }, state: { size, modifiedMs: mtimeMs, inode: ino } }
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
