/** The suites of the C++ core, native/test/native_test.cpp, on every backend that this machine has. */
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { testFolder } from '../../setup/native/build.mjs'
import { backendsOf } from './backends.ts'

interface Ended {
  code: number | null
  output: string
}

function run(program: string, args: string[], env: Record<string, string>): Promise<Ended> {
  return new Promise((settle, fail) => {
    const child = spawn(program, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (chunk) => (output += chunk))
    child.on('error', fail)
    child.on('close', (code) => settle({ code, output }))
  })
}

/** What must be so of a program whose tests all passed. */
const verdict = ({ code, output }: Ended) => ({
  code,
  failed: output.split('\n').filter((line) => /^not ok|Sanitizer|runtime error/.test(line)),
  passed: output.split('\n').filter((line) => line.startsWith('ok ')).length >= 14,
})
const allPassed = { code: 0, failed: [], passed: true }

const minutes = 60_000

describe.each(backendsOf())('the core on $name', ({ name, env }) => {
  it.skipIf(env === null)(
    'passes its suite, with 10,000 random operations, every byte checked and nothing left',
    async () => {
      const ended = await run(join(testFolder(), 'native_test'), [name, '10000'], env ?? {})
      expect(verdict(ended), ended.output).toEqual(allPassed)
      expect(ended.output).toContain('ok survives 10000 random operations')
    },
    5 * minutes,
  )
})

describe.skipIf(process.platform !== 'linux').each(backendsOf({ sanitized: true }))(
  'the core on $name, under AddressSanitizer',
  ({ name, env }) => {
    it.skipIf(env === null)(
      'touches no byte that is not its own',
      async () => {
        // vkd3d and Mesa keep memory to the end of the process; what the core itself keeps shows on the other two.
        const leaks = name === 'd3d12' ? 'detect_leaks=0' : 'detect_leaks=1'
        const options = { ASAN_OPTIONS: `${leaks}:exitcode=99`, UBSAN_OPTIONS: 'print_stacktrace=1' }
        const ended = await run(join(testFolder({ sanitized: true }), 'native_test'), [name, '2000'], { ...env, ...options })
        expect(verdict(ended), ended.output).toEqual(allPassed)
      },
      8 * minutes,
    )
  },
)

describe('a backend without its driver', () => {
  const nowhere = { LD_LIBRARY_PATH: '', VK_DRIVER_FILES: '/nonexistent', VK_ICD_FILENAMES: '/nonexistent' }
  it.each(['d3d12', 'abacus'])('says that it is not run, not that it passed: %s', async (name) => {
    const { code, output } = await run(join(testFolder(), 'native_test'), [name], nowhere)
    expect(code).toBe(77)
    expect(output).toMatch(/^not run: ./m)
  })
})
