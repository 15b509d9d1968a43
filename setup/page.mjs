/**
 * The page of src/web as the API serves it, in web/dist. It is built anew when a source of it or a package has changed,
 * and is never part of the repository.
 */
import { createHash } from 'node:crypto'
import { readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { whileHolding } from '../host/lock.mjs'
import { runBound } from './bound.mjs'
import { failure, lastLines } from './failure.mjs'

/** @param {string} root @param {import('./say.mjs').Say} say @throws SetupFailure */
export async function ensurePage(root, say) {
  const folder = join(root, 'web', 'dist')
  const key = keyOf(root)
  if (keyOfBuilt(folder) === key) return
  await whileHolding(root, 'page', async () => {
    if (keyOfBuilt(folder) !== key) await say.step('The page', () => build(root, folder, key))
  })
}

/** What the page is made of: its sources, and the packages. @param {string} root */
function keyOf(root) {
  const hash = createHash('sha256')
  const sources = join(root, 'src', 'web')
  for (const name of readdirSync(sources).toSorted()) hash.update(`${name}\n`).update(readFileSync(join(sources, name)))
  return hash.update(readFileSync(join(root, 'package-lock.json'))).digest('hex')
}

/** @param {string} folder @returns {string | undefined} */
function keyOfBuilt(folder) {
  try {
    return JSON.parse(readFileSync(join(folder, 'page.json'), 'utf8')).key
  } catch {
    return undefined
  }
}

/** @param {string} root @param {string} folder @param {string} key @throws SetupFailure */
async function build(root, folder, key) {
  const { ok, words } = await runBound(process.execPath, [join(root, 'src', 'web', 'build.mjs'), folder, key], { cwd: root })
  if (!ok) throw failure(`The page could not be built. It said:\n${lastLines(words, 20)}`)
}
