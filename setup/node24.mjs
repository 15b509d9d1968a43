/** `npm run test:node24`: the whole suite on Node 24, which npm brings as a package. */
import { spawn } from 'node:child_process'
import { existsSync, mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { failure, SetupFailure } from './failure.mjs'
import { homeFolder, root } from './home.mjs'
import { onPath } from './redis.mjs'

const version = '24.21.0'

/** @param {string} program @param {string[]} args @param {NodeJS.ProcessEnv} [env] @returns {Promise<number>} */
const run = (program, args, env) =>
  new Promise((settle, fail) => {
    const child = spawn(program, args, { stdio: 'inherit', ...(env && { env }) })
    child.on('error', fail)
    child.on('exit', (code) => settle(code ?? 1))
  })

try {
  const name = `node-${process.platform}-${process.arch}`
  const folder = join(homeFolder(), 'node', version)
  const node = join(folder, 'node_modules', name, 'bin', 'node')
  if (!existsSync(node)) {
    const [npm] = onPath('npm')
    if (!npm) throw failure('there is no npm on PATH')
    mkdirSync(folder, { recursive: true })
    process.stderr.write(`Fetching Node ${version}: about 50 MB into ${folder}, some seconds.\n`)
    if ((await run(npm, ['install', '--prefix', folder, '--no-save', '--no-audit', '--no-fund', `${name}@${version}`])) !== 0)
      throw failure(`npm could not fetch ${name}@${version}`)
  }
  const PATH = `${dirname(node)}:${process.env['PATH'] ?? ''}`
  process.exitCode = await run(node, [join(root, 'setup', 'run.mjs'), 'test', ...process.argv.slice(2)], { ...process.env, PATH })
} catch (error) {
  if (!(error instanceof SetupFailure)) throw error
  process.stderr.write(`${error.message}\n`)
  process.exitCode = 1
}
