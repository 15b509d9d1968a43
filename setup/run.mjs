#!/usr/bin/env node
/**
 * `npm run demo`, `npm start`, `npm test` and the like: brings up what is missing, then runs the target. Node's
 * built-ins only; npm and pip do all fetching. Run again when nothing is missing, it takes a fraction of a second.
 */
import { readFileSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import { SetupFailure, failure, wordsOf } from './failure.mjs'
import { homeFolder, root, shown } from '../host/home.mjs'
import { follow } from '../host/init.mjs'
import { ensureClip } from './clip.mjs'
import { ensureNative } from './native/build.mjs'
import { ensureNode24 } from './node24.mjs'
import { ensurePackages } from './npm.mjs'
import { ensurePage } from './page.mjs'
import { ensurePython } from './python.mjs'
import { checkRedis, ensureRedis } from './redis.mjs'
import { speaker } from './say.mjs'

const darkroom = join(root, 'bin', 'darkroom.mjs')
const suite = join(root, 'setup', 'suite.mjs')

/**
 * What there is to run, by name: the arguments of the Node that runs it, and what it needs besides the npm packages.
 * `native`: the addon as well; the tests build theirs themselves.
 * @type {Record<string, { command?: string[], redis?: false, native?: true, node24?: true }>}
 */
const targets = {
  demo: { command: [darkroom, 'demo'], native: true },
  up: { command: [darkroom, 'up'], native: true },
  test: { command: [suite, 'test'] },
  check: { command: [suite, 'check'], redis: false },
  exact: { command: [suite, 'exact'] },
  judged: { command: [suite, 'judged'], redis: false },
  crash: { command: [suite, 'crash'], native: true },
  doors: { command: [suite, 'doors'] },
  cluster: { command: [suite, 'cluster'] },
  node24: { command: [suite, 'test'], node24: true },
  bench: { command: ['--import', 'tsx', join(root, 'bench', 'main.ts')], native: true },
  compare: { command: ['--import', 'tsx', join(root, 'bench', 'compare.ts')], native: true },
  soak: { command: ['--import', 'tsx', join(root, 'bench', 'soak.ts')], native: true },
  chaos: { command: ['--import', 'tsx', join(root, 'test', 'long', 'verifier', 'main.ts')], native: true },
  setup: { native: true },
}

async function main() {
  const [name = '', ...args] = process.argv.slice(2)
  const target = targets[name]
  if (!target) throw failure(`usage: node setup/run.mjs ${Object.keys(targets).join(' | ')}`)
  if (process.platform === 'win32') throw failure('On Windows, Darkroom runs inside WSL: `wsl --install`, then the same commands there.')
  const { node: wanted } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).engines
  if (!isNewEnough(process.versions.node, wanted))
    throw failure(`Darkroom needs Node ${wanted}; this is ${process.versions.node}. https://nodejs.org has it.`)

  const say = speaker()
  const home = homeFolder()
  // A farm's Redis takes the place of the private one; whatever else runs here brings its own.
  const needsRedis = target.redis !== false && !(name === 'up' && process.env['REDIS_URL'])
  if (needsRedis) await checkRedis(home)
  await ensurePackages(root, say)
  await ensurePage(root, say)
  // An interpreter of the user's own takes the place of the environment.
  const python = process.env['DARKROOM_PYTHON'] || (await ensurePython({ home, gpu: args.includes('--gpu') }, say)).interpreter
  if (needsRedis) await ensureRedis(home, python, say)
  if (target.native) {
    await tryClip(home, python, say)
    await tryNative(home, say)
  }
  const node = target.node24 ? await ensureNode24(home, say) : process.execPath
  if (target.command) process.exitCode = await run(node, [...target.command, ...args])
  else say.line(`Everything is in place, under ${shown(home)}.`)
}

/**
 * The native addon, where it can be built; without it Darkroom runs, but knows no GPU's memory, and says so.
 * @param {string} home @param {import('./say.mjs').Say} say
 */
async function tryNative(home, say) {
  try {
    await ensureNative(home, say)
  } catch (error) {
    if (!(error instanceof SetupFailure)) throw error
    say.line(`${error.message}\nDarkroom runs without it and manages host memory only; \`darkroom doctor\` shows this too.`)
  }
}

/**
 * CLIP's vocabulary, without which diffusers folders draw all the same.
 * @param {string} home @param {string} python @param {import('./say.mjs').Say} say
 */
async function tryClip(home, python, say) {
  try {
    await ensureClip(home, python, say)
  } catch (error) {
    if (!(error instanceof SetupFailure)) throw error
    say.line(`${error.message}\nModels that are one file say what they lack; \`darkroom models import-config\` takes it from a folder.`)
  }
}

/** @param {string} version @param {string} range `>=20.19` */
function isNewEnough(version, range) {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  const [minMajor = 0, minMinor = 0] = range.replace('>=', '').split('.').map(Number)
  return major > minMajor || (major === minMajor && minor >= minMinor)
}

/**
 * Runs the target, which ends with us: it hears of our end by a channel, and we end with npm when that started us,
 * however it ends.
 * @param {string} node @param {string[]} args @returns {Promise<number>}
 */
function run(node, args) {
  // Another Node than ours is also the `node` of its children.
  const PATH = [...(node === process.execPath ? [] : [dirname(node)]), process.env['PATH']].join(delimiter)
  const parent = process.ppid
  if (process.env['npm_lifecycle_event']) setInterval(() => process.ppid !== parent && process.kill(process.pid, 'SIGTERM'), 500).unref()
  return follow(node, args, { ...process.env, PATH }, ['inherit', 'inherit', 'inherit', 'ipc'])
}

main().catch((error) => {
  process.stderr.write(`\n${wordsOf(error)}\n`)
  process.exitCode = 1
})
