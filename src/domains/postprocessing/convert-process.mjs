/**
 * A process that writes one picture in another format and ends. Its first argument is `{ format, quality, maxBytes,
 * background, keepsExif }`; stdin is a PNG. Answers `{ width, height, quality, fileBytes }`, and behind it the file; of
 * a file that is larger than `maxBytes` even at the least quality its bytes alone. Of a PNG, which the product has a
 * writer of its own for, it answers the pixels, and the quality null.
 */
import { answer, given, libvipsFor } from '../../artifacts/apart.mjs'

const sharp = libvipsFor('Png')

/** From here on the colours of a JPEG are kept at full resolution. */
const fineColours = 90

/**
 * @typedef {object} Asked
 * @property {'jpeg' | 'webp' | 'avif'} format
 * @property {number} quality
 * @property {number} [maxBytes]
 * @property {string} background
 * @property {boolean} keepsExif
 */

/**
 * @param {Buffer} png
 * @param {Asked} asked
 * @param {number} quality
 */
function encoded(png, { format, background, keepsExif }, quality) {
  const picture = sharp(png, { failOn: 'error', limitInputPixels: false })
  const told = keepsExif ? picture.keepExif() : picture
  if (format === 'webp') return told.webp({ quality, effort: 4 }).toBuffer()
  if (format === 'avif') return told.avif({ quality, effort: 4 }).toBuffer()
  const chromaSubsampling = quality >= fineColours ? '4:4:4' : '4:2:0'
  return told.flatten({ background }).jpeg({ quality, chromaSubsampling, mozjpeg: true }).toBuffer()
}

/**
 * @param {Buffer} png
 * @param {Asked} asked
 * @returns {Promise<{ file: Buffer, quality: number }>} the best quality that fits; the least of all where none does
 */
async function fitting(png, asked) {
  const { quality, maxBytes = Number.POSITIVE_INFINITY } = asked
  let found = { file: await encoded(png, asked, quality), quality }
  if (found.file.length <= maxBytes) return found
  // From `high` on all are too large; `low` fits, or is none.
  let [low, high] = [0, quality]
  while (high - low > 1) {
    const middle = (low + high) >> 1
    const file = await encoded(png, asked, middle)
    const fits = file.length <= maxBytes
    if (fits || middle === 1) found = { file, quality: middle }
    if (fits) low = middle
    else high = middle
  }
  return found
}

const { format, ...asked } = JSON.parse(process.argv[2] ?? '{}')
const png = await given()
if (format === 'png') {
  const { data, info } = await sharp(png, { failOn: 'error', limitInputPixels: false })
    .toColourspace('srgb')
    .raw()
    .toBuffer({ resolveWithObject: true })
  answer({ width: info.width, height: info.height, quality: null, fileBytes: 0 }, data)
} else {
  const { width, height } = await sharp(png, { limitInputPixels: false }).metadata()
  const { file, quality } = await fitting(png, { format, ...asked })
  const isOver = asked.maxBytes !== undefined && file.length > asked.maxBytes
  answer({ width, height, quality, fileBytes: file.length }, ...(isOver ? [] : [file]))
}
