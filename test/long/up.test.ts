/** `darkroom up` with the product's own child: what dies is started again, and nothing is left when it stops. */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync, existsSync, readFileSync, statSync } from 'node:fs'
import { chmod, mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { askHolder, socketFolder } from '../../host/lock.mjs'
import { onPath } from '../../host/programs.mjs'
import { DarkroomClient } from '../../src/client/index.ts'
import { readConfig, root } from '../../src/config.ts'
import { interpreter } from '../support/child.ts'
import { installed, run, start, type Running } from '../support/command.ts'
import { canBeUnknown, canUnshare, ownProcesses, processesWith, unknownUser } from '../support/containers.ts'
import { startTestRedis } from '../support/redis.ts'
import { eventually } from '../support/wait.ts'

const slow = 120_000
let folder: string
let ups: Running[]
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'darkroom-up-'))
  ups = []
  // Whoever unpacks a picture archive and starts a farm there must not run what lies in it.
  for (const module of ['json', 'torch', 'ctypes', 'darkroom', 'sitecustomize'])
    await writeFile(
      join(folder, `${module}.py`),
      `open(${JSON.stringify(join(folder, 'was-imported'))}, "w")\nraise SystemExit("planted")\n`,
    )
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
  const running = start(['up', ...args], env(), folder, installed)
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
    await running.until(/api +ended.*again (at once|in 0\.2 s)/)
    await running.until(/worker 1 +(ended|failed).*again (at once|in 0\.2 s)/)
    const session = await client.untilEnd(id)
    expect(session.status).toBe('succeeded')
    expect(existsSync(join(folder, 'was-imported'))).toBe(false)
    running.process.kill('SIGTERM')
    const { code, stdout } = await running.ended
    expect(code).toBe(0)
    expect(stdout.indexOf('worker 1  stopped')).toBeLessThan(stdout.indexOf('api       stopped'))
    expect(stdout.indexOf('api       stopped')).toBeLessThan(stdout.indexOf('redis     stopped'))
  })

  it('lets the worker that stands by take the place of a killed one, in the middle of a picture', { timeout: slow }, async () => {
    const more = { DARKROOM_STANDBY: 'always', DARKROOM_SPARE_MB: '1', DARKROOM_CHECKPOINT_CALLS: '1' }
    const running = start(['up', '--workers', '1'], { ...env(), ...more }, folder, installed)
    ups.push(running)
    const client = new DarkroomClient({ url: await urlOf(running) })
    await running.until(/worker 1 +ready/)
    const first = await pidOf(running, 'worker 1')
    const told = (pid: number, file: string): Promise<string> => readFile(`/proc/${pid}/${file}`, 'utf8').catch(() => '')
    const standby = await eventually('a worker that stands by, with a Python child', async () => {
      for (const pid of processesWith(folder))
        if ((await told(pid, 'cmdline')).includes('--standby') && (await told(pid, `task/${pid}/children`)) !== '') return pid
      return undefined
    })
    const { id } = await client.generate({ prompt: 'a red circle', steps: 200, seed: 1 })
    for await (const frame of client.follow(id)) {
      if (frame.kind !== 'progress' || (frame.progress.checkpoint ?? 0) < 3) continue
      process.kill(first, 'SIGKILL')
      break
    }
    expect((await client.untilEnd(id)).status).toBe('succeeded')
    expect((await client.workers()).map(({ pid }) => pid)).toEqual([standby])
    const attempts = (await client.receipt(id)).steps.find(({ step }) => step === 'inference.denoise')?.attempts
    expect(attempts).toMatchObject([{ end: 'lost' }, { end: 'completed', resumedFrom: { call: expect.any(Number) } }])
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
    if (!canUnshare) return
    // As from another container, with sockets and processes of its own.
    const [place, hidden] = [socketFolder(folder), `${folder}-hidden`]
    await rename(place, hidden)
    const third = spawnSync('unshare', [...ownProcesses, process.execPath, join(root, 'bin', 'darkroom.mjs'), 'up'], {
      env: { PATH: process.env['PATH'], HOME: homedir(), ...env() },
      encoding: 'utf8',
    })
    await rename(hidden, place)
    expect(third.stderr).toMatch(/in use by another `darkroom up`, in another container or of another user/)
    expect(third.status).toBe(1)
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

  it('tells nobody the address of a Redis of the user’s own, and a key goes to no stranger', { timeout: slow }, async () => {
    const redis = await startTestRedis()
    // Not the private Redis of the other tests: a store of artifacts has one index.
    const data = join(folder, 'data')
    const first = start(['up', '--workers', '0'], { ...env(), DARKROOM_DATA: data, REDIS_URL: redis.url }, folder)
    await urlOf(first)
    const answer = JSON.stringify(await askHolder(data, 'up'))
    expect(answer).toContain('http://127.0.0.1:')
    expect(answer).not.toContain(redis.url)
    const keys = await run(['keys', 'list'], { DARKROOM_DATA: data })
    expect(keys).toMatchObject({ code: 1, stderr: expect.stringMatching(/has no Redis of its own.*\nSet REDIS_URL/) as string })
    const worker = await run(['worker'], { DARKROOM_DATA: data })
    expect(worker).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/REDIS_URL is not set, and the `darkroom up` .* Redis of your own/) as string,
    })
    first.process.kill('SIGTERM')
    await first.ended
    await redis.stop()

    const heard: string[] = []
    const stranger = createServer((request, response) => {
      heard.push(request.headers.authorization ?? '')
      response.end()
    })
    await new Promise<void>((done) => void stranger.listen(0, '127.0.0.1', done))
    const port = String((stranger.address() as AddressInfo).port)
    const { code, stderr } = await run(['sessions'], { DARKROOM_DATA: data, DARKROOM_PORT: port, DARKROOM_KEY: 'secret' })
    stranger.close()
    expect(heard).toEqual([])
    expect(code).toBe(1)
    expect(stderr).toMatch(/DARKROOM_KEY is not sent there\nName the API with --url or DARKROOM_URL/)
  })

  it('refuses a data folder that everybody may write to', { timeout: slow }, async () => {
    const data = join(folder, 'open')
    await mkdir(data)
    await chmod(data, 0o777)
    const { code, stderr } = await run(['up', '--workers', '0'], { ...env(), DARKROOM_DATA: data })
    expect(code).toBe(1)
    expect(stderr).toMatch(/^error: .*open can be written by everybody.*DARKROOM_DATA/)
    expect(stderr).not.toMatch(/\n\s+at /)
  })

  it('gives each of two workers a GPU of its own, by its UUID; more workers than GPUs are refused', { timeout: slow }, async () => {
    // This machine has no GPU: a program in Python's place lists two, and writes down which one each child is to take.
    const uuids = [1, 2].map((n) => `0000000${n}-1111-2222-3333-444444444444`)
    const python = join(folder, 'python')
    const cards = JSON.stringify(uuids.map((uuid) => ({ uuid, name: 'NVIDIA Test' })))
    await writeFile(
      python,
      `#!/bin/sh\ncase "$*" in *get_device_properties*) echo '${cards}';; *) head -n 1 >> '${folder}/hellos'; exec sleep 60;; esac\n`,
    )
    await chmod(python, 0o755)
    const gpu = { ...env(), DARKROOM_PYTHON: python }
    const running = start(['up', '--gpu', '--workers', '2'], gpu, folder)
    await urlOf(running)
    const devices = await eventually('both children are told', async () => {
      const lines = existsSync(join(folder, 'hellos')) ? (await readFile(join(folder, 'hellos'), 'utf8')).trim().split('\n') : []
      return lines.length === 2 && lines.map((line) => /"device":"([^"]+)"/.exec(line)?.[1])
    })
    expect(devices).toHaveLength(2)
    expect(new Set(devices)).toEqual(new Set(uuids.map((uuid) => `cuda:${uuid}`)))
    running.process.kill('SIGTERM')
    await running.ended

    const many = await run(['up', '--gpu', '--workers', '3'], gpu)
    expect(many).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/3 workers on 2 GPUs \(NVIDIA Test, NVIDIA Test\).*one worker\nStart at most 2/) as string,
    })
    const one = await run(['up', '--gpu', '--workers', '2'], { ...gpu, DARKROOM_DEVICE: 'cuda:1' })
    expect(one).toMatchObject({ code: 1, stderr: expect.stringMatching(/2 workers on DARKROOM_DEVICE=cuda:1.*one worker/) as string })
    expect(processesWith(folder)).toEqual([])
  })

  it.runIf(canBeUnknown)('runs, and draws, for a user whom no list of users knows', { timeout: 2 * slow }, async () => {
    const home = readConfig({}).home
    const inside = (args: string[], more: Record<string, string>) =>
      spawn('unshare', [...unknownUser, process.execPath, join(root, 'bin', 'darkroom.mjs'), ...args], {
        env: { PATH: process.env['PATH'], DARKROOM_HOME: home, DARKROOM_PYTHON: interpreter(), ...more },
        stdio: ['ignore', 'pipe', 'pipe'],
      })
    const child = inside(['up', '--workers', '1'], env())
    let out = ''
    child.stdout.on('data', (text: Buffer) => (out += text.toString()))
    await eventually('its worker is ready', () => Promise.resolve(/worker 1 +ready/.test(out)), 100_000)
    const url = /The API answers at (\S+)/.exec(out)?.[1] ?? ''
    const client = new DarkroomClient({ url })
    const { id } = await client.generate({ prompt: 'a red circle', steps: 2, seed: 1 })
    expect((await client.untilEnd(id)).status).toBe('succeeded')
    child.kill('SIGTERM')
    await once(child, 'close')

    const homeless = inside(['doctor'], { DARKROOM_HOME: '' })
    let words = ''
    homeless.stderr.on('data', (text: Buffer) => (words += text.toString()))
    const [code] = (await once(homeless, 'close')) as [number]
    expect(words).toMatch(
      /^error: HOME is not set, and user 54321 has no folder of its own\. Set HOME, or choose a folder with DARKROOM_HOME\.\n$/,
    )
    expect(code).toBe(1)
  })

  it.each(['SIGTERM', 'SIGKILL'] as const)('`npm start` and nothing of it is left after %s to npm', { timeout: slow }, async (signal) => {
    const [npm = ''] = onPath('npm')
    const child = spawn(npm, ['start', '--silent', '--', '--workers', '0'], {
      cwd: root,
      env: { ...process.env, ...env(), DARKROOM_PYTHON: interpreter() },
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    })
    let out = ''
    child.stdout.on('data', (text: Buffer) => (out += text.toString()))
    await eventually('it runs', () => Promise.resolve(out.includes('The API answers at')), 60_000)
    process.kill(child.pid ?? 0, signal)
    await once(child, 'exit')
    await eventually('nothing of it is left', () => Promise.resolve(processesWith(folder).length === 0), 20_000)
    expect(out).toContain('redis     stopped')
  })

  it('refuses to listen beyond this machine without a key', { timeout: slow }, async () => {
    const { code, stderr } = await run(['up', '--workers', '0'], { ...env(), DARKROOM_HOST: '0.0.0.0' })
    expect(code).toBe(1)
    expect(stderr).toMatch(/darkroom keys add/)
  })
})
