/** Files with real headers and no content: a model of 24 GB takes a few kilobytes of disk. */
import { closeSync, ftruncateSync, mkdirSync, openSync, writeSync } from 'node:fs'
import { dirname } from 'node:path'

/** Tensors by name: element type and shape. */
export type Tensors = Record<string, readonly [type: string, shape: readonly number[]]>

const widths: Record<string, number> = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
  F8_E8M0: 1,
  F16: 2,
  BF16: 2,
  F32: 4,
  I32: 4,
  F64: 8,
  I64: 8,
}
const countOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1)

export interface Image {
  /** What stands before the tensors. */
  head: Buffer
  /** Bytes of the tensors, which are left as a hole. */
  body: number
}

/** The bytes of a length and JSON behind it, lying or not. */
export const framed = (json: string | Buffer, length?: bigint): Buffer => {
  const text = Buffer.from(json)
  const head = Buffer.alloc(8)
  head.writeBigUInt64LE(length ?? BigInt(text.length))
  return Buffer.concat([head, text])
}

export function safetensors(tensors: Tensors, metadata?: Record<string, string>): Image {
  let end = 0
  const entries = Object.entries(tensors).map(([name, [type, shape]]) => {
    const begin = end
    end += countOf(shape) * (widths[type] ?? Number.NaN)
    return [name, { dtype: type, shape, data_offsets: [begin, end] }]
  })
  return { head: framed(JSON.stringify({ ...(metadata && { __metadata__: metadata }), ...Object.fromEntries(entries) })), body: end }
}

/** Numbers of GGUF's types, with the weights and bytes of a block. */
const blocks: Record<string, readonly [number: number, weights: number, bytes: number]> = {
  F32: [0, 1, 4],
  F16: [1, 1, 2],
  Q4_0: [2, 32, 18],
  Q8_0: [8, 32, 34],
  Q4_K: [12, 256, 144],
  Q6_K: [14, 256, 210],
  IQ2_XXS: [16, 256, 66],
  BF16: [30, 1, 2],
}

const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}
const u64 = (value: number | bigint): Buffer => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(value))
  return bytes
}
export const text = (value: string): Buffer => Buffer.concat([u64(Buffer.byteLength(value)), Buffer.from(value)])
/** A metadata entry: text, number (unsigned, of 32 bits), or bytes as they are to stand behind the name. */
export const entry = (name: string, value: string | number | Buffer): Buffer => {
  if (Buffer.isBuffer(value)) return Buffer.concat([text(name), value])
  return Buffer.concat(typeof value === 'string' ? [text(name), u32(8), text(value)] : [text(name), u32(4), u32(value)])
}
export const ggufBytes = { u32, u64 }

export interface GgufParts {
  version?: number
  metadata?: Record<string, string | number | Buffer>
  tensors?: Tensors
  /** In place of the counts that follow from the rest. */
  counts?: { tensors?: number | bigint; metadata?: number | bigint }
}

/** Tensors are given as PyTorch has them, `[out, in]`; the format turns them round. */
export function gguf({ version = 3, metadata = {}, tensors = {}, counts = {} }: GgufParts): Image {
  let end = 0
  const rows = Object.entries(tensors).map(([name, [type, shape]]) => {
    const [number, weights, bytes] = blocks[type] ?? [Number(type), 1, 1]
    const begin = end
    end = Math.ceil((begin + (countOf(shape) / weights) * bytes) / 32) * 32
    return Buffer.concat([text(name), u32(shape.length), ...shape.toReversed().map(u64), u32(number), u64(begin)])
  })
  const entries = Object.entries(metadata).map(([name, value]) => entry(name, value))
  const head = Buffer.concat([
    Buffer.from('GGUF'),
    u32(version),
    u64(counts.tensors ?? rows.length),
    u64(counts.metadata ?? entries.length),
    ...entries,
    ...rows,
  ])
  return { head: Buffer.concat([head, Buffer.alloc((32 - (head.length % 32)) % 32)]), body: end }
}

/** Writes what stands before the tensors, and a hole of their size, or of another. */
export function writeImage(path: string, { head, body }: Image): string {
  mkdirSync(dirname(path), { recursive: true })
  const file = openSync(path, 'w')
  try {
    writeSync(file, head)
    ftruncateSync(file, head.length + body)
  } finally {
    closeSync(file)
  }
  return path
}

export const writeSafetensors = (path: string, tensors: Tensors, metadata?: Record<string, string>): string =>
  writeImage(path, safetensors(tensors, metadata))
