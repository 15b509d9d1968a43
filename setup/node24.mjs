/** `npm run test:node24`: the suite on Node 24, which npm brings as a package. */
import { existsSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { shown } from '../host/home.mjs'
import { whileHolding } from '../host/lock.mjs'
import { npm } from './npm.mjs'
import { makeRoom } from './room.mjs'

const version = '24.21.0'

/**
 * Node 24's program, fetched when it is not there. Its folder appears only when it is whole.
 * @param {string} home where set-up keeps what it fetched
 * @param {import('./say.mjs').Say} say
 * @returns {Promise<string>}
 * @throws SetupFailure
 */
export async function ensureNode24(home, say) {
  const name = `node-${process.platform}-${process.arch}`
  const all = join(home, 'node')
  const folder = join(all, version)
  const node = join(folder, 'node_modules', name, 'bin', 'node')
  return whileHolding(all, 'setup', async () => {
    if (existsSync(node)) return node
    makeRoom(all, 200e6)
    for (const leftover of readdirSync(all)) if (leftover.startsWith('part-')) rmSync(join(all, leftover), { recursive: true })
    const part = mkdtempSync(join(all, 'part-'))
    say.line(`Fetching Node ${version}: 50 MB into ${shown(folder)}, some seconds on a fast line.`)
    await say.step(`Node ${version}`, () => npm(['install', '--prefix', part, '--no-save', `${name}@${version}`], part))
    renameSync(part, folder)
    return node
  })
}
