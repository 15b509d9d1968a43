/** `setup/run.mjs` on machines on which it cannot go on: it says so before it fetches anything. */
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { pinsIn } from '../../host/places.mjs'
import { causeOf } from '../../setup/failure.mjs'
import { makeRoom } from '../../setup/room.mjs'
import { root } from '../../src/config.ts'
import { Sandbox, type Ended } from './sandbox.ts'

let sandbox: Sandbox
beforeEach(async () => {
  sandbox = await Sandbox.make()
})
afterEach(() => sandbox[Symbol.dispose]())

const run = (target: string, env: Record<string, string> = {}, node: string[] = []): Promise<Ended> =>
  sandbox.start('setup/run.mjs', [target], { ...sandbox.env(), PATH: sandbox.bin, ...env }, node).ended

/** A Python as far as set-up asks it. */
const python = (version: string, ensurepip = 'True'): string => `echo ${version} cpython 64 ${ensurepip}`

/** Its words, when it refused in order and fetched nothing. */
async function refusal(ending: Promise<Ended>): Promise<string> {
  const { code, stdout, stderr } = await ending
  expect(stderr).not.toMatch(/Fetching|\n\s+at /)
  expect(stdout).toBe('')
  expect(code, stderr).toBe(1)
  expect(existsSync(join(sandbox.home, 'python'))).toBe(false)
  return stderr
}

describe('set-up refuses', () => {
  it('without a fitting Python, with the range and what it found', async () => {
    sandbox.program('python3', python('3.14.1'))
    sandbox.program('python3.12', 'exit 127')
    sandbox.program('python', python('2.7.18'))
    expect(await refusal(run('setup'))).toMatch(
      /Darkroom needs Python 3\.11, 3\.12 or 3\.13\. Found: 3\.14\.1 \(.*python3\), 2\.7\.18 \(.*python\)\./,
    )
  })

  it('without any Python', async () => {
    expect(await refusal(run('setup', { PATH: join(sandbox.folder, 'cwd') }))).toMatch(/There is none on PATH\./)
  })

  it('with a Python without ensurepip, with the command that installs it', async () => {
    sandbox.program('python3', python('3.12.3', 'False'))
    sandbox.program('apt-get', 'exit 1')
    expect(await refusal(run('setup'))).toMatch(/Python 3\.12\.3 .* has no ensurepip.*`sudo apt-get install python3\.12-venv`/)
  })

  it('a home folder that cannot be written', async () => {
    const file = join(sandbox.folder, 'file')
    writeFileSync(file, '')
    sandbox.program('python3', python('3.13.0'))
    expect(await refusal(run('setup', { DARKROOM_HOME: join(file, 'home') }))).toMatch(
      /file\/home\/python cannot be written .*Set DARKROOM_HOME to a folder of your own/,
    )
  })

  it('Windows, with the way through WSL', async () => {
    const windows = ['--import', 'data:text/javascript,Object.defineProperty(process,"platform",{value:"win32"})']
    expect(await refusal(run('up', {}, windows))).toMatch(/On Windows, Darkroom runs inside WSL/)
  })

  it('a machine for which there is no Redis to fetch and none on PATH', async () => {
    const arm = ['--import', 'data:text/javascript,Object.defineProperty(process,"arch",{value:"arm64"})']
    expect(await refusal(run('demo', {}, arm))).toMatch(/There is no Redis ≥ 6\.2 on PATH: install it with /)
    const mac = ['--import', 'data:text/javascript,Object.defineProperty(process,"platform",{value:"darwin"})']
    expect(await refusal(run('demo', {}, mac))).toMatch(/`brew install redis`/)
  })

  it('a Node that is too old', async () => {
    const old = ['--import', 'data:text/javascript,Object.defineProperty(process,"versions",{value:{...process.versions,node:"18.20.8"}})']
    expect(await refusal(run('setup', {}, old))).toMatch(/Darkroom needs Node >=20\.19; this is 18\.20\.8/)
  })
})

