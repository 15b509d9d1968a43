/**
 * A process, a thread or an object that ends in the middle of a copy ends in order: with its own exit code, no abort,
 * no leak.
 */
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { testFolder } from '../../setup/native/build.mjs'
import { root } from '../../src/config.ts'
import { backendsOf, preloadedSanitizer } from './backends.ts'

/** What each scenario ends with. */
const scenarios = [
  { scenario: 'exit', code: 3, says: '' },
  { scenario: 'exit-later', code: 4, says: '' },
  { scenario: 'throw', code: 1, says: '' },
  { scenario: 'idle', code: 0, says: 'done' },
  { scenario: 'collect', code: 0, says: 'done' },
  { scenario: 'drop', code: 0, says: 'done' },
  { scenario: 'terminate', code: 0, says: 'done' },
  { scenario: 'terminate-early', code: 0, says: 'done' },
]

interface Ended {
  code: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
}

function run(scenario: string, backend: string, folder: string, env: Record<string, string>): Promise<Ended> {
  const args = ['--expose-gc', join(root, 'test/native/lifecycle.mjs'), join(folder, 'darkroom_native.node'), backend, scenario]
  return new Promise((settle, fail) => {
    const child = spawn(process.execPath, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
    let stdout = ''
    let stderr = ''
    child.stdout.setEncoding('utf8').on('data', (chunk) => (stdout += chunk))
    child.stderr.setEncoding('utf8').on('data', (chunk) => (stderr += chunk))
    child.on('error', fail)
    child.on('close', (code, signal) => settle({ code, signal, stdout, stderr }))
  })
}

describe.each(backendsOf())('a program that uses $name', ({ name, env }) => {
  it.skipIf(env === null).each(scenarios)('ends with its own code: $scenario', async ({ scenario, code, says }) => {
    const ended = await run(scenario, name, testFolder(), env ?? {})
    expect(ended, ended.stderr).toMatchObject({ code, signal: null })
    expect(ended.stdout.trim()).toBe(says)
  })
})

const sanitized = process.platform === 'linux' ? backendsOf({ sanitized: true }) : []
describe.each(sanitized)('under AddressSanitizer, a program that uses $name', ({ name, env }) => {
  it.skipIf(env === null).each(scenarios.filter(({ scenario }) => scenario !== 'drop'))(
    'touches nothing that is gone: $scenario',
    async ({ scenario, code, says }) => {
      const ended = await run(scenario, name, testFolder({ sanitized: true }), { ...env, ...preloadedSanitizer() })
      expect(ended.stderr).not.toMatch(/AddressSanitizer|runtime error/)
      expect(ended, ended.stderr).toMatchObject({ code, signal: null })
      expect(ended.stdout.trim()).toBe(says)
    },
    180_000,
  )
})
