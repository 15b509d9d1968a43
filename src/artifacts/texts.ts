/**
 * Texts in files of pictures: those that programs which draw write beside the pixels. PNG (W3C, §11.3.3): tEXt, zTXt
 * and iTXt. JPEG, WebP and AVIF: EXIF (CIPA DC-008), `UserComment`, and tags of the camera,
 * where ComfyUI puts its graph and Darkroom its receipt.
 *
 * Files are hostile: nothing is decoded but these texts, and every length is looked at before it is used.
 */
import { inflateSync } from 'node:zlib'
import { exifOfAvif } from './avif.ts'
import { exifTags } from './exif.ts'
import { pictureType } from './picture.ts'
import { chunkOf } from './png-chunk.mjs'

/** What texts may have, all of those in one file together: bytes once they are inflated, and how many. */
export const textLimits = { bytes: 4 * 2 ** 20, count: 64 } as const
/** How many parts of a file are looked at for texts. */
const mostParts = 100_000
/** Entries of one EXIF directory. */
const mostEntries = 512

export interface Texts {
  /** By keyword; of several of one keyword the first. */
  texts: ReadonlyMap<string, string>
  /** Keywords whose text is there and cannot be read, with the reason in words. */
  unread: ReadonlyMap<string, string>
}

/** Keywords that texts of EXIF, which have none, are given: `UserComment` is what other files call `parameters`. */
const ofComment = 'parameters'

/** Texts of a PNG, JPEG, WebP or AVIF file; none in other formats, and none behind the place where a file is broken. */
export function textsOf(file: Uint8Array): Texts {
  const bytes = Buffer.from(file.buffer, file.byteOffset, file.byteLength)
  const found = new Found()
  const type = pictureType(bytes)
  if (type === 'image/png') readPng(bytes, found)
  if (type === 'image/jpeg') readExif(exifOfJpeg(bytes), found)
  if (type === 'image/webp') readExif(exifOfWebp(bytes), found)
  if (type === 'image/avif') readExif(exifOfAvif(bytes), found)
  return found
}

/**
 * A PNG with more texts, behind its header.
 * @param texts keyword → text; written as tEXt when Latin-1 can hold it, else as iTXt
 */
export function withTexts(png: Uint8Array, texts: Iterable<[keyword: string, text: string]>): Buffer {
  return withChunks(
    png,
    Array.from(texts, ([keyword, text]) => textChunk(keyword, text)),
  )
}

/**
 * How a PNG of 8 bits a number, RGB or RGBA, begins (PNG, W3C, §5): all that stands before its pixels.
 * @param texts as `withTexts`
 */
export function pngHead(
  { width, height, hasAlpha }: { width: number; height: number; hasAlpha: boolean },
  texts: Iterable<[keyword: string, text: string]>,
): Buffer {
  const header = Buffer.alloc(13)
  header.writeUInt32BE(width, 0)
  header.writeUInt32BE(height, 4)
  header.set([8, hasAlpha ? 6 : 2], 8)
  return Buffer.concat([
    Buffer.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a),
    chunkOf('IHDR', header),
    ...Array.from(texts, ([keyword, text]) => textChunk(keyword, text)),
  ])
}

/** A PNG with this EXIF in it (PNG, W3C, §11.3.4.5), behind its header. */
export const withExif = (png: Uint8Array, exif: Uint8Array): Buffer => withChunks(png, [chunkOf('eXIf', exif)])

function withChunks(png: Uint8Array, chunks: readonly Buffer[]): Buffer {
  const afterHeader = 8 + 25 // signature, then IHDR: length, name, 13 bytes, checksum
  return Buffer.concat([png.subarray(0, afterHeader), ...chunks, png.subarray(afterHeader)])
}

