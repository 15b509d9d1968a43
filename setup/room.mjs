/** Room for what set-up fetches. */
import { accessSync, constants, mkdirSync, statfsSync } from 'node:fs'
import { shown } from '../host/home.mjs'
import { failure } from './failure.mjs'

/**
 * Makes a folder inside the home folder, before anything is fetched into it.
 * @param {string} folder @param {number} [bytes] what will be written there
 * @throws SetupFailure when it cannot be written, or has less room than that
 */
export function makeRoom(folder, bytes = 0) {
  try {
    mkdirSync(folder, { recursive: true })
    accessSync(folder, constants.W_OK)
  } catch (error) {
    throw failure(
      `${shown(folder)} cannot be written (${/** @type {Error} */ (error).message}). Set DARKROOM_HOME to a folder of your own.`,
    )
  }
  const { bavail, bsize, blocks } = statfsSync(folder)
  // Some file systems do not say how large they are.
  if (blocks > 0 && bavail * bsize < bytes) {
    const [needed, free] = [bytes, bavail * bsize].map((number) => `${(number / 1e9).toFixed(1)} GB`)
    throw failure(
      `${shown(folder)} needs ${needed}, and its disk has ${free} free. Free some, or set DARKROOM_HOME to a folder on another disk.`,
    )
  }
}
