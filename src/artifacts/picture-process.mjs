/**
 * A process that decodes one picture and ends. Plain JavaScript, because it starts without a compiler.
 *
 * Reads the file from stdin. Answers `{ problem, message }` or `{ width, height, hasAlpha, thumbnailBytes }`, and
 * behind the latter its thumbnail, then a PNG: upright, sRGB, 8 bits, RGB, or RGBA where anything is transparent.
 */
import { answer, given, libvipsFor } from './apart.mjs'
import { thumbnailOf } from './thumbnail.mjs'

const maxPixels = Number(process.argv[2])
/** Seconds of libvips' own; whoever started this process waits a little longer. */
const seconds = Number(process.argv[3])

const sharp = libvipsFor('Png', 'Jpeg', 'Webp', 'Heif')

/** @param {Buffer} bytes */
async function decode(bytes) {
  const { width, height, pages = 1 } = await sharp(bytes, { limitInputPixels: false }).metadata()
  if (width * height > maxPixels)
    return answer({ problem: 'too_many_pixels', message: `${width} × ${height} pixels, and ${maxPixels} are the most` })
  if (pages > 1) return answer({ problem: 'animated', message: `${pages} frames` })
  const options = { failOn: /** @type {const} */ ('error'), limitInputPixels: maxPixels }
  const { data, info } = await sharp(bytes, options)
    .autoOrient()
    .toColourspace('srgb')
    .raw({ depth: 'uchar' })
    .timeout({ seconds })
    .toBuffer({ resolveWithObject: true })
  const hasAlpha = info.channels === 4 && isTransparent(data)
  const raw = { width: info.width, height: info.height, channels: info.channels }
  const upright = sharp(data, { raw, limitInputPixels: maxPixels })
  const whole = hasAlpha ? upright : upright.removeAlpha()
  const png = await whole.clone().png({ compressionLevel: 6, adaptiveFiltering: true }).toBuffer()
  const thumbnail = await thumbnailOf(whole)
  return answer({ width: info.width, height: info.height, hasAlpha, thumbnailBytes: thumbnail.length }, thumbnail, png)
}

/** @param {Buffer} rgba */
function isTransparent(rgba) {
  for (let at = 3; at < rgba.length; at += 4) if (rgba[at] !== 255) return true
  return false
}

await decode(await given()).catch((error) => answer({ problem: 'broken', message: String(error?.message ?? error).slice(0, 300) }))
