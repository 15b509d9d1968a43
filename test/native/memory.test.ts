import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { root } from '../../src/config.ts'
import { nativeStatus, openDeviceMemory } from '../../src/workers/device/native.ts'
import { backendsOf } from './backends.ts'
import { contract } from './contract.ts'

const scenarios = Object.entries(contract)

describe.each([
  { implementation: 'plain TypeScript', plain: true },
  { implementation: 'the addon', plain: false },
])('host memory in $implementation', ({ plain }) => {
  it.each(scenarios)('%s', async (_, scenario) => {
    await expect(scenario(() => openDeviceMemory('host', { plain }))).resolves.toBeUndefined()
  })
})

const elsewhere = backendsOf().filter(({ name }) => name !== 'host')
describe.each(elsewhere)('$name memory', ({ name, env }) => {
  const problems = new Map<string, string | null>()
  let end = ''
  beforeAll(async () => {
    if (env === null) return
    const child = spawn(process.execPath, ['--import', 'tsx', join(root, 'test/native/contract_process.ts'), name], {
      cwd: root,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let output = ''
    child.stdout.setEncoding('utf8').on('data', (chunk) => (output += chunk))
    child.stderr.setEncoding('utf8').on('data', (chunk) => (end += chunk))
    const code = await new Promise<number | null>((settle) => child.on('close', settle))
    end = `it ended with ${code}: ${end.slice(-2000)}`
    for (const line of output.split('\n').filter(Boolean)) {
      const { name: scenario, problem } = JSON.parse(line) as { name: string; problem: string | null }
      problems.set(scenario, problem)
    }
  }, 300_000)
  it.skipIf(env === null).each(scenarios)('%s', (scenario) => {
    expect(problems.has(scenario), end).toBe(true)
    expect(problems.get(scenario)).toBeNull()
  })
})

describe('the addon', () => {
  it('is here, and says with which backends', () => {
    const { addon, reason, backends, directMl } = nativeStatus()
    expect(reason).toBeNull()
    expect(addon).toMatch(/\.node$/)
    expect(backends).toContain('host')
    expect(directMl.detail).not.toBe('')
  })

  it('refuses a backend whose driver is not here by name', async () => {
    await expect(openDeviceMemory('abacus' as 'cuda')).rejects.toMatchObject({ code: 'device.unavailable' })
    await expect(openDeviceMemory('cuda', { plain: true })).rejects.toMatchObject({ code: 'device.unavailable' })
    await expect(openDeviceMemory('host', { arenaBytes: 0 })).rejects.toMatchObject({ code: 'memory.invalid', field: 'arenaBytes' })
  })

  it('falls back to the host where no device is real', async () => {
    await using memory = await openDeviceMemory()
    expect(['host', 'cuda', 'd3d12']).toContain(memory.backend)
    expect(memory.devices()[0]?.software).toBe(memory.backend === 'host')
  })
})
