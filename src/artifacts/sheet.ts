/** Many pictures on one. */
import { libvips } from './libvips.ts'

/** Grey of what lies between the pictures, and where there is none. */
const ground = 0x18
/** Pixels between two pictures, and around all. */
const gap = 4

export interface Sheet {
  /** RGB, 8 bits each, row by row. */
  rgb: Uint8Array
  width: number
  height: number
}

/**
 * Pictures in rows, each as large as its cell lets it be.
 * @param count cells, some of which may stay empty
 * @param picture the file of a cell; undefined for an empty one
 * @param side pixels of a cell's side
 */
export async function sheetOf(
  count: number,
  picture: (cell: number) => Promise<Uint8Array | undefined>,
  { columns, side }: { columns: number; side: number },
): Promise<Sheet> {
  const sharp = await libvips()
  const rows = Math.ceil(count / columns)
  const width = columns * (side + gap) + gap
  const height = rows * (side + gap) + gap
  const rgb = new Uint8Array(width * height * 3).fill(ground)
  for (let cell = 0; cell < count; cell++) {
    const file = await picture(cell)
    if (!file) continue
    const small = await sharp(file)
      .resize(side, side, { fit: 'contain', background: { r: ground, g: ground, b: ground } })
      .flatten({ background: { r: ground, g: ground, b: ground } })
      .toColourspace('srgb')
      .raw({ depth: 'uchar' })
      .toBuffer()
    const left = (cell % columns) * (side + gap) + gap
    const top = Math.floor(cell / columns) * (side + gap) + gap
    for (let row = 0; row < side; row++) rgb.set(small.subarray(row * side * 3, (row + 1) * side * 3), ((top + row) * width + left) * 3)
  }
  return { rgb, width, height }
}
