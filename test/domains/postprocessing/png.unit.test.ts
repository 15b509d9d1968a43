/**
 * The PNG writer against zlib and the PNG specification, read here by hand: neither the writer's library nor its reader
 * takes part.
 */
import { createHash, randomFillSync } from 'node:crypto'
import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { crc32, inflateSync } from 'node:zlib'
import { constants, Deflate } from 'pako'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { Writing } from '../../../src/artifacts/store.ts'
import { pictureOf, readPngTexts, writePng } from '../../../src/domains/postprocessing/png.ts'
import { deflated } from '../../../src/domains/postprocessing/png-deflate.mjs'
import bandsOf from '../../../src/domains/postprocessing/png-thread.mjs'

interface Chunk {
  name: string
  data: Buffer
}

/** The chunks of a file, each by its checksum. */
function chunksOf(png: Uint8Array): Chunk[] {
  const bytes = Buffer.from(png)
  expect(bytes.subarray(0, 8).toString('hex')).toBe('89504e470d0a1a0a')
  const chunks: Chunk[] = []
  for (let at = 8; at < bytes.length;) {
    const length = bytes.readUInt32BE(at)
    const body = bytes.subarray(at + 4, at + 8 + length)
    expect(bytes.readUInt32BE(at + 8 + length)).toBe(crc32(body))
    chunks.push({ name: body.toString('latin1', 0, 4), data: body.subarray(4) })
    at += 12 + length
  }
  return chunks
}

const only = (chunks: Chunk[], name: string): Buffer => {
  const found = chunks.filter((chunk) => chunk.name === name)
  expect(found).toHaveLength(1)
  return found[0]?.data ?? Buffer.alloc(0)
}

/** RGB as it was before its rows were filtered (PNG, W3C, §9.2). */
function pixelsOf(chunks: Chunk[]): { width: number; height: number; pixels: number[] } {
  const header = only(chunks, 'IHDR')
  const [width, height] = [header.readUInt32BE(0), header.readUInt32BE(4)]
  // 8 bits, true colour, deflate, adaptive filters, not interlaced.
  expect([...header.subarray(8)]).toEqual([8, 2, 0, 0, 0])
  const rows = inflateSync(Buffer.concat(chunks.filter(({ name }) => name === 'IDAT').map(({ data }) => data)))
  const stride = 3 * width
  expect(rows).toHaveLength(height * (1 + stride))
  const pixels: number[] = []
  for (let y = 0; y < height; y++) {
    const filter = rows[y * (1 + stride)] ?? 0
    for (let x = 0; x < stride; x++) {
      const left = x < 3 ? 0 : (pixels[y * stride + x - 3] ?? 0)
      const above = y === 0 ? 0 : (pixels[(y - 1) * stride + x] ?? 0)
      const corner = x < 3 || y === 0 ? 0 : (pixels[(y - 1) * stride + x - 3] ?? 0)
      const guess = [0, left, above, (left + above) >> 1, paeth(left, above, corner)][filter] ?? Number.NaN
      pixels.push(((rows[y * (1 + stride) + 1 + x] ?? 0) + guess) & 255)
    }
  }
  return { width, height, pixels }
}

function paeth(left: number, above: number, corner: number): number {
  const guess = left + above - corner
  const [byLeft, byAbove, byCorner] = [left, above, corner].map((value) => Math.abs(guess - value)) as [number, number, number]
  return byLeft <= byAbove && byLeft <= byCorner ? left : byAbove <= byCorner ? above : corner
}

/** Every value of a byte occurs, and no two rows are alike. */
const noise = (width: number, height: number): Uint8Array =>
  Uint8Array.from({ length: 3 * width * height }, (_, i) => (i * 167 + (i >> 5)) & 255)

