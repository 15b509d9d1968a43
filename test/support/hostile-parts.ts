/** What headers that lie are made of. */
import type { Fault } from '../../src/models/verdict.ts'
import { framed, ggufBytes, text, type Image } from './headers.ts'

export const whole = (head: Buffer | string): Image => ({ head: Buffer.from(head), body: 0 })

/** A header of one tensor of two bytes, with `json` in its place. */
export const lying = (json: string, body = 2): Image => ({ head: framed(json), body })
export const tensor = (dtype: unknown = 'F16', shape: unknown = [1], offsets: unknown = [0, 2]): string =>
  JSON.stringify({ dtype, shape, data_offsets: offsets })
export const one = (fields: string, body = 2): Image => lying(`{"a":${fields}}`, body)
export const two = (first: number[], second: number[], body: number): Image =>
  lying(
    JSON.stringify({
      a: { dtype: 'U8', shape: [(first[1] ?? 0) - (first[0] ?? 0)], data_offsets: first },
      b: { dtype: 'U8', shape: [(second[1] ?? 0) - (second[0] ?? 0)], data_offsets: second },
    }),
    body,
  )
export const huge = 2n ** 63n

export type Case = [name: string, image: Image, code: Fault, message: RegExp]
export const cut = ({ head, body }: Image, by: number): Image => ({ head, body: body - by })

const { u32, u64 } = ggufBytes
export const list = (type: number, count: number | bigint, items: Buffer[] = []): Buffer =>
  Buffer.concat([u32(9), u32(type), u64(count), ...items])
export const row = (name: string, dimensions: (number | bigint)[], type: number, offset: number | bigint): Buffer =>
  Buffer.concat([text(name), u32(dimensions.length), ...dimensions.map(u64), u32(type), u64(offset)])
export const rows = (...all: Buffer[]): Image => {
  const head = Buffer.concat([Buffer.from('GGUF'), u32(3), u64(all.length), u64(0), ...all])
  return { head: Buffer.concat([head, Buffer.alloc((32 - (head.length % 32)) % 32)]), body: 64 }
}
