/** The folders that everything starts from. */
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { BadPlace, uid } from './own-folder.mjs'

/** The repository's own folder: where `redis/`, `python/` and the embedded models lie. */
export const root = resolve(fileURLToPath(new URL('..', import.meta.url)))

/** @returns {string | undefined} this user's own folder; a container's user may have none */
function userFolder() {
  try {
    return homedir() || undefined
  } catch {
    return undefined
  }
}

/**
 * A folder for this user: in the one that the environment variable `base` names, else under the user's own.
 * @param {NodeJS.ProcessEnv} env @param {string} base @param {string} below
 * @param {string} setting which chooses another
 * @throws BadPlace when there is none
 */
function standardFolder(env, base, below, setting) {
  const named = env[base]
  if (named) return join(named, 'darkroom')
  const user = env['HOME'] || userFolder()
  if (user) return join(user, below, 'darkroom')
  throw new BadPlace(`HOME is not set, and user ${uid} has no folder of its own. Set HOME, or choose a folder with ${setting}.`)
}

/**
 * A path whose leading `~` is this user's own folder.
 * @param {string} path
 * @throws BadPlace when it has one, and the user has no folder
 */
export function expandUser(path) {
  if (!/^~(?=$|[/\\])/.test(path)) return path
  const user = process.env['HOME'] || userFolder()
  if (user) return join(user, path.slice(1))
  throw new BadPlace(`HOME is not set, and user ${uid} has no folder of its own for ${path}. Set HOME, or name the whole path.`)
}

/**
 * Where set-up keeps what it fetched: `DARKROOM_HOME`, else `darkroom` in the user's cache folder.
 * @param {NodeJS.ProcessEnv} [env]
 * @throws BadPlace
 */
export const homeFolder = (env = process.env) =>
  resolve(env['DARKROOM_HOME'] || standardFolder(env, 'XDG_CACHE_HOME', '.cache', 'DARKROOM_HOME'))

/**
 * Where a farm keeps its data unless DARKROOM_DATA names another folder.
 * @param {NodeJS.ProcessEnv} [env]
 * @throws BadPlace
 */
export const dataFolder = (env = process.env) => standardFolder(env, 'XDG_DATA_HOME', join('.local', 'share'), 'DARKROOM_DATA')

/** @param {string} path @returns {string} the path as a person writes it */
export function shown(path) {
  const user = userFolder()
  return user !== undefined && path.startsWith(`${user}/`) ? `~${path.slice(user.length)}` : path
}
