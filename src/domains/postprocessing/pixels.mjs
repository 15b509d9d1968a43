/**
 * What libvips has no operation for, on raw values in whole numbers: equal on every machine. Plain JavaScript, because
 * the process that enhances pictures starts without a compiler.
 */

/**
 * The most a value of 16 bits has; of 8 bits times 257.
 */
const most = 65_535

/**
 * Part of the way from one picture to another.
 * @param {Uint16Array} from
 * @param {Uint16Array} to
 * @param {number} share 0 to 1
 */
export function mix(from, to, share) {
  const parts = Math.round(share * 256)
  const mixed = new Uint16Array(from.length)
  for (let i = 0; i < from.length; i++) {
    const [a, b] = [from[i] ?? 0, to[i] ?? 0]
    mixed[i] = a + Math.round(((b - a) * parts) / 256)
  }
  return mixed
}

/**
 * Grain: noise of one brightness for all colours of a pixel, of a normal distribution's shape (the sum of four uniform
 * numbers), whose deviation is a tenth of the range at strength 1.
 * @param {Uint16Array} rgb
 * @param {{ strength: number, seed: number }} grain
 */
export function withGrain(rgb, { strength, seed }) {
  const next = randomFrom(seed)
  // Four bytes have a mean of 510 together, and a deviation of 147.8.
  const scale = Math.round(((strength * most) / 10 / 147.8) * 256)
  const grained = new Uint16Array(rgb.length)
  for (let i = 0; i < rgb.length; i += 3) {
    const bits = next()
    const sum = (bits & 255) + ((bits >>> 8) & 255) + ((bits >>> 16) & 255) + (bits >>> 24)
    const noise = Math.round(((sum - 510) * scale) / 256)
    for (let j = i; j < i + 3; j++) grained[j] = Math.max(0, Math.min(most, (rgb[j] ?? 0) + noise))
  }
  return grained
}

/**
 * Numbers of 32 bits, the same ones for a seed: mulberry32 by Tommy Ettinger, begun from both halves of the seed.
 * @param {number} seed a whole number up to 2^53
 */
function randomFrom(seed) {
  let state = (Math.imul(Math.floor(seed / 2 ** 32), 0x9e3779b1) ^ (seed >>> 0)) | 0
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let bits = Math.imul(state ^ (state >>> 15), state | 1)
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61)
    return (bits ^ (bits >>> 14)) >>> 0
  }
}

/**
 * The deviation of a picture's noise, in levels of 255 (J. Immerkær, Fast Noise Variance Estimation, 1996): the mean of
 * what a mask leaves that is blind to edges and slopes. 0 for a picture that is smaller than the mask.
 * @param {Uint8Array} grey brightness, row by row
 * @param {{ width: number, height: number }} size
 */
export function noiseOf(grey, { width, height }) {
  if (width < 3 || height < 3) return 0
  let sum = 0
  for (let y = 1; y < height - 1; y++)
    for (let x = 1; x < width - 1; x++) {
      const at = y * width + x
      /** @param {number} row */
      const ends = (row) => (grey[row - 1] ?? 0) + (grey[row + 1] ?? 0) - 2 * (grey[row] ?? 0)
      sum += Math.abs(ends(at - width) + ends(at + width) - 2 * ends(at))
    }
  return (Math.sqrt(Math.PI / 2) * sum) / (6 * (width - 2) * (height - 2))
}

/**
 * Shares of the values that are 0, and 255.
 * @param {Uint8Array} values
 */
export function clippingOf(values) {
  let [dark, light] = [0, 0]
  for (const value of values) {
    if (value === 0) dark++
    else if (value === 255) light++
  }
  return { dark: dark / values.length, light: light / values.length }
}
