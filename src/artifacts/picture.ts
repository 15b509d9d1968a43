/**
 * Files of strangers to pictures of ours: each is decoded in a process of its own, bounded in bytes, pixels, frames and
 * time, and comes out as a PNG that says nothing but its pixels. So whatever reads a picture later reads one form.
 *
 * | what comes | what is done |
 * | --- | --- |
 * | an EXIF orientation | applied |
 * | a colour profile, CMYK, grey, a palette | turned into sRGB |
 * | 16 bits | rounded to 8 |
 * | transparency | kept; nothing of it where all is opaque |
 * | several frames, a file that is cut short, any other format | refused |
 */
import { z } from 'zod'
import { artifactError } from '../errors.ts'
import { runApart } from './apart.ts'

/** What an upload may have. */
export const pictureLimits = { bytes: 64 * 2 ** 20, pixels: 2 ** 25, seconds: 20 } as const
/** Of processes that decode at a time: each may hold a picture and its file. */
const atOnce = 2
/** How many uploads may wait for one of them. */
const mostWaiting = 8
/** What a process may take longer than libvips: it starts, reads and writes, ms. */
const graceMs = 10_000

export const pictureTypes = ['image/png', 'image/jpeg', 'image/webp', 'image/avif'] as const
export type PictureType = (typeof pictureTypes)[number]

export interface Picture {
  png: Buffer
  /** As `thumbnail.mjs` makes it. */
  thumbnail: Buffer
  width: number
  height: number
  hasAlpha: boolean
}

/** By the bytes, not by a name: PNG, JPEG, WebP, AVIF. */
export function pictureType(head: Uint8Array): PictureType | undefined {
  const text = Buffer.from(head.subarray(0, 16)).toString('latin1')
  if (text.startsWith('\x89PNG\r\n\x1a\n')) return 'image/png'
  if (text.startsWith('\xff\xd8\xff')) return 'image/jpeg'
  if (text.startsWith('RIFF') && text.slice(8, 12) === 'WEBP') return 'image/webp'
  if (text.slice(4, 8) === 'ftyp' && ['avif', 'avis'].includes(text.slice(8, 12))) return 'image/avif'
  return undefined
}

/** Formats that people send and that are not taken, by how they begin. */
const others: readonly [RegExp, string][] = [
  [/^GIF8/, 'a GIF'],
  [/^BM/, 'a BMP'],
  [/^(II\*\0|MM\0\*)/, 'a TIFF, or a raw picture of a camera'],
  [/^....ftyp(heic|heix|mif1|msf1|hevc)/s, 'a HEIC'],
  [/^(\xff\n|\0\0\0\fJXL )/, 'a JPEG XL'],
  [/^\0\0\0\fjP /, 'a JPEG 2000'],
  [/^8BPS/, 'a Photoshop file'],
  [/^%PDF/, 'a PDF'],
  [/^(\xef\xbb\xbf)?\s*(<\?xml[^]*|<!--[^]*|<!DOCTYPE svg[^]*)?<svg[\s>]/i, 'an SVG, which is a drawing and has no pixels'],
]

const Answer = z.union([
  z.strictObject({ problem: z.enum(['too_many_pixels', 'animated', 'broken']), message: z.string() }),
  z.strictObject({ width: z.int().min(1), height: z.int().min(1), hasAlpha: z.boolean(), thumbnailBytes: z.int().min(1) }),
])

let running = 0
const waiting: (() => void)[] = []

/**
 * A picture from the bytes of a file. `field`: what a refusal names.
 * @throws DarkroomError `artifact.format`, `artifact.animated`, `artifact.too_many_pixels`, `artifact.broken`,
 * `artifact.busy`
 */
export async function decodePicture(bytes: Uint8Array, field: string): Promise<Picture> {
  const type = pictureType(bytes)
  if (type === undefined) throw artifactError('format', `the file is ${nameOf(bytes)}`, { field })
  if (type === 'image/png' && isAnimatedPng(bytes)) throw artifactError('animated', 'the PNG is animated', { field })
  if (waiting.length >= mostWaiting) throw artifactError('busy', `${mostWaiting} pictures wait to be decoded already`)
  if (running === atOnce) await new Promise<void>((resolve) => waiting.push(resolve))
  else running++
  try {
    return await decodeApart(bytes, field)
  } finally {
    const next = waiting.shift()
    if (next) next()
    else running--
  }
}

function nameOf(bytes: Uint8Array): string {
  if (bytes.length === 0) return 'empty'
  const head = Buffer.from(bytes.subarray(0, 1024)).toString('latin1')
  return others.find(([begins]) => begins.test(head))?.[1] ?? 'of no format that is known by its first bytes'
}

/** An `acTL` before the pixels: decoders that do not know it take the first frame in silence (PNG, W3C, §11.3). */
function isAnimatedPng(bytes: Uint8Array): boolean {
  const png = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  for (let at = 8; at + 8 <= png.length; at += 12 + png.readUInt32BE(at)) {
    const chunk = png.toString('latin1', at + 4, at + 8)
    if (chunk === 'acTL') return true
    if (chunk === 'IDAT') return false
  }
  return false
}

async function decodeApart(bytes: Uint8Array, field: string): Promise<Picture> {
  const broken = (why: string) => artifactError('broken', `the picture cannot be decoded: ${why}`, { field })
  const { pixels, seconds } = pictureLimits
  const { head, body } = await runApart({
    program: new URL('picture-process.mjs', import.meta.url),
    args: [String(pixels), String(seconds)],
    input: bytes,
    limitMs: seconds * 1000 + graceMs,
  }).catch((error: Error) => {
    throw broken(error.message)
  })
  const answer = Answer.parse(head)
  if ('problem' in answer) {
    if (answer.problem === 'broken') throw broken(answer.message)
    throw artifactError(answer.problem, `the picture has ${answer.message}`, { field })
  }
  const { thumbnailBytes, ...picture } = answer
  return { ...picture, thumbnail: body.subarray(0, thumbnailBytes), png: body.subarray(thumbnailBytes) }
}
