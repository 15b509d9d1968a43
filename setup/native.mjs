#!/usr/bin/env node
/**
 * The native addon: built with the machine's C++ compiler and a CMake from PATH, else the `cmake` wheel. What its tests need beyond that
 * (Direct3D 12 over a software Vulkan, a compiler for Windows) is unpacked from Debian's packages beside the rest, as any user.
 *
 *   node setup/native.mjs build | test | windows | gpu
 */
import { createHash } from 'node:crypto'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { availableParallelism } from 'node:os'
import { delimiter, join, resolve } from 'node:path'
import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { SetupFailure, causeOf, failure, lastLines } from './failure.mjs'
import { homeFolder, root, shown } from '../host/home.mjs'
import { whileHolding } from '../host/lock.mjs'
import { ensurePackages } from './npm.mjs'
import { platform, readyEnvironment } from '../host/places.mjs'
import { ask, findCompiler, isExecutable, onPath } from '../host/programs.mjs'
import { runBound } from './bound.mjs'
import { ensurePython } from './python.mjs'
import { makeRoom } from './room.mjs'
import { speaker } from './say.mjs'

/** @typedef {import('./say.mjs').Say} Say */

const native = join(root, 'native')
const cmakeWheel = '4.4.5'

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
  const folder = join(home, 'cmake', cmakeWheel)
  const command = join(folder, 'cmake', 'data', 'bin', 'cmake')
  if (isExecutable(command)) return command
  const python = process.env['DARKROOM_PYTHON'] || (readyEnvironment({ home }) ?? (await ensurePython({ home }, say))).interpreter
  const part = `${folder}.part`
  rmSync(part, { recursive: true, force: true })
  makeRoom(part, 200e6)
  const args = ['-m', 'pip', 'install', '--disable-pip-version-check', '--no-input', '--no-deps', '--target', part, `cmake==${cmakeWheel}`]
  const { ok, words } = await say.step(`CMake ${cmakeWheel}`, () => runBound(python, args))
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

/**
 * Configures and builds, unless the sources and the options are those of the last time. `orElse`: options of a build that holds more and
 * will do as well.
 * @param {{ home: string, folder: string, title: string, options: Record<string, string>, orElse?: Record<string, string>, env?: NodeJS.ProcessEnv }} what
 * @param {Say} say
 * @throws SetupFailure with the compiler's own words
 */
