/**
 * A browser for the tests of the page: `DARKROOM_CHROMIUM`, else one on PATH, else the headless shell inside the npm
 * package `@sparticuz/chromium` (MIT, Linux x86_64), used as an archive: nothing of it is installed or run but the
 * binary, and that needs glibc alone. Only tests fetch it.
 */
import { createHash } from 'node:crypto'
import {
  chmodSync,
  createReadStream,
  createWriteStream,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join, resolve, sep } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { brotliDecompressSync, createBrotliDecompress, gunzipSync } from 'node:zlib'
import { homeFolder, shown } from '../host/home.mjs'
import { whileHolding } from '../host/lock.mjs'
import { isExecutable, onPath } from '../host/programs.mjs'
import { failure } from './failure.mjs'
import { npm } from './npm.mjs'
import { makeRoom } from './room.mjs'
import { speaker } from './say.mjs'

const archive = {
  name: '@sparticuz/chromium',
  version: '153.0.0',
  integrity: 'sha512-jiGWqSvPMdu4+P9TilYqAR7yEGPEHINx+lCvE/NqNO/EHYzF/x1hUiI5T6ioVIt7dEy7n88byyT0vk+dnsgQwA==',
}
const names = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable']

/**
 * @typedef {{ executablePath: string, chromiumSandbox: boolean, env: Record<string, string> }} Launch
 */

/**
 * What a browser is launched with.
 * @param {string} [home] @param {import('./say.mjs').Say} [say] @returns {Promise<Launch>}
 * @throws SetupFailure
 */
export async function ensureChromium(home = homeFolder(), say = speaker()) {
  const env = Object.fromEntries(Object.entries(process.env).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])))
  const [installed] = [process.env['DARKROOM_CHROMIUM'], ...names.flatMap((name) => onPath(name))].filter(Boolean)
  // Root's browser has no sandbox, or does not start.
  if (installed) return { executablePath: installed, chromiumSandbox: process.getuid?.() !== 0, env }
  if (process.platform !== 'linux' || process.arch !== 'x64')
    throw failure('The tests of the page need a Chromium: install one, or name it in DARKROOM_CHROMIUM.')
  const folder = join(home, 'chromium', archive.version)
  const executablePath = join(folder, 'chromium')
  if (!isExecutable(executablePath)) {
    makeRoom(dirname(folder), 400e6)
    await whileHolding(dirname(folder), 'setup', async () => {
      if (isExecutable(executablePath)) return
      say.line(`Fetching Chromium ${archive.version} for the tests of the page: 70 MB into ${shown(folder)}.`)
      await say.step('Chromium', () => fetchInto(folder))
    })
  }
  // It brings the libraries and fonts that a bare system lacks; without any font it dies at the first form.
  return {
    executablePath,
    chromiumSandbox: false,
    env: { ...env, LD_LIBRARY_PATH: join(folder, 'lib'), FONTCONFIG_FILE: join(folder, 'fonts.conf') },
  }
}

/** @param {string} folder it appears there when it is whole, and the one that we know */
async function fetchInto(folder) {
  const home = dirname(folder)
  for (const leftover of readdirSync(home)) if (leftover.startsWith('part-')) rmSync(join(home, leftover), { recursive: true })
  const part = mkdtempSync(join(home, 'part-'))
  await npm(['pack', `${archive.name}@${archive.version}`, '--ignore-scripts', '--pack-destination', part], part)
  const [file = ''] = readdirSync(part)
  const bytes = readFileSync(join(part, file))
  const integrity = `sha512-${createHash('sha512').update(bytes).digest('base64')}`
  if (integrity !== archive.integrity) throw failure(`${archive.name} ${archive.version} is not the package that we know: ${integrity}.`)
  untar(gunzipSync(bytes), part, (name) => name.startsWith('package/bin/') || name === 'package/LICENSE')
  const bin = join(part, 'package', 'bin')
  const made = join(part, 'made')
  mkdirSync(made)
  await pipeline(createReadStream(join(bin, 'chromium.br')), createBrotliDecompress(), createWriteStream(join(made, 'chromium')))
  chmodSync(join(made, 'chromium'), 0o755)
  for (const each of ['al2023', 'swiftshader', 'fonts']) untar(brotliDecompressSync(readFileSync(join(bin, `${each}.tar.br`))), made)
  const fonts = `<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><dir>${folder}/fonts</dir><cachedir>${folder}/cache</cachedir></fontconfig>\n`
  writeFileSync(join(made, 'fonts.conf'), fonts)
  renameSync(made, folder)
  rmSync(part, { recursive: true })
}

const block = 512
const plainFile = new Set([0, '0'.charCodeAt(0)])

/**
 * Plain files of a tar, none outside the folder.
 * @param {Buffer} tar @param {string} folder @param {(name: string) => boolean} [isWanted]
 */
function untar(tar, folder, isWanted = () => true) {
  const text = (/** @type {number} */ from, /** @type {number} */ length) => tar.toString('utf8', from, from + length).replace(/\0.*/s, '')
  for (let at = 0; at + block <= tar.length;) {
    const name = [text(at + 345, 155), text(at, 100)].filter(Boolean).join('/')
    if (!name) return
    const size = Number.parseInt(text(at + 124, 12), 8) || 0
    const path = resolve(folder, name)
    if (plainFile.has(tar[at + 156] ?? -1) && isWanted(name) && path.startsWith(folder + sep)) {
      mkdirSync(dirname(path), { recursive: true })
      writeFileSync(path, tar.subarray(at + block, at + block + size))
    }
    at += block + Math.ceil(size / block) * block
  }
}
