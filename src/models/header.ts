/**
 * What every format's header comes to: the names, element types and shapes of tensors, and text beside them. Only
 * regular files are opened, and what is read of one is bounded, whatever its content claims.
 */
import { constants } from 'node:fs'
import { lstat, open, type FileHandle } from 'node:fs/promises'
import { reasonOf, type Fault, type Reason } from './verdict.ts'

export interface Tensor {
  /** By its format's own name: `F16`, `BF16`, `F8_E4M3`; GGUF's `Q4_K`. */
  readonly type: string
  /** As PyTorch has it, the slowest dimension first: `[out, in]` of a linear layer; `[]` of a scalar. */
  readonly shape: readonly number[]
  /** How many elements: the product of the shape. */
  readonly count: number
  readonly bytes: number
}

export interface Header {
  readonly tensors: ReadonlyMap<string, Tensor>
  /** Text beside the tensors; values longer than `maxText` are left out. */
  readonly metadata: ReadonlyMap<string, string>
}

/** Most bytes of a header; the largest of real models have 2 MB, with a preview picture 8. */
export const maxHeaderBytes = 16 * 1024 * 1024
/** Most tensors of a file; the largest of real models have 10,000. */
export const maxTensors = 32_768
/** Most entries of text beside the tensors. */
export const maxTexts = 4_096
/** Most characters of one such entry that are looked at. */
export const maxText = 1024 * 1024
/** Most bytes of a tensor's name. */
export const maxName = 1_024
/** Most dimensions of a tensor. */
export const maxRank = 16

/** A fault that a reader came upon; caught by `inspectFile` and `inspectFolder`, which make a verdict of it. */
export class HeaderFault extends Error {
  readonly reason: Reason
  constructor(code: Fault, field: string, message: string) {
    super(message)
    this.reason = reasonOf(code, field, message)
  }
}

/** Characters that change how the text around them is shown: controls, line ends, marks of direction. */
const unsafe = /[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}\p{Cs}\u{FEFF}]/gu
/** Nearly all names are of this kind, which is seen faster. */
const ascii = /^[\x20-\x7e]*$/
export const isPlain = (text: string): boolean => ascii.test(text) || text.search(unsafe) === -1

/** Text of a stranger as it may be shown: at most `most` characters, controls written as `\u{1b}`. */
export function escapeText(text: string, most = 200): string {
  const cut = text.length > most ? `${text.slice(0, most).replace(/[\uD800-\uDBFF]$/, '')}…` : text
  return cut.replace(unsafe, (character) => `\\u{${character.codePointAt(0)?.toString(16)}}`)
}

/** A name in a sentence. */
export const quote = (name: string): string => `“${escapeText(name, 120)}”`

/** Bytes as people say them: `6.9 GB`, `512 bytes`. */
export function sizeText(bytes: number): string {
  const units = ['bytes', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB']
  let [value, unit] = [bytes, 0]
  while (value >= 999.5 && unit < units.length - 1) [value, unit] = [value / 1000, unit + 1]
  return `${unit === 0 || value >= 99.5 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`
}

/** An open regular file. */
export interface OpenFile {
  readonly size: number
  /** Bytes from `start` on, at most `length` of them; fewer at the end of the file. */
  read(start: number, length: number): Promise<Buffer>
}

/** `NOFOLLOW` and `NONBLOCK` are of POSIX: Windows has neither links nor pipes at a path of this kind. */
const flags = constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0) | (constants.O_NOCTTY ?? 0)

/**
 * Opens a regular file for one reader. What else lies at the path is never opened: opening a pipe waits, and opening a
 * device can act.
 * @throws HeaderFault when it is no regular file, is gone, or cannot be read
 */
export async function withFile<T>(path: string, use: (file: OpenFile) => Promise<T>): Promise<T> {
  let handle: FileHandle | undefined
  try {
    const before = await lstat(path)
    if (before.isSymbolicLink()) throw new HeaderFault('link', 'path', 'It is a link; only what it points to is looked at.')
    if (!before.isFile()) throw new HeaderFault('not_a_file', 'path', `It is ${kindOf(before)}, no regular file.`)
    handle = await open(path, flags)
    const stats = await handle.stat()
    if (!stats.isFile()) throw new HeaderFault('not_a_file', 'path', `It is ${kindOf(stats)}, no regular file.`)
    return await use({ size: stats.size, read: reader(handle) })
  } catch (error) {
    throw error instanceof HeaderFault ? error : faultOf(error)
  } finally {
    await handle?.close()
  }
}

const reader = (handle: FileHandle) => async (start: number, length: number) => {
  const buffer = Buffer.allocUnsafe(length)
  let filled = 0
  while (filled < length) {
    const { bytesRead } = await handle.read(buffer, filled, length - filled, start + filled)
    if (bytesRead === 0) break
    filled += bytesRead
  }
  return buffer.subarray(0, filled)
}

function kindOf(stats: { isDirectory(): boolean; isFIFO(): boolean; isSocket(): boolean }): string {
  if (stats.isDirectory()) return 'a folder'
  if (stats.isFIFO()) return 'a pipe'
  return stats.isSocket() ? 'a socket' : 'a device'
}

/** What the operating system said of a file, as a reason. */
function faultOf(error: unknown): HeaderFault {
  const code = error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : String(error)
  if (code === 'ENOENT' || code === 'ENOTDIR') return new HeaderFault('gone', 'path', 'There is nothing at this path any more.')
  if (code === 'ELOOP') return new HeaderFault('link', 'path', 'It is a link; only what it points to is looked at.')
  return new HeaderFault('unreadable', 'path', `The operating system refuses to read it: ${escapeText(code)}.`)
}