async function build({ home, folder, title, options, orElse, env = process.env }, say) {
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
 * Debian's packages and what they need and this machine lacks, unpacked into a folder of the home folder.
 * @param {string} home @param {string} name of the folder @param {string[]} packages @param {number} bytes on disk @param {Say} say
 * @returns {Promise<{ folder: string } | { reason: string }>} `reason`: why there are none
 */
async function unpackDebian(home, name, packages, bytes, say) {
  const folder = join(home, 'native', name)
  const mark = join(folder, 'complete')
  if (existsSync(mark)) return { folder }
  if (onPath('apt-get').length === 0 || onPath('dpkg').length === 0)
    return { reason: `${packages.join(', ')} are not here, and no apt-get` }
  const plan = await ask('apt-get', ['-s', '-y', '--no-install-recommends', 'install', ...packages], {
    env: { ...process.env, LC_ALL: 'C' },
    timeoutMs: 60_000,
  })
  if (plan.code !== 0) return { reason: lastLines(plan.err, 1) || 'apt-get knows no packages; `apt-get update` fetches its lists' }
  // A line with the old version in brackets is an upgrade: what is here will do.
  const missing = [...plan.out.matchAll(/^Inst (\S+) \(/gm)].map(([, wanted = '']) => wanted)
  const part = `${folder}.part`
  rmSync(part, { recursive: true, force: true })
  makeRoom(part, bytes)
  const debs = join(part, 'debs')
  mkdirSync(debs)
  if (missing.length > 0) {
    const { ok, words } = await say.step(`${missing.length} packages of Debian for ${name}`, () =>
      runBound('apt-get', ['download', ...missing], { cwd: debs }),
    )
    if (!ok) return { reason: `apt-get could not fetch its packages: ${lastLines(words, 1)}` }
  }
  for (const deb of readdirSync(debs)) {
    const { ok, words } = await runBound('dpkg', ['-x', join(debs, deb), part])
    if (!ok) return { reason: lastLines(words, 1) }
  }
  rmSync(debs, { recursive: true })
  writeFileSync(join(part, 'complete'), '')
  rmSync(folder, { recursive: true, force: true })
  renameSync(part, folder)
  return { folder }
}

const libraries = 'usr/lib/x86_64-linux-gnu'
const vkd3dPackages = ['libvkd3d1', 'libvkd3d-shader1', 'libvkd3d-dev', 'libvulkan1', 'libvulkan-dev', 'mesa-vulkan-drivers']

/**
 * Direct3D 12 on Linux: vkd3d over Mesa's software Vulkan driver. Fetches nothing.
 * @param {string} home
 * @returns {{ folder: string, env: Record<string, string> } | undefined} `env`: what a program that uses it needs
 */
export function readyVkd3d(home) {
  const folder = join(home, 'native', 'vkd3d')
  const driver = join(folder, 'lvp_icd.json')
  if (!existsSync(join(folder, 'complete')) || !existsSync(driver)) return undefined
  return { folder, env: { LD_LIBRARY_PATH: join(folder, libraries), VK_DRIVER_FILES: driver, VK_ICD_FILENAMES: driver } }
}

/** @param {string} home @param {Say} say @returns {Promise<{ folder: string } | { reason: string }>} */
async function ensureVkd3d(home, say) {
  if (platform !== 'linux-x64') return { reason: `vkd3d is fetched for linux-x64, not for ${platform}` }
  const found = await unpackDebian(home, 'vkd3d', vkd3dPackages, 300e6, say)
  if ('reason' in found) return found
  // The driver's own description names the system's folders.
  const own = join(found.folder, libraries, 'libvulkan_lvp.so')
  const library = existsSync(own) ? own : `/${libraries}/libvulkan_lvp.so`
  if (!existsSync(library)) return { reason: 'there is no software Vulkan driver in mesa-vulkan-drivers' }
  const ICD = { library_path: library, api_version: '1.1.0' }
  writeFileSync(join(found.folder, 'lvp_icd.json'), JSON.stringify({ file_format_version: '1.0.0', ICD }))
  return found
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
function headers(home) {
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

const mingwPackages = ['g++-mingw-w64-x86-64-posix']
const mingw = 'x86_64-w64-mingw32-g++-posix'

/**
 * The addon and its tests for Windows x64, from Linux.
 * @param {string} home @param {Say} say @returns {Promise<string>} the folder
 */
export async function buildForWindows(home, say) {
  let env = process.env
  if (onPath(mingw).length === 0) {
    const found = await unpackDebian(home, 'mingw', mingwPackages, 600e6, say)
    if ('reason' in found)
      throw failure(`There is no ${mingw} on PATH (Debian: g++-mingw-w64-x86-64), and it cannot be fetched: ${found.reason}`)
    env = { ...env, PATH: [join(found.folder, 'usr', 'bin'), env['PATH']].join(delimiter) }
  }
  const folder = join(native, 'build', 'windows-x64')
  const options = {
    CMAKE_TOOLCHAIN_FILE: join(native, 'cmake', 'mingw-x64.cmake'),
    CMAKE_BUILD_TYPE: 'Release',
    DARKROOM_TESTS: 'ON',
  }
  await build({ home, folder, title: 'native addon for Windows', options, env }, say)
  return folder
}

const gpuScript = `#!/bin/sh
# The suites and the copy rates of the native core on a real GPU: sh run.sh [MIB=1024]. Needs nothing but the GPU's driver.
# Ends with 0 when every suite passed on cuda and d3d12 and the rates are good, with 1 otherwise.
here=$(cd "$(dirname "$0")" && pwd)
LD_LIBRARY_PATH="$here/lib\${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export LD_LIBRARY_PATH
if [ -z "\${VK_DRIVER_FILES:-}" ]; then
  # Where a container has the driver, its description may lie outside the loader's folders.
  for file in /etc/vulkan/icd.d/nvidia_icd.json /usr/share/vulkan/icd.d/nvidia_icd.json /usr/local/nvidia/share/vulkan/icd.d/nvidia_icd.json; do
    if [ -f "$file" ]; then VK_DRIVER_FILES=$file VK_ICD_FILENAMES=$file && export VK_DRIVER_FILES VK_ICD_FILENAMES && break; fi
  done
fi
failed=0
check() {
  echo "== $*"
  "$here/bin/$@" || { echo "$* ended with $?"; failed=1; }
}
for backend in cuda d3d12; do
  check native_test $backend
  check native_bench $backend "\${1:-1024}"
done
[ $failed = 0 ] && echo "all good on the GPU" || echo "NOT all good on the GPU"
exit $failed
`

/**
 * A folder with all that a machine with a GPU needs to run the suites, a few MB.
 * @param {string} home @param {Say} say @returns {Promise<string>}
 */
export async function packForGpu(home, say) {
  if (!findCompiler()) throw failure(noCompiler)
  const stack = await ensureVkd3d(home, say)
  if ('reason' in stack) throw failure(`The suite of d3d12 needs vkd3d: ${stack.reason}`)
  // NVIDIA's Vulkan driver answers nothing where the dispatch library of GLVND is missing, as it is in a bare container.
  const glvnd = await unpackDebian(home, 'glvnd', ['libglvnd0', 'libglx0', 'libegl1', 'libx11-6', 'libxext6'], 20e6, say)
  if ('reason' in glvnd) throw failure(`NVIDIA's Vulkan driver needs libglvnd: ${glvnd.reason}`)
  const folder = join(native, 'build', 'gpu')
  const built = join(native, 'build', `${platform}-gpu`)
  const options = { DARKROOM_ADDON: 'OFF', DARKROOM_TESTS: 'ON', CMAKE_BUILD_TYPE: 'Release', ...headers(home) }
  await build({ home, folder: built, title: 'suites for the GPU', options }, say)
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(join(folder, 'bin'), { recursive: true })
  mkdirSync(join(folder, 'lib'))
  for (const program of ['native_test', 'native_bench']) copyFileSync(join(built, program), join(folder, 'bin', program))
  for (const library of ['libvkd3d.so.1', 'libvkd3d-shader.so.1', 'libvulkan.so.1', 'libGLdispatch.so.0', 'libGLX.so.0', 'libEGL.so.1']) {
    const places = [stack.folder, glvnd.folder, '/'].map((place) => join(place, libraries, library))
    const found = places.find((place) => existsSync(place))
    if (found === undefined) throw failure(`${library} is in none of ${places.join(', ')}`)
    copyFileSync(found, join(folder, 'lib', library))
  }
  writeFileSync(join(folder, 'run.sh'), gpuScript)
  chmodSync(join(folder, 'run.sh'), 0o755)
  return folder
}

/** @param {string} command @param {string[]} args @returns {Promise<number>} */
const run = (command, args) =>
  new Promise((settle, fail) => {
    const child = spawn(command, args, { stdio: 'inherit', cwd: root })
    child.on('error', fail)
    child.on('exit', (code) => settle(code ?? 1))
  })

/** @param {string} folder */
const sizes = (folder) =>
  readdirSync(folder)
    .filter((name) => /\.(node|exe)$/.test(name))
    .map((name) => `  ${join(shown(folder), name)}  ${Math.round(statSync(join(folder, name)).size / 1024)} KB`)
    .join('\n')

/** @type {Record<string, (home: string, say: Say, args: string[]) => Promise<number>>} */
const commands = {
  async build(home, say) {
    if (!(await ensureNative(home, say))) throw failure(noCompiler)
    say.line(sizes(testFolder()))
    return 0
  },
  async test(home, say, args) {
    const { isBuilt, notes } = await ensureNativeTests(home, say)
    const code = isBuilt ? await run(join(root, 'node_modules', '.bin', 'vitest'), ['run', '--project', 'native', ...args]) : 1
    for (const note of notes) say.line(note)
    return code
  },
  async windows(home, say) {
    say.line(sizes(await buildForWindows(home, say)))
    return 0
  },
  async gpu(home, say, args) {
    const folder = await packForGpu(home, say)
    const script = join(folder, 'run.sh')
    if (!existsSync('/proc/driver/nvidia/version')) {
      say.line(`There is no NVIDIA driver here. Take ${shown(folder)} to a machine that has one, and there: sh run.sh`)
      return 1
    }
    return run('sh', [script, ...args])
  },
}

async function main() {
  const [name = '', ...args] = process.argv.slice(2)
  const command = commands[name]
  if (!command) throw failure(`usage: node setup/native.mjs ${Object.keys(commands).join(' | ')}`)
  const say = speaker()
  await ensurePackages(root, say)
  process.exitCode = await command(homeFolder(), say, args)
}

if (process.argv[1] && resolve(process.argv[1]) === fileURLToPath(import.meta.url))
  main().catch((error) => {
    process.stderr.write(error instanceof SetupFailure ? `\n${error.message}\n` : `\n${error?.stack ?? error}\n`)
    process.exitCode = 1
  })
