/** `darkroom up` with the product's own child: what dies is started again, and nothing is left when it stops. */
import { appendFileSync, existsSync, readFileSync, statSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { DarkroomClient } from '../../src/client/index.ts'
import { root } from '../../src/config.ts'
import { run, start, type Running } from '../support/command.ts'
import { eventually } from '../support/wait.ts'

const slow = 120_000
let folder: string
let ups: Running[]
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'darkroom-up-'))
  ups = []
})
afterEach(async () => {
  for (const { process: child, ended } of ups) {
    child.kill('SIGTERM')
    await ended
  }
  // A Redis that outlived its supervisor ends with the next one.
  const last = up('--workers', '0')
  await last.until(/The API answers at/)
  last.process.kill('SIGTERM')
  await last.ended
  await rm(folder, { recursive: true, force: true })
}, slow)

const env = (): Record<string, string> => ({ DARKROOM_DATA: folder, DARKROOM_PORT: '0', DARKROOM_MODELS: join(root, 'models') })

function up(...args: string[]): Running {
  const running = start(['up', ...args], env())
  ups.push(running)
  return running
}

const urlOf = async (running: Running): Promise<string> => (await running.until(/The API answers at (\S+)/))[1] ?? ''
const pidOf = async (running: Running, what: string): Promise<number> =>
  Number((await running.until(new RegExp(`${what} +(?:starting|ready) \\(pid (\\d+)\\)`)))[1])

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

describe('darkroom up', () => {
  it('starts a killed API and a killed worker again; what was accepted is done', { timeout: slow }, async () => {
    const running = up('--workers', '1')
    const client = new DarkroomClient({ url: await urlOf(running) })
    process.kill(await pidOf(running, 'worker 1'), 'SIGKILL')
    const { id } = await client.generate({ prompt: 'a red circle', steps: 4, seed: 1 })
    process.kill(await pidOf(running, 'api'), 'SIGKILL')
    await running.until(/api +ended.*again in 0\.2 s/)
    await running.until(/worker 1 +(ended|failed).*again in 0\.2 s/)
    const session = await client.untilEnd(id)
    expect(session.status).toBe('succeeded')
    running.process.kill('SIGTERM')
    const { code, stdout } = await running.ended
    expect(code).toBe(0)
    expect(stdout.indexOf('worker 1  stopped')).toBeLessThan(stdout.indexOf('api       stopped'))
    expect(stdout.indexOf('api       stopped')).toBeLessThan(stdout.indexOf('redis     stopped'))
  })

  it('killed itself: its children end, its Redis lives on, the next one adopts it with all that it holds', { timeout: slow }, async () => {
    const first = up('--workers', '0')
    const { id } = await new DarkroomClient({ url: await urlOf(first) }).generate({ prompt: 'a red circle', steps: 4, seed: 1 })
    const api = await pidOf(first, 'api')
    first.process.kill('SIGKILL')
    await first.ended
    await eventually('the API ends', () => Promise.resolve(!isAlive(api)))
    const second = up('--workers', '1')
    await second.until(/redis +ready: \S+, adopted/)
    expect((await new DarkroomClient({ url: await urlOf(second) }).untilEnd(id)).status).toBe('succeeded')
  })

  it('has its data folder for itself', { timeout: slow }, async () => {
    const first = up('--workers', '0')
    const url = await urlOf(first)
    const second = await run(['up'], env())
    expect(second).toMatchObject({ code: 1, stderr: expect.stringMatching(/in use by another `darkroom up`, pid \d+/) as string })
    expect((await run(['sessions'], { DARKROOM_DATA: folder })).stdout).toBe('no sessions\n')
    expect((await new DarkroomClient({ url }).health()).status).toBe('ok')
  })

  it('moves a log that has grown aside while it is written', { timeout: slow }, async () => {
    const running = start(['up', '--workers', '0'], { ...env(), DARKROOM_LOG: 'debug' })
    ups.push(running)
    const client = new DarkroomClient({ url: await urlOf(running) })
    const log = join(folder, 'logs', 'api.log')
    appendFileSync(log, `${'x'.repeat(1023)}\n`.repeat(17 * 1024))
    await eventually('it is small again', () => Promise.resolve(statSync(log).size < 2 ** 20))
    expect(statSync(`${log}.1`).size).toBeGreaterThan(17 * 2 ** 20)
    await client.health()
    await eventually('the API goes on in it', () => Promise.resolve(readFileSync(log, 'utf8').includes('/v1/health')))
  })

  it('says which port is taken, and leaves nothing behind', { timeout: slow }, async () => {
    const first = up('--workers', '0')
    const port = new URL(await urlOf(first)).port
    const other = join(folder, 'other')
    const second = await run(['up', '--workers', '0'], { ...env(), DARKROOM_DATA: other, DARKROOM_PORT: port })
    expect(second.code).toBe(1)
    expect(second.stderr).toMatch(/port \d+ of 127\.0\.0\.1 is taken\n.*DARKROOM_PORT/)
    expect(second.stdout).toContain('redis     stopped')
    expect(existsSync(other)).toBe(true)
  })

  it('refuses to listen beyond this machine without a key', { timeout: slow }, async () => {
    const { code, stderr } = await run(['up', '--workers', '0'], { ...env(), DARKROOM_HOST: '0.0.0.0' })
    expect(code).toBe(1)
    expect(stderr).toMatch(/darkroom keys add/)
  })
})
