#!/usr/bin/env node
/** `node setup/native.mjs build | test | windows | gpu`: the native addon, its tests, and both for other machines. */
import { spawn } from 'node:child_process'
import { existsSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { homeFolder, root, shown } from '../host/home.mjs'
import { failure, wordsOf } from './failure.mjs'
import { ensureNative, ensureNativeTests, noCompiler, testFolder } from './native/build.mjs'
import { packForGpu } from './native/gpu.mjs'
import { buildForWindows } from './native/windows.mjs'
import { ensurePackages } from './npm.mjs'
import { speaker } from './say.mjs'

/** @typedef {import('./say.mjs').Say} Say */

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
    process.env['NATIVE_OPERATIONS'] = 'whole'
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

main().catch((error) => {
  process.stderr.write(`\n${wordsOf(error)}\n`)
  process.exitCode = 1
})
