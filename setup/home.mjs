import { accessSync, constants, mkdirSync, statfsSync } from 'node:fs'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { failure } from './failure.mjs'

/** The repository's own folder. */
export const root = resolve(fileURLToPath(new URL('..', import.meta.url)))

/**
 * Where set-up keeps what it fetched: `DARKROOM_HOME`, else `darkroom` in the user's cache folder.
 * @param {NodeJS.ProcessEnv} [env]
 */
export const homeFolder = (env = process.env) =>
  resolve(env['DARKROOM_HOME'] || join(env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'darkroom'))

/** @param {string} path @returns {string} the path as a person writes it */
export const shown = (path) => (path.startsWith(`${homedir()}/`) ? `~${path.slice(homedir().length)}` : path)

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
