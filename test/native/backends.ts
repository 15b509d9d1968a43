/** What the tests run the addon and its programs with: the environment of each backend, or why it cannot run. */
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { homeFolder } from '../../host/home.mjs'
import { testFolder } from '../../setup/native/build.mjs'
import { readyVkd3d } from '../../setup/native/debian.mjs'
import type { BackendName } from '../../src/domains/device-memory.ts'

export interface Backend {
  name: BackendName
  /** null: not here, so its tests are skipped and `npm run test:native` says so. */
  env: Record<string, string> | null
}

const vkd3d = readyVkd3d(homeFolder())
const isLinux = process.platform === 'linux'

/** @param sanitized with AddressSanitizer: its builds are elsewhere */
export function backendsOf({ sanitized = false } = {}): Backend[] {
  return [
    { name: 'host', env: {} },
    // The stand-in driver lies where the loader looks first.
    { name: 'cuda', env: isLinux ? { LD_LIBRARY_PATH: join(testFolder({ sanitized }), 'fake') } : null },
    { name: 'd3d12', env: vkd3d?.env ?? null },
  ]
}

/** What loads AddressSanitizer into a program that was built without it, such as Node. */
export function preloadedSanitizer(): Record<string, string> {
  const library = execFileSync('c++', ['-print-file-name=libasan.so'], { encoding: 'utf8' }).trim()
  return { LD_PRELOAD: library, ASAN_OPTIONS: 'detect_leaks=0:exitcode=99', UBSAN_OPTIONS: 'print_stacktrace=1' }
}