function textChunk(keyword: string, text: string): Buffer {
  const isLatin1 = /^[\n\x20-\x7e\xa0-\xff]*$/.test(text)
  const data = isLatin1
    ? Buffer.concat([Buffer.from(`${keyword}\0`, 'latin1'), Buffer.from(text, 'latin1')])
    : Buffer.concat([Buffer.from(`${keyword}\0\0\0\0\0`, 'latin1'), Buffer.from(text, 'utf8')])
  return chunkOf(isLatin1 ? 'tEXt' : 'iTXt', data)
}

/** What was found so far, within the limits. */
class Found implements Texts {
  readonly texts = new Map<string, string>()
  readonly unread = new Map<string, string>()
  #left: number = textLimits.bytes

  /** `decode`: the text from its bytes; `isDeflated`: they are to be inflated first. */
  take(keyword: string, data: Buffer, decode: (bytes: Buffer) => string, isDeflated = false): void {
    if (this.texts.has(keyword) || this.texts.size + this.unread.size >= textLimits.count) return
    if (data.length > this.#left) return this.#refuse(keyword, `all texts together are longer than ${textLimits.bytes} bytes`)
    let plain = data
    if (isDeflated) {
      try {
        plain = inflateSync(data, { maxOutputLength: Math.max(1, this.#left) })
      } catch (error) {
        const isLong = (error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE'
        // What was inflated in vain counts too: many bombs are no cheaper than one.
        this.#left = isLong ? 0 : this.#left - data.length
        return this.#refuse(keyword, isLong ? `it inflates to more than ${textLimits.bytes} bytes` : 'it cannot be inflated')
      }
    }
    this.#left -= plain.length
    this.unread.delete(keyword)
    this.texts.set(keyword, decode(plain))
  }

  #refuse(keyword: string, why: string): void {
    this.unread.set(keyword, why)
  }
}

const latin1 = (bytes: Buffer): string => bytes.toString('latin1')
const utf8 = (bytes: Buffer): string => bytes.toString('utf8')

function readPng(png: Buffer, found: Found): void {
  for (let at = 8, part = 0; at + 12 <= png.length && part < mostParts; at += 12 + png.readUInt32BE(at), part++) {
    const name = png.toString('latin1', at + 4, at + 8)
    if (!['tEXt', 'zTXt', 'iTXt'].includes(name)) continue
    const data = png.subarray(at + 8, at + 8 + png.readUInt32BE(at))
    // A keyword has at most 79 bytes.
    const end = data.subarray(0, 80).indexOf(0)
    if (end <= 0) continue
    const keyword = data.toString('latin1', 0, end)
    if (name === 'tEXt') found.take(keyword, data.subarray(end + 1), latin1)
    // One byte says the method of compression, of which there is one.
    if (name === 'zTXt') found.take(keyword, data.subarray(end + 2), latin1, true)
    if (name !== 'iTXt') continue
    // Flag and method of compression, then the language and the translated keyword, each with a zero behind it.
    const language = data.indexOf(0, end + 3)
    const translated = language === -1 ? -1 : data.indexOf(0, language + 1)
    if (translated !== -1) found.take(keyword, data.subarray(translated + 1), utf8, data[end + 1] === 1)
  }
}

/** The TIFF structure that holds a JPEG's EXIF; undefined without one. */
function exifOfJpeg(jpeg: Buffer): Buffer | undefined {
  for (let at = 2, part = 0; at + 4 <= jpeg.length && part < mostParts; part++) {
    if (jpeg[at] !== 0xff) return undefined
    const marker = jpeg[at + 1] ?? 0
    // A fill byte, or a marker without a length.
    if (marker === 0xff || (marker >= 0xd0 && marker <= 0xd8)) {
      at += marker === 0xff ? 1 : 2
      continue
    }
    // The pixels, or the end.
    if (marker === 0xda || marker === 0xd9) return undefined
    const segment = jpeg.subarray(at + 4, at + 2 + jpeg.readUInt16BE(at + 2))
    if (marker === 0xe1 && segment.toString('latin1', 0, 6) === 'Exif\0\0') return segment.subarray(6)
    at += 2 + Math.max(2, jpeg.readUInt16BE(at + 2))
  }
  return undefined
}

/** The same of a WebP. */
function exifOfWebp(webp: Buffer): Buffer | undefined {
  for (let at = 12, part = 0; at + 8 <= webp.length && part < mostParts; part++) {
    const length = webp.readUInt32LE(at + 4)
    if (webp.toString('latin1', at, at + 4) === 'EXIF') {
      const chunk = webp.subarray(at + 8, at + 8 + length)
      return chunk.toString('latin1', 0, 6) === 'Exif\0\0' ? chunk.subarray(6) : chunk
    }
    at += 8 + length + (length % 2)
  }
  return undefined
}

const exifTag = 0x8769
const commentTag = 0x9286

/** Two directories of a TIFF, the first and the one for EXIF; no chain of them is followed. */
function readExif(tiff: Buffer | undefined, found: Found): void {
  if (!tiff || tiff.length < 8) return
  const order = tiff.toString('latin1', 0, 2)
  if (order !== 'II' && order !== 'MM') return
  const isLittle = order === 'II'
  const short = (at: number): number => (isLittle ? tiff.readUInt16LE(at) : tiff.readUInt16BE(at))
  const long = (at: number): number => (isLittle ? tiff.readUInt32LE(at) : tiff.readUInt32BE(at))
  /** Tag → where its entry stands. */
  const directory = (at: number): Map<number, number> => {
    if (at + 2 > tiff.length) return new Map()
    const places = Array.from({ length: Math.min(short(at), mostEntries) }, (_, i) => at + 2 + 12 * i)
    return new Map(places.filter((place) => place + 12 <= tiff.length).map((place) => [short(place), place]))
  }
  /** Bytes of an entry of single bytes or letters. */
  const valueOf = (place: number): Buffer => {
    const count = long(place + 4)
    const start = count <= 4 ? place + 8 : long(place + 8)
    return tiff.subarray(start, start + count)
  }
  const first = directory(long(4))
  const pointer = first.get(exifTag)
  const comment = pointer === undefined ? undefined : directory(long(pointer + 8)).get(commentTag)
  if (comment !== undefined) found.take(ofComment, valueOf(comment), commentOf)
  for (const tag of Object.values(exifTags)) {
    const place = first.get(tag)
    const value = place === undefined ? Buffer.alloc(0) : valueOf(place)
    const [head = '', keyword] = /^(prompt|workflow|darkroom|invokeai_metadata|sd-metadata):/.exec(value.toString('latin1', 0, 24)) ?? []
    if (keyword !== undefined) found.take(keyword, value.subarray(head.length), (text) => unpadded(utf8(text)))
  }
}

/** A `UserComment`: eight bytes name its code. */
function commentOf(value: Buffer): string {
  const [code, text] = [value.toString('latin1', 0, 8), value.subarray(8)]
  if (code === 'UNICODE\0') return utf16(text)
  return unpadded(code === 'ASCII\0\0\0' || code === '\0'.repeat(8) ? utf8(text) : utf8(value))
}

/** Without the zeros at its end. No pattern: one would look at each of many zeros in the middle again and again. */
function unpadded(text: string): string {
  let end = text.length
  while (end > 0 && text.charCodeAt(end - 1) === 0) end--
  return text.slice(0, end)
}

/**
 * UTF-16 in the order that its zero bytes tell: programs write either one, whatever the order of the file is, and most
 * without a mark.
 */
function utf16(bytes: Buffer): string {
  const even = Buffer.from(bytes.subarray(0, bytes.length - (bytes.length % 2)))
  let [high, low] = [0, 0]
  for (let at = 0; at < even.length; at += 2) {
    if (even[at] === 0) high++
    if (even[at + 1] === 0) low++
  }
  const isBig = high >= low
  return (isBig ? even.swap16() : even).toString('utf16le').replace(/^\ufeff/, '')
}
