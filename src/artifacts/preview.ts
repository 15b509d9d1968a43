/** Small pictures of pictures under way. */
import { libvips } from './libvips.ts'

/** Most bytes of a preview. */
export const maxPreviewBytes = 65_536
/** Most pixels of its side. */
const maxSide = 256
/** JPEG's quality, and what is tried where that takes too many bytes: noise alone, of the largest pictures. */
const qualities = [80, 50, 20]

/** RGB, 8 bits each, row by row. */
export interface Pixels {
  rgb: Buffer
  width: number
  height: number
}

/**
 * As a JPEG of at most 256 pixels a side and 64 KiB. Of a drawing of 128 × 128 that takes 0.9 ms and 11 KB, a WebP 2.9
 * ms and 6 KB, a PNG 1.2 ms and 33 KB.
 */
export async function jpegOf({ rgb, width, height }: Pixels): Promise<Buffer> {
  const sharp = await libvips()
  const small = sharp(rgb, { raw: { width, height, channels: 3 } }).resize(maxSide, maxSide, { fit: 'inside', withoutEnlargement: true })
  for (const quality of qualities) {
    const jpeg = await small.clone().jpeg({ quality, chromaSubsampling: '4:4:4' }).toBuffer()
    if (jpeg.length <= maxPreviewBytes) return jpeg
  }
  throw new Error(`a preview of ${width} × ${height} pixels takes more than ${maxPreviewBytes} bytes`)
}
