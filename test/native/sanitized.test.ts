/** The suites of the C++ core under AddressSanitizer, on every backend that this machine has. */
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { testFolder } from '../../setup/native/build.mjs'
import { backendsOf } from './backends.ts'
import { allPassed, minutes, operationsOn, run, verdict } from './suite.ts'

describe.skipIf(process.platform !== 'linux').each(backendsOf({ sanitized: true }))(
  'the core on $name, under AddressSanitizer',
  ({ name, env }) => {
    it.skipIf(env === null)(
      'touches no byte that is not its own',
      async () => {
        // vkd3d and Mesa keep memory to the end of the process; what the core itself keeps shows on the other two.
        const leaks = name === 'd3d12' ? 'detect_leaks=0' : 'detect_leaks=1'
        const options = { ASAN_OPTIONS: `${leaks}:exitcode=99`, UBSAN_OPTIONS: 'print_stacktrace=1' }
        const ended = await run(join(testFolder({ sanitized: true }), 'native_test'), [name, String(operationsOn[name] / 5)], {
          ...env,
          ...options,
        })
        expect(verdict(ended), ended.output).toEqual(allPassed)
      },
      8 * minutes,
    )
  },
)
