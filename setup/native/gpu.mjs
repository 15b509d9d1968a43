/** The suites of the native core for a machine with a GPU. */
import { copyFileSync, existsSync, mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { platform } from '../../host/places.mjs'
import { findCompiler } from '../../host/programs.mjs'
import { failure } from '../failure.mjs'
import { build, headers, native, noCompiler } from './build.mjs'
import { ensureVkd3d, libraries, unpackDebian } from './debian.mjs'

/** @typedef {import('../say.mjs').Say} Say */

/**
 * A folder with all that a machine with a GPU needs to run the suites, a few MB.
 * @param {string} home @param {Say} say @returns {Promise<string>}
 */
export async function packForGpu(home, say) {
  if (!findCompiler()) throw failure(noCompiler)
  const stack = await ensureVkd3d(home, say)
  if ('reason' in stack) throw failure(`The suite of d3d12 needs vkd3d: ${stack.reason}`)
  // NVIDIA's Vulkan driver answers nothing where the dispatch library of GLVND is missing, as it is in a bare
  // container.
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
  copyFileSync(join(native, 'test', 'run-on-gpu.sh'), join(folder, 'run.sh'))
  return folder
}
