/** A picture that shows no more than its colours. */
import { libvips } from './libvips.ts'

/** Pixels of its longer side that are left of it. */
const leftOfIt = 12

/**
 * So blurred that nothing of it can be told, or brought back: it is made of at most 12 · 12 means.
 * @param rgb 8 bits each, row by row; so is what comes back
 */
export async function blurred(rgb: Uint8Array, width: number, height: number): Promise<Uint8Array> {
  const sharp = await libvips()
  const scale = leftOfIt / Math.max(width, height)
  const [columns, rows] = [width, height].map((side) => Math.max(1, Math.round(side * Math.min(1, scale)))) as [number, number]
  const small = await sharp(rgb, { raw: { width, height, channels: 3 } })
    .resize(columns, rows, { fit: 'fill' })
    .raw()
    .toBuffer()
  return sharp(small, { raw: { width: columns, height: rows, channels: 3 } })
    .resize(width, height, { fit: 'fill', kernel: 'cubic' })
    .raw()
    .toBuffer()
}
