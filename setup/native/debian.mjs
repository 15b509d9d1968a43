/**
 * What the native addon's tests need beyond a compiler, unpacked from Debian's packages beside the rest, as any user.
 */
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { platform } from '../../host/places.mjs'
import { ask, onPath } from '../../host/programs.mjs'
import { runBound } from '../bound.mjs'
import { lastLines } from '../failure.mjs'
import { makeRoom } from '../room.mjs'

/** @typedef {import('../say.mjs').Say} Say */

/**
 * Debian's packages and what they need and this machine lacks, unpacked into a folder of the home folder.
 * @param {string} home
 * @param {string} name of the folder
 * @param {string[]} packages
 * @param {number} bytes on disk
 * @param {Say} say
 * @returns {Promise<{ folder: string } | { reason: string }>} `reason`: why there are none
 */
export async function unpackDebian(home, name, packages, bytes, say) {
  const folder = join(home, 'native', name)
  const mark = join(folder, 'complete')
  if (existsSync(mark)) return { folder }
  if (onPath('apt-get').length === 0 || onPath('dpkg').length === 0)
    return { reason: `${packages.join(', ')} are not installed, and there is no apt-get` }
  const plan = await ask('apt-get', ['-s', '-y', '--no-install-recommends', 'install', ...packages], {
    env: { ...process.env, LC_ALL: 'C' },
    timeoutMs: 60_000,
  })
  if (plan.code !== 0) return { reason: lastLines(plan.err, 1) || 'apt-get has no package lists; `apt-get update` fetches them' }
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

/** Where a Debian keeps its shared libraries. */
export const libraries = 'usr/lib/x86_64-linux-gnu'
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
export async function ensureVkd3d(home, say) {
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
