/** The suite of the C++ core, native/test/native_test.cpp, as a process that a test runs. */
import { spawn } from 'node:child_process'

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

export const minutes = 60_000
