import { availableParallelism } from 'node:os'
import { Piscina } from 'piscina'
import { pictureType } from '../../artifacts/picture.ts'
import { chunkOf } from '../../artifacts/png-chunk.mjs'
import { pngFile, textsOf } from '../../artifacts/texts.ts'
import { thumbnailOfPixels } from '../../artifacts/thumbnail.ts'
import { artifactError } from '../../errors.ts'
import type { Tools } from '../operation.ts'
import { zlibDigest } from './png-deflate.mjs'
import type { Band, default as bandsOf } from './png-thread.mjs'

/**
 * The one PNG writer: bands of rows through one filter and a deflate that no CPU changes, so that equal pixels and
 * texts are equal bytes, however many threads there are. Its version, and what its zlib makes of a sample, are part of
 * the exactness key.
 */
export const pngEncoder = (): string => `darkroom 2, zlib ${zlibDigest()}`

/** Bytes of pixels that one thread deflates at a time. */
const bandBytes = 64 * 1024

/** The event loop keeps a core. */
const maxThreads = Math.min(16, Math.max(1, availableParallelism() - 1))

/** Threads are started when a picture is to be written, and end half a minute after the last one. */
const threads = new Piscina<Parameters<typeof bandsOf>[0], Band[]>({
  filename: new URL('./png-thread.mjs', import.meta.url).href,
  // Its own flags: the thread needs no compiler, and loads faster without.
  execArgv: [],
  minThreads: 0,
  maxThreads,
  idleTimeout: 30_000,
})

/**
 * @param pixels RGB or RGBA, 8 bits each, row by row: `width * height` times 3 or 4 bytes
 * @param texts keyword → text; written as tEXt when Latin-1 can hold it, else as iTXt (PNG, W3C, §11.3.3)
 */
export async function writePng(pixels: Uint8Array, width: number, height: number, texts: Record<string, string>): Promise<Uint8Array> {
  const channels = pixels.length / (width * height)
  if (channels !== 3 && channels !== 4) throw new RangeError(`${pixels.length} bytes are no ${width} · ${height} pixels of RGB or RGBA`)
  const rowBytes = width * channels
  const rows = Math.max(1, Math.floor(bandBytes / rowBytes))
  const picture = { pixels: shared(pixels), rowBytes, channels, rows, taken: new Int32Array(new SharedArrayBuffer(4)) }
  const made = await Promise.all(Array.from({ length: Math.min(maxThreads, Math.ceil(height / rows)) }, () => threads.run(picture)))
  const bands = made.flat().toSorted((one, other) => one.number - other.number)
  return pngFile({ width, height, hasAlpha: channels === 4 }, Object.entries(texts), [
    ...bands.map(({ chunk }) => chunk),
    chunkOf('IDAT', checksumOf(bands)),
  ])
}

/** What all threads read: anything else would be copied for each of them, on the event loop. */
function shared(pixels: Uint8Array): Uint8Array {
  if (pixels.buffer instanceof SharedArrayBuffer) return pixels
  const copy = new Uint8Array(new SharedArrayBuffer(pixels.length))
  copy.set(pixels)
  return copy
}

/** Adler-32 of bands one behind the other (RFC 1950, §8.2: both sums are linear in what stands before them). */
function checksumOf(bands: readonly Band[]): Buffer {
  const base = 65_521
  let [a, b] = [1, 0]
  for (const { adler, bytes } of bands) {
    // A band's own sums began at 1 and 0.
    b = (b + (bytes % base) * (a - 1 + base) + Math.floor(adler / 65_536)) % base
    a = (a + (adler % 65_536) - 1 + base) % base
  }
  const checksum = Buffer.alloc(4)
  checksum.writeUInt32BE(b * 65_536 + a)
  return checksum
}

/** Pixels that a step has left, by their artifact. */
interface Left {
  pixels: string
  width: number
  height: number
  /** RGBA; else RGB. */
  hasAlpha?: boolean | undefined
}

/**
 * Pixels that a step has left, as `writePng` takes them.
 * @throws DarkroomError `artifact.missing`; `artifact.corrupt` when they are not as many as the size says
 */
export async function pixelsOf(tools: Pick<Tools, 'read'>, { pixels, width, height, hasAlpha = false }: Left): Promise<Buffer> {
  const bytes = await tools.read(pixels)
  const channels = hasAlpha ? 4 : 3
  if (bytes.length !== width * height * channels)
    throw artifactError('corrupt', `pixels ${pixels} hold ${bytes.length} bytes, not ${width} · ${height} · ${channels}`)
  return bytes
}

/** A PNG of them, and what makes its thumbnail. @throws DarkroomError as `pixelsOf` */
export async function pictureOf(
  tools: Pick<Tools, 'read'>,
  left: Left,
  texts: Record<string, string>,
): Promise<{ png: Uint8Array; thumbnail: () => Promise<Uint8Array> }> {
  const { width, height } = left
  const pixels = await pixelsOf(tools, left)
  return { png: await writePng(pixels, width, height, texts), thumbnail: () => thumbnailOfPixels(pixels, width, height) }
}

/** Texts of a PNG by keyword. @throws Error when it is no PNG. */
export function readPngTexts(png: Uint8Array): Record<string, string> {
  if (pictureType(png) !== 'image/png') throw new Error('these bytes are no PNG')
  return Object.fromEntries(textsOf(png).texts)
}
