/**
 * Compresses the pixels of a PNG in a thread: it takes tens of milliseconds, in which the event loop would hand the
 * device nothing. Plain JavaScript, because Node loads it without the compiler of the main thread.
 */
import { encode } from 'fast-png'

/**
 * A PNG without texts of RGB or RGBA pixels, 8 bits each.
 * @param {{ pixels: Uint8Array, width: number, height: number }} picture
 */
export default ({ pixels, width, height }) =>
  encode({ width, height, data: pixels, channels: /** @type {3 | 4} */ (pixels.length / (width * height)), depth: 8 })
