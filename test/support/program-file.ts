/** Where a program or module of the tests is: as it was built for this run of them, else its source. */
import { existsSync } from 'node:fs'
import { join, relative } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { root } from '../../src/config.ts'

/** The variable that tells the folder of what `built.ts` has built. Benchmarks build nothing. */
export const builtFolder = 'TEST_PROGRAMS'

/** A program of this repository, by its path below the root, as it was built for this run. */
export function builtFile(source: string): string | undefined {
  const folder = process.env[builtFolder]
  const file = folder && join(folder, source.replace(/\.ts$/, '.mjs'))
  return file && existsSync(file) ? file : undefined
}

/** What Node is told to run a program of this repository, by its path below the root. */
export function nodeArguments(source: string, preload: readonly string[] = []): string[] {
  const file = builtFile(source)
  const before = (file === undefined ? ['tsx', ...preload] : preload).flatMap((module) => ['--import', module])
  return [...before, file ?? join(root, source)]
}

/**
 * The URL by which such a program loads a module of the tests: both must be built, so that they share their sources.
 *
 * @throws Error when the module is not
 */
export function moduleUrl(url: string): string {
  if (process.env[builtFolder] === undefined) return url
  const source = relative(root, fileURLToPath(url))
  const file = builtFile(source)
  if (file === undefined) throw new Error(`${source} is not among the programs of test/support/built.ts`)
  return pathToFileURL(file).href
}
