/** The npm packages: `npm ci` when node_modules does not hold what package-lock.json names. */
import { whileHolding } from '../host/lock.mjs'
import { isInstalled } from '../host/places.mjs'
import { onPath } from '../host/programs.mjs'
import { runBound } from './bound.mjs'
import { causeOf, failure, lastLines } from './failure.mjs'

/** @param {string} root @param {import('./say.mjs').Say} say @throws SetupFailure */
export async function ensurePackages(root, say) {
  if (isInstalled(root)) return
  await whileHolding(
    root,
    'npm',
    async () => {
      if (isInstalled(root)) return
      say.line('Fetching the npm packages: 110 MB (210 MB on disk) into node_modules, some seconds on a fast line.')
      await say.step('npm ci', () => npm(['ci', '--include=dev'], root))
    },
    (holder) => say.line(`Another set-up${holder} is fetching the npm packages; waiting for it.`),
  )
}

/**
 * Runs npm: the one that runs us, if one does, else the one on PATH.
 * @param {string[]} args @param {string} cwd
 * @throws SetupFailure when there is none, or in its words
 */
export async function npm(args, cwd) {
  const { npm_execpath: script } = process.env
  const own = script?.endsWith('npm-cli.js') ? [process.execPath, script] : onPath('npm').slice(0, 1)
  if (own[0] === undefined) throw failure('There is no npm on PATH; it comes with Node.js, https://nodejs.org.')
  const patience = ['--fetch-retries=2', '--fetch-retry-mintimeout=1000', '--fetch-retry-maxtimeout=10000']
  const quiet = ['--no-audit', '--no-fund', '--loglevel=error']
  const { ok, words } = await runBound(own[0], [...own.slice(1), ...args, ...quiet, ...patience], { cwd })
  if (!ok) throw failure(`npm could not install the packages. ${causeOf(words)}It said:\n${lastLines(words, 20)}`)
}
