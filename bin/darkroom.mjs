#!/usr/bin/env node
/** The `darkroom` command: runs src/main.ts from wherever it is called, through a link too. */
import { runBelowReaper } from '../host/init.mjs'

// Commands that start processes; the others leave no orphan.
const status = ['up', 'worker', 'demo'].includes(process.argv[2] ?? '') ? await runBelowReaper() : undefined
if (status !== undefined) process.exit(status)
try {
  const { register } = await import('tsx/esm/api')
  register()
} catch (error) {
  if (/** @type {NodeJS.ErrnoException} */ (error).code !== 'ERR_MODULE_NOT_FOUND') throw error
  process.stderr.write('The npm packages are not there yet: run `npm run setup` in the folder of the repository, once.\n')
  process.exit(1)
}
await import('../src/main.ts')