describe('writePng', () => {
  it.each([
    [1, 1],
    [2, 3],
    [64, 64],
    [333, 7],
    // Bands of rows, each by a thread of its own.
    [333, 517],
    [60_000, 2],
    [1, 70_000],
  ])('%s × %s pixels come out as they went in', async (width, height) => {
    const pixels = noise(width, height)
    const chunks = chunksOf(await writePng(pixels, width, height, {}))
    expect(new Set(chunks.map(({ name }) => name))).toEqual(new Set(['IHDR', 'IDAT', 'IEND']))
    expect(pixelsOf(chunks)).toEqual({ width, height, pixels: [...pixels] })
  })

  it('has the same bytes for the same picture, on every machine', async () => {
    const red = Uint8Array.from([255, 0, 0, 0, 0, 255])
    const hex = Buffer.from(await writePng(red, 2, 1, { a: 'b' })).toString('hex')
    expect(hex).toBe(
      '89504e470d0a1a0a0000000d49484452000000020000000108020000007b40e8dd0000000374455874610062dc49a23b0000000b49444154785e63f9cfc0c0c8f01f0003102ba50000000449444154071f020455d59d680000000049454e44ae426082',
    )
    const banded = createHash('sha256')
      .update(await writePng(noise(333, 517), 333, 517, {}))
      .digest('hex')
    expect(banded).toBe('0982721b90a1e63a049c3b9795969c7f7a5c0327dd0cae16aed79fc3351dd635')
  })

  it('puts its texts between header and pixels: as tEXt what Latin-1 can hold, as iTXt in UTF-8 what it cannot', async () => {
    const texts = { prompt: 'a café\nin the rain', title: '猫 🐈', empty: '' }
    const png = await writePng(noise(2, 2), 2, 2, texts)
    const chunks = chunksOf(png)
    expect(chunks.map(({ name }) => name)).toEqual(['IHDR', 'tEXt', 'iTXt', 'tEXt', 'IDAT', 'IDAT', 'IEND'])
    expect(chunks[1]?.data.toString('latin1')).toBe('prompt\0a café\nin the rain')
    // No compression, no language, no translated keyword.
    expect(chunks[2]?.data.toString('utf8')).toBe('title\0\0\0\0\0猫 🐈')
    expect(readPngTexts(png)).toEqual(texts)
  })
})

describe('pictureOf', () => {
  const [width, height] = [333, 517]
  const pixels = noise(width, height)
  const left = { pixels: createHash('sha256').update(pixels).digest('hex'), width, height }
  /** Where its pixels lie, and of those so many bytes; they are said to be all of them. */
  async function folderWith(there: number) {
    const folder = await mkdtemp(join(tmpdir(), 'darkroom-png-'))
    onTestFinished(() => rm(folder, { recursive: true, force: true }))
    await writeFile(join(folder, 'pixels.rgb'), pixels.subarray(0, there))
    const tools = {
      open: async () => {
        const file = await open(join(folder, 'pixels.rgb'))
        return { fd: file.fd, bytes: pixels.length, [Symbol.asyncDispose]: () => file.close() }
      },
      read: () => readFile(join(folder, 'pixels.rgb')),
    }
    return { tools, path: join(folder, 'picture.png') }
  }
  const writeTo = async (path: string, picture: Writing, flags = 'w'): Promise<string> => {
    await using file = await open(path, flags)
    return await picture.writeTo(file.fd)
  }

  it('writes what lies in a file as what lies in memory, with its SHA-256', async () => {
    const { tools, path } = await folderWith(pixels.length)
    for (const open of [tools.open, () => Promise.resolve(undefined)]) {
      const picture = await pictureOf({ ...tools, open }, left, { a: 'b' })
      const sha256 = await writeTo(path, picture)
      const written = await readFile(path)
      expect(written.equals(await writePng(pixels, width, height, { a: 'b' }))).toBe(true)
      expect(createHash('sha256').update(written).digest('hex')).toBe(sha256)
      expect(picture.byteLength).toBe(written.length)
      expect(written.equals(picture.whole())).toBe(true)
    }
  })

  it('of many at once: none waits for another, however few threads there are', async () => {
    const { tools } = await folderWith(pixels.length)
    const all = Array.from({ length: 12 }, async (_each, i) => {
      const { path } = await folderWith(0)
      const text = String(i)
      await writeTo(path, await pictureOf(tools, left, { text }))
      return readPngTexts(await readFile(path))['text']
    })
    expect(await Promise.all(all)).toEqual(Array.from({ length: 12 }, (_each, i) => String(i)))
  })

  it('refuses pixels that are not as many as the size says, others than are named, and a file that was cut', async () => {
    const { tools, path } = await folderWith(pixels.length)
    await expect(pictureOf(tools, { ...left, height: 516 }, {})).rejects.toMatchObject({ code: 'artifact.corrupt' })
    const other = await pictureOf(tools, { ...left, pixels: 'a'.repeat(64) }, {})
    await expect(writeTo(path, other)).rejects.toMatchObject({ code: 'artifact.corrupt' })
    const cut = await folderWith(pixels.length - 1)
    const picture = await pictureOf(cut.tools, left, {})
    await expect(writeTo(cut.path, picture)).rejects.toThrow(`end after ${pixels.length - 1} bytes`)
  })

  it('says what the disk says', async () => {
    const { tools, path } = await folderWith(pixels.length)
    await writeFile(path, '')
    await expect(writeTo(path, await pictureOf(tools, left, {}), 'r')).rejects.toMatchObject({ code: 'EBADF' })
    await expect(writeTo('/dev/full', await pictureOf(tools, left, {}))).rejects.toMatchObject({ code: 'ENOSPC' })
  })
})

