/** The npm packages: `npm ci` when node_modules does not hold what package-lock.json names. */
import { spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { failure } from './failure.mjs'
import { whileHolding } from './lock.mjs'
import { onPath } from './redis.mjs'

/** @typedef {{ packages?: Record<string, { version?: string, integrity?: string, optional?: boolean }> }} Lock */

/**
 * npm writes node_modules/.package-lock.json last, so one that agrees with the lock means that everything is in place.
 * @param {string} root
 */
export function isInstalled(root) {
  const read = (/** @type {string} */ path) => /** @type {Lock} */ (JSON.parse(readFileSync(join(root, path), 'utf8'))).packages ?? {}
  try {
    const wanted = read('package-lock.json')
    const installed = read('node_modules/.package-lock.json')
    return Object.entries(wanted).every(([path, entry]) => {
      if (path === '') return true
      const found = installed[path]
      // Packages for other platforms are optional and stay away.
      if (!found) return entry.optional === true
      return found.version === entry.version && found.integrity === entry.integrity && existsSync(join(root, path))
    })
  } catch {
    return false
  }
}

/** @param {string} root @param {import('./say.mjs').Say} say */
export async function ensurePackages(root, say) {
  if (isInstalled(root)) return
  await whileHolding(
    root,
    'npm',
    async () => {
      if (isInstalled(root)) return
      say.line('Fetching the npm packages: about 60 MB into node_modules, some seconds beside a fast mirror.')
      await say.step('npm ci', () => npmCi(root))
    },
    (pid) => say.line(`Another set-up (pid ${String(pid)}) is fetching the npm packages; waiting for it.`),
  )
}

/** @param {string} root @returns {Promise<void>} */
function npmCi(root) {
  const { npm_execpath: script } = process.env
  const program = script?.endsWith('.js') ? [process.execPath, script] : [onPath('npm')[0]]
  if (!program[0]) throw failure('there is no npm on PATH: install Node.js with npm, https://nodejs.org')
  const [command, ...before] = /** @type {string[]} */ (program)
  return new Promise((settle, fail) => {
    const child = spawn(/** @type {string} */ (command), [...before, 'ci', '--no-audit', '--no-fund', '--loglevel=error'], {
      cwd: root,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let words = ''
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (chunk) => (words = (words + chunk).slice(-4000)))
    child.on('error', (error) => fail(failure(`npm cannot be started: ${error.message}`)))
    child.on('close', (code) => (code === 0 ? settle() : fail(failure(`npm ci failed (code ${String(code)}):\n${words.trim()}`))))
  })
}
