/** Thumbnails of pictures made here, in a thread of libvips: each lies beside its picture, and goes with it. */
import { libvips } from './libvips.ts'
import { thumbnailOf } from './thumbnail.mjs'

/** Of the file of a picture. @throws Error when it is none */
export async function thumbnailOfFile(picture: Uint8Array): Promise<Uint8Array> {
  const sharp = await libvips()
  return thumbnailOf(sharp(picture, { limitInputPixels: false }))
}

/** Of RGB or RGBA, 8 bits each, row by row: the bytes that `thumbnailOfFile` makes of their PNG. */
export async function thumbnailOfPixels(pixels: Uint8Array, width: number, height: number): Promise<Uint8Array> {
  const sharp = await libvips()
  const channels = pixels.length === width * height * 4 ? 4 : 3
  return thumbnailOf(sharp(pixels, { raw: { width, height, channels }, limitInputPixels: false }))
}
