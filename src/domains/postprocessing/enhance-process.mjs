/**
 * A process that enhances one picture and ends. Its first argument is what is to be done, as `Enhancement` in
 * `settings.ts` has it; stdin is a PNG of 8 bits, RGB or RGBA. Answers `{ before, after }`, measures, and behind them
 * the pixels, of as many channels. What is transparent stays so.
 */
import { answer, given, libvipsFor } from '../../artifacts/apart.mjs'
import { clippingOf, mix, noiseOf, withGrain } from './pixels.mjs'

const sharp = libvipsFor('Png')

/** @typedef {import('sharp').Sharp} Sharp */
/** @typedef {{ width: number, height: number }} Size */

/**
 * @param {Uint8Array | Uint16Array} values
 * @param {Size} size
 */
const pictureOf = (values, { width, height }) => sharp(values, { raw: { width, height, channels: 3 }, limitInputPixels: false })

/**
 * One operation of libvips, on values of 16 bits, so that one after another rounds nothing away.
 * @param {Uint16Array} rgb
 * @param {Size} size
 * @param {(picture: Sharp) => Sharp} change
 */
async function changed(rgb, size, change) {
  const raw = await change(pictureOf(rgb, size)).toColourspace('rgb16').raw({ depth: 'ushort' }).toBuffer()
  return new Uint16Array(raw.buffer, raw.byteOffset, rgb.length)
}

/** @param {Uint16Array} rgb */
const toBytes = (rgb) => Uint8Array.from(rgb, (value) => Math.round(value / 257))

/**
 * @param {Uint8Array} rgb
 * @param {Size} size
 */
async function measured(rgb, size) {
  const grey = await pictureOf(rgb, size).greyscale().raw().toBuffer()
  const { sharpness } = await pictureOf(rgb, size).stats()
  /** @param {number} value */
  const short = (value) => Math.round(value * 10_000) / 10_000
  const { dark, light } = clippingOf(rgb)
  return { sharpness: short(sharpness), noise: short(noiseOf(grey, size)), clipping: { dark: short(dark), light: short(light) } }
}

/**
 * @param {Uint8Array} rgb
 * @param {Size} size
 * @param {import('./settings.ts').Enhancement} settings
 */
async function enhanced(rgb, size, { denoise = 0, autoLevels = 0, contrast = 0, temperature = 0, saturation = 0, sharpen = 0, grain }) {
  let now = Uint16Array.from(rgb, (value) => value * 257)
  if (denoise > 0) {
    // Up to a half towards the median of 3 × 3 pixels, and from there towards that of 5 × 5.
    const less = await changed(now, size, (picture) => picture.median(3))
    now =
      denoise <= 0.5 ? mix(now, less, 2 * denoise) : mix(less, await changed(now, size, (picture) => picture.median(5)), 2 * denoise - 1)
  }
  if (autoLevels > 0) now = mix(now, await changed(now, size, (picture) => picture.normalise({ lower: 1, upper: 99 })), autoLevels)
  if (contrast !== 0) now = await changed(now, size, (picture) => picture.linear(1 + contrast, -contrast * 32_768))
  if (temperature !== 0) {
    const [red, blue] = [1 + 0.2 * temperature, 1 - 0.2 * temperature]
    // By the shares that colours have in brightness (ITU-R BT.709): a grey keeps its own.
    const brightness = 0.2126 * red + 0.7152 + 0.0722 * blue
    now = await changed(now, size, (picture) => picture.linear([red / brightness, 1 / brightness, blue / brightness], [0, 0, 0]))
  }
  if (saturation !== 0) now = await changed(now, size, (picture) => picture.modulate({ saturation: 1 + saturation }))
  // Flat areas get a sixth of what edges get, so that their noise is hardly raised.
  if (sharpen > 0) now = await changed(now, size, (picture) => picture.sharpen({ sigma: 1, m1: sharpen / 2, m2: 3 * sharpen }))
  if (grain && grain.strength > 0) now = withGrain(now, grain)
  return toBytes(now)
}

const png = sharp(await given(), { failOn: 'error', limitInputPixels: false })
const { data, info } = await png.toColourspace('srgb').raw().toBuffer({ resolveWithObject: true })
const channels = info.channels
/** @type {Uint8Array} */
const rgb = channels === 3 ? data : data.filter((_, i) => i % 4 !== 3)
const made = await enhanced(rgb, info, JSON.parse(process.argv[2] ?? '{}'))
const output = channels === 3 ? made : data.map((alpha, i) => (i % 4 === 3 ? alpha : (made[i - Math.floor(i / 4)] ?? 0)))
answer({ before: await measured(rgb, info), after: await measured(made, info) }, output)
