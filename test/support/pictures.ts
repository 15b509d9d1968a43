/** Files of pictures with texts in them, made here by hand: no reader of the product takes part. */
import { crc32, deflateSync } from 'node:zlib'

const signature = Buffer.from('89504e470d0a1a0a', 'hex')

export function chunk(name: string, data: Uint8Array): Buffer {
  const body = Buffer.concat([Buffer.from(name, 'latin1'), data])
  const made = Buffer.alloc(body.length + 8)
  made.writeUInt32BE(data.length, 0)
  body.copy(made, 4)
  made.writeUInt32BE(crc32(body), body.length + 4)
  return made
}

/** A PNG of one red pixel with these chunks behind its header. */
export const pngWith = (...chunks: Buffer[]): Buffer =>
  Buffer.concat([
    signature,
    chunk('IHDR', Buffer.from([0, 0, 0, 1, 0, 0, 0, 1, 8, 2, 0, 0, 0])),
    ...chunks,
    chunk('IDAT', deflateSync(Buffer.from([0, 255, 0, 0]))),
    chunk('IEND', Buffer.alloc(0)),
  ])

export const tEXt = (keyword: string, text: string): Buffer => chunk('tEXt', Buffer.from(`${keyword}\0${text}`, 'latin1'))
export const zTXt = (keyword: string, deflated: Uint8Array): Buffer =>
  chunk('zTXt', Buffer.concat([Buffer.from(`${keyword}\0\0`, 'latin1'), deflated]))
export const iTXt = (keyword: string, text: string, isDeflated = false): Buffer => {
  const data = isDeflated ? deflateSync(Buffer.from(text)) : Buffer.from(text)
  return chunk('iTXt', Buffer.concat([Buffer.from(`${keyword}\0${isDeflated ? '\x01' : '\0'}\0en\0Wort\0`, 'latin1'), data]))
}

/** A TIFF with one entry in its first directory, or in that of EXIF. */
export function tiffWith({ tag, value, isLittle }: { tag: number; value: Buffer; isLittle: boolean }): Buffer {
  const isComment = tag === 0x9286
  const [short, long] = [
    (n: number) => (isLittle ? Buffer.from([n & 255, n >> 8]) : Buffer.from([n >> 8, n & 255])),
    (n: number) => {
      const bytes = Buffer.alloc(4)
      if (isLittle) bytes.writeUInt32LE(n)
      else bytes.writeUInt32BE(n)
      return bytes
    },
  ]
  const directory = (entry: Buffer): Buffer => Buffer.concat([short(1), entry, long(0)])
  const head = Buffer.concat([Buffer.from(isLittle ? 'II' : 'MM'), short(42), long(8)])
  const entry = (id: number, type: number, count: number, at: number): Buffer =>
    Buffer.concat([short(id), short(type), long(count), long(at)])
  // The first directory has 18 bytes.
  if (!isComment) return Buffer.concat([head, directory(entry(tag, 2, value.length, 26)), value])
  return Buffer.concat([head, directory(entry(0x8769, 4, 1, 26)), directory(entry(tag, 7, value.length, 44)), value])
}

/** As AUTOMATIC1111's web UI writes it: UTF-16, the high byte first. */
export const unicodeComment = (text: string): Buffer => Buffer.concat([Buffer.from('UNICODE\0'), Buffer.from(text, 'utf16le').swap16()])

export function jpegWith(tiff: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from('Exif\0\0', 'latin1'), tiff])
  const length = Buffer.alloc(2)
  length.writeUInt16BE(body.length + 2)
  // An APP0 before it, the end behind it.
  return Buffer.concat([Buffer.from('ffd8ffe00004aabbffe1', 'hex'), length, body, Buffer.from('ffd9', 'hex')])
}

export function webpWith(tiff: Buffer): Buffer {
  const part = (name: string, data: Buffer): Buffer => {
    const head = Buffer.alloc(8, name.padEnd(8, '\0'), 'latin1')
    head.writeUInt32LE(data.length, 4)
    return Buffer.concat([head, data, Buffer.alloc(data.length % 2)])
  }
  const body = Buffer.concat([Buffer.from('WEBP'), part('VP8X', Buffer.alloc(10)), part('EXIF', tiff)])
  const head = Buffer.alloc(8, 'RIFF\0\0\0\0', 'latin1')
  head.writeUInt32LE(body.length, 4)
  return Buffer.concat([head, body])
}

/** An SVG of flat coloured shapes with soft edges, such as darkroom-tiny draws. */
export const shapes = (
  side: number,
): string => `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 128 128" width="${side}" height="${side}">
  <rect width="128" height="128" fill="#f0d030"/><circle cx="40" cy="44" r="25" fill="#d02828"/>
  <rect x="70" y="66" width="44" height="44" fill="#2850d0"/><path d="M96 12l20 36H76z" fill="#20a050"/></svg>`
