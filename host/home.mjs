/** The two folders that everything starts from. */
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The repository's own folder: where `redis/`, `python/` and the embedded models lie. */
export const root = resolve(fileURLToPath(new URL('..', import.meta.url)))

/**
 * Where set-up keeps what it fetched: `DARKROOM_HOME`, else `darkroom` in the user's cache folder.
 * @param {NodeJS.ProcessEnv} [env]
 */
export const homeFolder = (env = process.env) =>
  resolve(env['DARKROOM_HOME'] || join(env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'darkroom'))

/** @param {string} path @returns {string} the path as a person writes it */
export const shown = (path) => (path.startsWith(`${homedir()}/`) ? `~${path.slice(homedir().length)}` : path)
