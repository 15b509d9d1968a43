import { availableParallelism } from 'node:os'
import { setTimeout as delay } from 'node:timers/promises'
import { Piscina } from 'piscina'
import { pictureType } from '../../artifacts/picture.ts'
import type { Writing } from '../../artifacts/store.ts'
import { pngHead, textsOf } from '../../artifacts/texts.ts'
import { artifactError } from '../../errors.ts'
import { allDone } from '../../promises.ts'
import type { OpenFile, Tools } from '../operation.ts'
import { zlibDigest } from './png-deflate.mjs'
import { patienceMs, piecesOf, type hash, type Picture, type Pixels, type write } from './png-thread.mjs'

/**
 * The one PNG writer: bands of rows through one filter and a deflate that no CPU changes, so that equal pixels and
 * texts are equal bytes, however many threads there are. Its version, and what its zlib makes of a sample, are part of
 * the exactness key.
 */
export const pngEncoder = (): string => `darkroom 2, zlib ${zlibDigest()}`

/** Bytes of pixels that one thread deflates at a time. */
const bandBytes = 64 * 1024

/** A quarter of the cores is left to the event loop, to Redis and to what draws the next picture. */
const maxThreads = Math.min(16, Math.max(1, Math.floor(0.75 * availableParallelism())))

/** Threads are started when a picture is to be written, and end half a minute after the last one. */
const threads = new Piscina({
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
  const picture = begun(shared(pixels), { width, height, channels }, texts)
  await allDone(bandsOf(picture, maxThreads))
  return Buffer.concat([...piecesOf(picture)])
}

interface Shape {
  width: number
  height: number
  channels: 3 | 4
}

/** A picture of which nothing is made yet. */
function begun(pixels: Pixels, { width, height, channels }: Shape, texts: Record<string, string>): Picture {
  const rowBytes = width * channels
  const rows = Math.max(1, Math.floor(bandBytes / rowBytes))
  const count = Math.ceil(height / rows)
  const chunkBytes = mostBytesOf(rows * (rowBytes + 1))
  const ofBands = (): SharedArrayBuffer => new SharedArrayBuffer(4 * count)
  return {
    pixels,
    height,
    rows,
    rowBytes,
    channels,
    head: pngHead({ width, height, hasAlpha: channels === 4 }, Object.entries(texts)),
    taken: new Int32Array(new SharedArrayBuffer(4)),
    chunks: new Uint8Array(new SharedArrayBuffer(count * chunkBytes)),
    chunkBytes,
    lengths: new Int32Array(ofBands()),
    adlers: new Uint32Array(ofBands()),
  }
}

/** Of the chunk that so many bytes are deflated to: zlib's `deflateBound`, and what makes a chunk of it. */
const mostBytesOf = (bytes: number): number => bytes + Math.ceil(bytes / 8) + Math.ceil(bytes / 64) + 64

/** Makes the bands of a picture, with so many threads. */
function bandsOf(picture: Picture, count: number): Promise<void>[] {
  // What it begins with is only for who writes it.
  const { head: _, ...bands } = picture
  return Array.from({ length: Math.min(count, bands.lengths.length) }, () => threads.run(bands) as Promise<void>)
}

/** What all threads read: anything else would be copied for each of them, on the event loop. */
function shared(pixels: Uint8Array): Uint8Array {
  if (pixels.buffer instanceof SharedArrayBuffer) return pixels
  const copy = new Uint8Array(new SharedArrayBuffer(pixels.length))
  copy.set(pixels)
  return copy
}

/** Pixels that a step has left, by their artifact. */
interface Left {
  pixels: string
  width: number
  height: number
  /** RGBA; else RGB. */
  hasAlpha?: boolean | undefined
}

const channelsOf = ({ hasAlpha = false }: Left): 3 | 4 => (hasAlpha ? 4 : 3)
const bytesOf = (left: Left): number => left.width * left.height * channelsOf(left)

/**
 * Pixels that a step has left, as `writePng` takes them.
 * @throws DarkroomError `artifact.missing`; `artifact.corrupt` when they are not as many as the size says
 */
export async function pixelsOf(tools: Pick<Tools, 'read'>, left: Left): Promise<Buffer> {
  const { pixels, width, height } = left
  const bytes = await tools.read(pixels)
  if (bytes.length !== bytesOf(left))
    throw artifactError('corrupt', `pixels ${pixels} hold ${bytes.length} bytes, not ${width} · ${height} · ${channelsOf(left)}`)
  return bytes
}

/** Their file, where there is one and it has as many as the size says. */
async function fileOf(tools: Pick<Tools, 'open'>, left: Left): Promise<OpenFile | undefined> {
  const file = await tools.open(left.pixels)
  if (file?.bytes === bytesOf(left)) return file
  await file?.[Symbol.asyncDispose]()
  return undefined
}

/** Makes the bands, and closes the file of their pixels. @throws DarkroomError `artifact.corrupt` for other pixels */
async function made(picture: Picture, { pixels }: Left, file: OpenFile | undefined): Promise<void> {
  try {
    // Pixels without a file were compared when they were read.
    const hashing = (file ? threads.run(file.fd, { name: 'hash' }) : Promise.resolve(pixels)) as Promise<ReturnType<typeof hash>>
    // One thread hashes, and one writes.
    try {
      await allDone([...bandsOf(picture, Math.max(1, maxThreads - 2)), hashing])
    } finally {
      // The thread that writes may have taken one: no descriptor is closed, and given to another file, under its read.
      const isMaking = (): boolean => picture.lengths.subarray(0, Atomics.load(picture.taken, 0)).includes(0)
      for (let ms = 0; ms < patienceMs && isMaking(); ms++) await delay(1)
    }
    const sha256 = await hashing
    if (sha256 !== pixels) throw artifactError('corrupt', `the file of pixels ${pixels} has SHA-256 ${sha256}`)
  } finally {
    await file?.[Symbol.asyncDispose]()
  }
}

/**
 * A PNG of pixels that a step has left: threads make it from now on, and write it as far as it is made.
 * @throws DarkroomError as `pixelsOf`
 */
export async function pictureOf(tools: Pick<Tools, 'open' | 'read'>, left: Left, texts: Record<string, string>): Promise<Writing> {
  const { width, height } = left
  const file = await fileOf(tools, left)
  const picture = begun(file?.fd ?? shared(await pixelsOf(tools, left)), { width, height, channels: channelsOf(left) }, texts)
  const making = made(picture, left, file)
  // Heard by `writeTo`.
  making.catch(() => undefined)
  let byteLength = 0
  return {
    get byteLength() {
      return byteLength
    },
    async writeTo(fd) {
      const writing = threads.run({ ...picture, fd }, { name: 'write' }) as Promise<ReturnType<typeof write>>
      const [, written] = await allDone([making, writing] as const)
      if ('message' in written) throw Object.assign(new Error(written.message), { code: written.code })
      byteLength = written.bytes
      return written.sha256
    },
    whole: () => Buffer.concat([...piecesOf(picture)]),
  }
}

/** Texts of a PNG by keyword. @throws Error when it is no PNG. */
export function readPngTexts(png: Uint8Array): Record<string, string> {
  if (pictureType(png) !== 'image/png') throw new Error('these bytes are no PNG')
  return Object.fromEntries(textsOf(png).texts)
}
