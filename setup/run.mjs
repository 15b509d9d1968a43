#!/usr/bin/env node
/**
 * `npm run demo`, `npm start`, `npm test` and the like: brings up what is missing, then runs the target. Node's built-ins only; npm and
 * pip do all fetching. Run again when nothing is missing, it takes a fraction of a second.
 */
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { SetupFailure, failure } from './failure.mjs'
import { homeFolder, root, shown } from './home.mjs'
import { ensurePackages } from './npm.mjs'
import { ensurePython } from './python.mjs'
import { ensureRedis } from './redis.mjs'
import { speaker } from './say.mjs'

const darkroom = join(root, 'bin', 'darkroom.mjs')

/** @type {Record<string, { needs: 'npm' | 'all', run: (args: string[]) => string[] | undefined }>} */
const targets = {
  demo: { needs: 'all', run: (args) => [darkroom, 'demo', ...args] },
  up: { needs: 'all', run: (args) => [darkroom, 'up', ...args] },
  test: { needs: 'all', run: (args) => [join(root, 'setup', 'suite.mjs'), 'test', ...args] },
  check: { needs: 'npm', run: (args) => [join(root, 'setup', 'suite.mjs'), 'check', ...args] },
  exact: { needs: 'all', run: (args) => [join(root, 'setup', 'suite.mjs'), 'exact', ...args] },
  node24: { needs: 'npm', run: (args) => [join(root, 'setup', 'node24.mjs'), ...args] },
  bench: { needs: 'all', run: (args) => ['--import', 'tsx', join(root, 'bench', 'main.ts'), ...args] },
  setup: { needs: 'all', run: () => undefined },
}

async function main() {
  const [name = '', ...args] = process.argv.slice(2)
  const target = targets[name]
  if (!target) throw failure(`usage: node setup/run.mjs ${Object.keys(targets).join(' | ')}`)
  if (process.platform === 'win32')
    throw failure('On Windows, Darkroom runs inside WSL: `wsl --install`, then the same two commands there.')
  const { node: wanted } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).engines
  if (!isNewEnough(process.versions.node, wanted))
    throw failure(`Darkroom needs Node ${wanted}; this is ${process.versions.node}. https://nodejs.org has it.`)

  const say = speaker()
  const home = homeFolder()
  await ensurePackages(root, say)
  if (target.needs === 'all') {
    const gpu = args.includes('--gpu')
    // An interpreter of the user's own takes the place of the environment.
    const python = process.env['DARKROOM_PYTHON'] || (await ensurePython({ home, gpu }, say)).interpreter
    if (!process.env['REDIS_URL'] || name === 'test' || name === 'demo') await ensureRedis(home, python, say)
  }
  const command = target.run(args)
  if (command) process.exitCode = await run(command)
  else say.line(`Everything is in place, under ${shown(home)}.`)
}

/** @param {string} version @param {string} range `>=20.19` */
function isNewEnough(version, range) {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  const [least = 0, leastMinor = 0] = range.replace('>=', '').split('.').map(Number)
  return major > least || (major === least && minor >= leastMinor)
}

/** @param {string[]} args @returns {Promise<number>} */
function run(args) {
  const child = spawn(process.execPath, args, { stdio: 'inherit' })
  // Ctrl-C reaches the child by itself, as the terminal sends it to both; what reaches us alone is passed on.
  process.on('SIGINT', () => {})
  for (const signal of /** @type {const} */ (['SIGTERM', 'SIGHUP'])) process.on(signal, () => child.kill(signal))
  return new Promise((settle, fail) => {
    child.on('error', fail)
    child.on('exit', (code, signal) => settle(code ?? (signal === 'SIGINT' ? 130 : 143)))
  })
}

main().catch((error) => {
  process.stderr.write(error instanceof SetupFailure ? `\n${error.message}\n` : `\n${error?.stack ?? error}\n`)
  process.exitCode = 1
})
