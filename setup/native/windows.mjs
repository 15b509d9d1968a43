/** The native addon for Windows x64, from Linux. */
import { delimiter, join } from 'node:path'
import { onPath } from '../../host/programs.mjs'
import { failure } from '../failure.mjs'
import { build, native } from './build.mjs'
import { unpackDebian } from './debian.mjs'

/** @typedef {import('../say.mjs').Say} Say */

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
