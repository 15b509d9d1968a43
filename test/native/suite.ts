/** The suite of the C++ core, native/test/native_test.cpp, as a process that a test runs. */
import { spawn } from 'node:child_process'
import type { BackendName } from '../../src/domains/device-memory.ts'

export interface Ended {
  code: number | null
  output: string
}

export function run(program: string, args: string[], env: Record<string, string>): Promise<Ended> {
  return new Promise((settle, fail) => {
    const child = spawn(program, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (chunk) => (output += chunk))
    child.on('error', fail)
    child.on('close', (code) => settle({ code, output }))
  })
}

/** What must be so of a program whose tests all passed. */
export const verdict = ({ code, output }: Ended) => ({
  code,
  failed: output.split('\n').filter((line) => /^not ok|Sanitizer|runtime error/.test(line)),
  passed: output.split('\n').filter((line) => line.startsWith('ok ')).length >= 14,
})
export const allPassed = { code: 0, failed: [], passed: true }

/** `npm run test:native` does all of them, `npm test` a fifth. */
const share = process.env['NATIVE_OPERATIONS'] === 'whole' ? 1 : 0.2

/** Random operations of a run: where no GPU is, a CPU does the work of Direct3D's, tens of seconds of it. */
export const operationsOn: Record<BackendName, number> = { host: 10_000 * share, cuda: 10_000 * share, d3d12: 2_000 * share }

export const minutes = 60_000
