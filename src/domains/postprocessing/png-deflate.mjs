/** How the rows of a PNG are deflated, and whose work that is. Plain JavaScript, as the threads that do it. */
import { createHash } from 'node:crypto'
import { constants, deflateRawSync } from 'node:zlib'

/** Behind its filter a drawn picture has few strings that come again; runs and frequent bytes are found fast. */
const runs = { level: 3, strategy: constants.Z_RLE }

/**
 * A raw stream (RFC 1951) of these bytes, with zlib's defaults: a window of 32 KiB, blocks of 16,384 symbols. It finds
 * runs by comparing bytes, not by hashes that differ from CPU to CPU; so it is the same on all of them.
 * @param {Uint8Array} bytes
 * @param {boolean} isLast else it ends at a whole byte, and another one may stand behind it
 */
export const deflated = (bytes, isLast) =>
  deflateRawSync(bytes, { ...runs, chunkSize: bytes.length + 1024, finishFlush: isLast ? constants.Z_FINISH : constants.Z_SYNC_FLUSH })

/** Bytes of each kind in the sample: two blocks. */
const sampleBytes = 32_768

/**
 * What this zlib makes of a sample of noise, of small numbers and of runs, as the first 8 hex digits of its SHA-256:
 * one that made other bytes would be another writer of PNGs.
 */
export function zlibDigest() {
  const sample = new Uint8Array(3 * sampleBytes)
  for (let at = 0, state = 1; at < sample.length; at++) {
    // Numerical Recipes, 3rd edition, §7.1: the quick and dirty generator.
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    const high = state >>> 24
    const low = (state >>> 16) & 255
    if (at < sampleBytes) sample[at] = high
    else if (at < 2 * sampleBytes) sample[at] = (high & 15) - (low & 15)
    else sample[at] = high < 4 ? low : (sample[at - 1] ?? 0)
  }
  const hash = createHash('sha256')
  for (const isLast of [false, true]) hash.update(deflated(sample, isLast))
  return hash.digest('hex').slice(0, 8)
}
