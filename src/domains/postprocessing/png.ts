import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { crc32 } from 'node:zlib'
import { encode } from 'fast-png'

/** Version of an installed package; asked of its file, because `exports` may hide its package.json. */
function version(name: string): string {
  for (let folder = dirname(createRequire(import.meta.url).resolve(name)); ; folder = dirname(folder)) {
    const file = join(folder, 'package.json')
    const found = existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as { name?: string; version?: string }) : {}
    if (found.name === name && found.version) return found.version
    if (folder === dirname(folder)) throw new Error(`${name} is not installed`)
  }
}

/**
 * The one PNG writer: pure JavaScript over a pinned deflate, so that equal pixels and texts are equal bytes on every
 * CPU. Its versions are part of the exactness key.
 */
export const pngEncoder = `fast-png ${version('fast-png')}, fflate ${version('fflate')}`

/**
 * @param pixels RGB, 8 bits each, row by row, `width * height * 3` bytes
 * @param texts keyword → text; written as tEXt when Latin-1 can hold it, else as iTXt (PNG, W3C, §11.3.3)
 */
export function writePng(pixels: Uint8Array, width: number, height: number, texts: Record<string, string>): Uint8Array {
  const png = encode({ width, height, data: pixels, channels: 3, depth: 8 })
  const afterHeader = 8 + 25 // signature, then IHDR: length, name, 13 bytes, checksum
  const chunks = Object.entries(texts).map(([keyword, text]) => textChunk(keyword, text))
  return Buffer.concat([png.subarray(0, afterHeader), ...chunks, png.subarray(afterHeader)])
}

function textChunk(keyword: string, text: string): Buffer {
  const isLatin1 = /^[\n\x20-\x7e\xa0-\xff]*$/.test(text)
  const data = isLatin1
    ? Buffer.concat([Buffer.from(`${keyword}\0`, 'latin1'), Buffer.from(text, 'latin1')])
    : Buffer.concat([Buffer.from(`${keyword}\0\0\0\0\0`, 'latin1'), Buffer.from(text, 'utf8')])
  const body = Buffer.concat([Buffer.from(isLatin1 ? 'tEXt' : 'iTXt', 'latin1'), data])
  const chunk = Buffer.alloc(body.length + 8)
  chunk.writeUInt32BE(data.length, 0)
  body.copy(chunk, 4)
  chunk.writeUInt32BE(crc32(body), body.length + 4)
  return chunk
}

/** Texts of a PNG by keyword. @throws Error when it is no PNG. */
export function readPngTexts(png: Uint8Array): Record<string, string> {
  const bytes = Buffer.from(png.buffer, png.byteOffset, png.byteLength)
  if (bytes.toString('latin1', 1, 4) !== 'PNG') throw new Error('these bytes are no PNG')
  const texts: Record<string, string> = {}
  for (let at = 8; at + 12 <= bytes.length; at += 12 + bytes.readUInt32BE(at)) {
    const name = bytes.toString('latin1', at + 4, at + 8)
    const data = bytes.subarray(at + 8, at + 8 + bytes.readUInt32BE(at))
    const end = data.indexOf(0)
    if (name === 'tEXt') texts[data.toString('latin1', 0, end)] = data.toString('latin1', end + 1)
    if (name === 'iTXt') texts[data.toString('latin1', 0, end)] = data.toString('utf8', end + 5)
  }
  return texts
}