it('the command says what is missing in a clone that was never set up', () => {
  for (const folder of ['bin', 'host']) cpSync(join(root, folder), join(sandbox.folder, folder), { recursive: true })
  const { status, stderr } = spawnSync(process.execPath, [join(sandbox.folder, 'bin', 'darkroom.mjs'), 'doctor'], { encoding: 'utf8' })
  expect(stderr).toBe('The npm packages are not there yet: run `npm run setup` in the folder of the repository, once.\n')
  expect(status).toBe(1)
})

it('a folder with too little room is refused with both numbers', () => {
  expect(() => makeRoom(sandbox.home, 1e18)).toThrow(/needs 1000000000\.0 GB, and its disk has \d+\.\d GB free/)
  expect(() => makeRoom(sandbox.home, 1)).not.toThrow()
})

it('what npm and pip say at length becomes a sentence', () => {
  expect(causeOf('ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device')).toMatch(/disk is full/)
  expect(causeOf('npm error code ENOTFOUND')).toMatch(/offline/)
  expect(causeOf('SyntaxError: invalid syntax')).toBe('')
})

it('of several Pythons the first that fits is taken, `python3` before others', async () => {
  sandbox.program('python3', python('3.14.0'))
  sandbox.program('python3.13', python('3.13.2', 'False'))
  const fitting = sandbox.program('python3.11', `[ "$2" = -m ] && { echo "made by 3.11"; exit 7; }; ${python('3.11.9')}`)
  const { code, stderr } = await run('setup')
  expect(stderr, fitting).toMatch(/environment of Python 3\.11\.9/)
  expect(stderr).toMatch(/Python could not make an environment in .*It said:\nmade by 3\.11/s)
  expect(code).toBe(1)
})

it('the lock files hold no host of a registry', () => {
  const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as { packages: Record<string, { resolved?: string }> }
  expect(Object.keys(lock.packages).length).toBeGreaterThan(50)
  expect(Object.entries(lock.packages).filter(([, { resolved }]) => resolved !== undefined)).toEqual([])
  const requirements = readFileSync(join(root, 'python', 'requirements.lock'), 'utf8')
  expect(requirements).toMatch(/^torch==\d+\.\d+\.\d+ \\$/m)
  expect(requirements).toMatch(/^torch==\d+\.\d+\.\d+\+cpu \\$/m)
  for (const lock of [requirements, readFileSync(join(root, 'setup', 'native', 'cmake.lock'), 'utf8')]) {
    expect(
      lock.split('\n').filter((line) => line && !/^#|^[\w.-]+==[\w.+]+ \\$|^ {4}--hash=sha256:[0-9a-f]{64}(?: \\)?$/.test(line)),
    ).toEqual([])
    expect(pinsIn(lock).filter(({ line }) => !/^\S+ --hash=/.test(line))).toEqual([])
    expect(lock).not.toMatch(/https?:/)
  }
})

it('set-up uses nothing but what Node brings', () => {
  const files = ['host', 'setup'].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
      .filter((file) => file.endsWith('.mjs'))
      .map((file) => join(root, folder, file)),
  )
  const imports = files.flatMap((file) =>
    [...readFileSync(file, 'utf8').matchAll(/\bfrom '([^']+)'|\bimport\('([^']+)'\)/g)].map(([, named, typed]) => named ?? typed ?? ''),
  )
  expect(imports.length).toBeGreaterThan(20)
  expect(imports.filter((from) => !/^node:|^(?:\.\.?\/)+(?:(?:host|native)\/)?[\w-]+\.mjs$/.test(from))).toEqual([])
})

it('with nothing missing it does nothing, and says so', async () => {
  // What the suites do without, such as the vocabulary of single files, is fetched by the first.
  for (const stderr of [/Everything is in place/, /^Everything is in place.*\n$/]) {
    const ended = await sandbox.start('setup/run.mjs', ['setup'], process.env as Record<string, string>).ended
    expect(ended).toMatchObject({ code: 0, stderr: expect.stringMatching(stderr) as string })
  }
})