describe('deflate', () => {
  /** Bytes as `kind` says, of a generator that begins anew each time. */
  function bytesOf(length: number, kind: (noise: number, before: number) => number): Uint8Array {
    const bytes = new Uint8Array(length)
    for (let at = 0, state = length; at < length; at++) {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
      bytes[at] = kind(state >>> 8, bytes[at - 1] ?? 0)
    }
    return bytes
  }
  const kinds = {
    noise: (noise: number) => noise & 255,
    'small numbers': (noise: number) => (noise & 7) - ((noise >> 3) & 7),
    runs: (noise: number, before: number) => ((noise & 127) === 0 ? noise >> 8 : before),
    'one byte': () => 255,
  }

  it.each(Object.entries(kinds))('makes of %s what another implementation of zlib makes', (_, kind) => {
    // Below, at and above a block of symbols, a run's longest match, and a window.
    for (const length of [0, 1, 2, 3, 258, 259, 16_383, 16_384, 16_385, 32_768, 65_535, 65_537, 200_000]) {
      const bytes = bytesOf(length, kind)
      for (const isLast of [false, true]) {
        const stream = new Deflate({ level: 3, strategy: constants.Z_RLE, raw: true })
        const parts: Uint8Array[] = []
        stream.onData = (part) => void parts.push(part as Uint8Array)
        stream.push(bytes, isLast ? constants.Z_FINISH : constants.Z_SYNC_FLUSH)
        expect(Buffer.concat(parts).equals(deflated(bytes, isLast))).toBe(true)
      }
    }
  })
})

describe('the event loop', () => {
  it('goes on while a picture is written', async () => {
    const side = 1024
    const pixels = randomFillSync(new Uint8Array(3 * side * side))
    const from = performance.now()
    const [rows, chunkBytes] = [16, 64 * side]
    const count = side / rows
    const made = { chunks: new Uint8Array(chunkBytes * count), chunkBytes, lengths: new Int32Array(count), adlers: new Uint32Array(count) }
    bandsOf({ pixels, height: side, rows, rowBytes: 3 * side, channels: 3, taken: new Int32Array(1), ...made })
    const onThisLoop = performance.now() - from
    const before = performance.eventLoopUtilization()
    await writePng(pixels, side, side, {})
    expect(performance.eventLoopUtilization(before).active).toBeLessThan(onThisLoop / 2)
  })
})

describe('readPngTexts', () => {
  it('finds none in a picture without', async () => {
    expect(readPngTexts(await writePng(noise(1, 1), 1, 1, {}))).toEqual({})
  })

  it('refuses what is no PNG', () => {
    expect(() => readPngTexts(Buffer.from('GIF89a, not one of ours'))).toThrow('no PNG')
  })
})
