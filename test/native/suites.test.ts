/** The suites of the C++ core, native/test/native_test.cpp, on every backend that this machine has. */
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { testFolder } from '../../setup/native/build.mjs'
import { backendsOf } from './backends.ts'
import { allPassed, minutes, operationsOn, run, verdict } from './suite.ts'

describe.each(backendsOf())('the core on $name', ({ name, env }) => {
  it.skipIf(env === null)(
    'passes its suite, with random operations, every byte checked and nothing left',
    async () => {
      const operations = operationsOn[name]
      const ended = await run(join(testFolder(), 'native_test'), [name, String(operations)], env ?? {})
      expect(verdict(ended), ended.output).toEqual(allPassed)
      expect(ended.output).toContain(`ok survives ${operations} random operations`)
    },
    15 * minutes,
  )
})

describe('a backend without its driver', () => {
  const nowhere = { LD_LIBRARY_PATH: '', VK_DRIVER_FILES: '/nonexistent', VK_ICD_FILENAMES: '/nonexistent' }
  it.each(['d3d12', 'abacus'])('says that it is not run, not that it passed: %s', async (name) => {
    const { code, output } = await run(join(testFolder(), 'native_test'), [name], nowhere)
    expect(code).toBe(77)
    expect(output).toMatch(/^not run: ./m)
  })
})
