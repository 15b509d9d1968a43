/**
 * The native addon and the programs of its tests: built with the machine's C++ compiler and a CMake from PATH, else the
 * `cmake` wheel.
 */
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { root, shown } from '../../host/home.mjs'
import { whileHolding } from '../../host/lock.mjs'
import { pinsIn, platform, readyEnvironment } from '../../host/places.mjs'
import { ask, findCompiler, isExecutable, onPath } from '../../host/programs.mjs'
import { runBound } from '../bound.mjs'
import { causeOf, failure, lastLines } from '../failure.mjs'
import { ensurePython, pipBy } from '../python.mjs'
import { makeRoom } from '../room.mjs'
import { ensureVkd3d, readyVkd3d } from './debian.mjs'

/** @typedef {import('../say.mjs').Say} Say */

/** The addon's sources. */
export const native = join(root, 'native')

/** What `npm test` says where nothing can be compiled. */
export const noCompiler = 'native: not built, no C++ compiler (install g++ or clang)'

/** Where the programs of the tests are, once they are built. `sanitized`: with AddressSanitizer. */
export const testFolder = ({ sanitized = false } = {}) => join(native, 'build', sanitized ? `${platform}-asan` : platform)

/**
 * A CMake of at least 3.18: the one on PATH, else the wheel, installed into the home folder.
 * @param {string} home @param {Say} say
 */
async function ensureCmake(home, say) {
  for (const command of onPath('cmake')) {
    const [, major = 0, minor = 0] = /version (\d+)\.(\d+)/.exec((await ask(command, ['--version'])).out)?.map(Number) ?? []
    if (major > 3 || (major === 3 && minor >= 18)) return command
  }
  const pins = pinsIn(readFileSync(join(root, 'setup', 'native', 'cmake.lock'), 'utf8'))
  const version = (pins[0]?.name ?? '').replace('cmake==', '')
  const folder = join(home, 'cmake', version)
  const command = join(folder, 'cmake', 'data', 'bin', 'cmake')
  if (isExecutable(command)) return command
  const python = process.env['DARKROOM_PYTHON'] || (readyEnvironment({ home }) ?? (await ensurePython({ home }, say))).interpreter
  const part = `${folder}.part`
  rmSync(part, { recursive: true, force: true })
  makeRoom(part, 200e6)
  const pip = pipBy(python, part, runBound)
  const { ok, words } = await say.step(`CMake ${version}`, () => pip(pins, '--target', part))
  if (!ok) throw failure(`There is no CMake on PATH, and pip could not fetch one. ${causeOf(words)}It said:\n${lastLines(words)}`)
  rmSync(folder, { recursive: true, force: true })
  renameSync(part, folder)
  return command
}

/** @param {string} folder @returns {string[]} */
const sources = (folder) =>
  readdirSync(folder, { withFileTypes: true })
    .filter(({ name }) => name !== 'build')
    .flatMap((entry) => (entry.isDirectory() ? sources(join(folder, entry.name)) : [join(folder, entry.name)]))
    .toSorted()

/** @param {Record<string, string>} options @returns {string} what a build is made of, hashed */
function keyOf(options) {
  const hash = createHash('sha256').update(JSON.stringify([options, process.env['CXX'] ?? '']))
  for (const file of [...sources(native), join(root, 'package-lock.json')]) hash.update(`${file}\0`).update(readFileSync(file))
  return hash.digest('hex')
}

/** @param {string} folder @returns {boolean} false when the checkout was moved or copied since it was configured */
function isOfHere(folder) {
  const cache = join(folder, 'CMakeCache.txt')
  return !existsSync(cache) || readFileSync(cache, 'utf8').includes(`CMAKE_HOME_DIRECTORY:INTERNAL=${native}\n`)
}

/**
 * Configures and builds, unless the sources and the options are those of the last time. `orElse`: options of a build
 * that holds more and will do as well.
 * @param {{ home: string, folder: string, title: string, options: Record<string, string>, orElse?: Record<string,
 *   string>, env?: NodeJS.ProcessEnv }} what
 * @param {Say} say
 * @throws SetupFailure with the compiler's own words
 */
export async function build({ home, folder, title, options, orElse, env = process.env }, say) {
  const key = keyOf(options)
  const enough = [key, ...(orElse ? [keyOf(orElse)] : [])]
  const mark = join(folder, 'complete')
  const isDone = () => existsSync(mark) && enough.includes(readFileSync(mark, 'utf8'))
  if (isDone()) return
  await whileHolding(
    folder,
    'native',
    async () => {
      if (isDone()) return
      const cmake = await ensureCmake(home, say)
      // What a build left that was cut short may be half an archive, which make takes for a whole one. CMake goes on
      // with nothing that was made of sources elsewhere.
      if (!existsSync(mark) || !isOfHere(folder)) rmSync(folder, { recursive: true, force: true })
      mkdirSync(folder, { recursive: true })
      rmSync(mark, { force: true })
      const log = join(folder, 'build.log')
      writeFileSync(log, '')
      const parallel = process.env['CMAKE_BUILD_PARALLEL_LEVEL'] || String(availableParallelism())
      const bound = { log, env: { ...env, CMAKE_BUILD_PARALLEL_LEVEL: parallel } }
      const definitions = Object.entries(options).map(([name, value]) => `-D${name}=${value}`)
      await say.step(title, async () => {
        for (const args of [
          ['-S', native, '-B', folder, ...definitions],
          ['--build', folder],
        ]) {
          const { ok, words } = await runBound(cmake, args, bound)
          if (!ok) throw failure(`The native addon cannot be built. It said:\n${lastLines(words, 25)}\nAll of it is in ${shown(log)}.`)
        }
      })
      writeFileSync(mark, key)
    },
    (holder) => say.line(`Another set-up${holder} is building the native addon; waiting for it.`),
  )
}

/**
 * The addon, for this machine, when it can be built.
 * @param {string} home @param {Say} say
 * @returns {Promise<boolean>} false without a compiler
 */
export async function ensureNative(home, say) {
  if (!findCompiler()) return false
  const options = { ...headers(home), DARKROOM_TESTS: 'OFF' }
  const orElse = { ...options, DARKROOM_TESTS: 'ON' }
  await build({ home, folder: join(native, 'build', platform), title: 'native addon', options, orElse }, say)
  return true
}

/** @param {string} home @returns {Record<string, string>} */
export function headers(home) {
  const stack = readyVkd3d(home)
  return stack ? { DARKROOM_VKD3D: stack.folder } : {}
}

/**
 * The addon and the programs of its tests, plain and with AddressSanitizer.
 * @param {string} home @param {Say} say
 * @returns {Promise<{ isBuilt: boolean, notes: string[] }>} `notes`: what was not done, and why
 */
export async function ensureNativeTests(home, say) {
  if (!findCompiler()) return { isBuilt: false, notes: [noCompiler] }
  const stack = await ensureVkd3d(home, say)
  const options = { ...headers(home), DARKROOM_TESTS: 'ON' }
  await build({ home, folder: testFolder(), title: 'native addon and its tests', options }, say)
  if (process.platform === 'linux') {
    const sanitized = { ...options, DARKROOM_ASAN: 'ON', CMAKE_BUILD_TYPE: 'None' }
    await build({ home, folder: testFolder({ sanitized: true }), title: 'the same with AddressSanitizer', options: sanitized }, say)
  }
  return { isBuilt: true, notes: 'reason' in stack ? [`native: d3d12 not run, ${stack.reason}`] : [] }
}
