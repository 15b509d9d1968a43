import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { pinsIn, type Pin } from '../../host/places.mjs'
import { ask } from '../../host/programs.mjs'
import { runBound } from '../../setup/bound.mjs'
import { installTorch, pipBy } from '../../setup/python.mjs'
import { lockOf, Sandbox, startIndex, torch, wheel, writeWheels, type Index, type Wheels } from '../setup/sandbox.ts'

const cpu = torch('0.9.9+cpu')
const cuda = torch('0.9.9', { cuda: '13.0', requires: ['nvidia-fake==1.0'] })
const nvidia = wheel('nvidia_fake', '1.0')
/** Nobody listens there. */
const unreachable = 'http://127.0.0.1:9/simple/'

let sandbox: Sandbox
let interpreter: string
/** Both builds of torch by their hashes. */
let pins: Pin[]
/** Where pip installs. */
let packages: string
const indexes: Index[] = []

beforeAll(async () => {
  sandbox = await Sandbox.make()
  const { code, err } = await ask(sandbox.python, ['-m', 'venv', join(sandbox.folder, 'venv')], { timeoutMs: 60_000 })
  expect(code, err).toBe(0)
  interpreter = join(sandbox.folder, 'venv', 'bin', 'python')
  const locked = join(sandbox.folder, 'locked')
  writeWheels(sandbox.python, locked, { ...cpu, ...cuda })
  pins = pinsIn(lockOf(locked))
  packages = (await ask(interpreter, ['-c', 'import sysconfig; print(sysconfig.get_path("purelib"))'])).out.trim()
})
afterEach(async () => {
  for (const index of indexes.splice(0)) await index[Symbol.asyncDispose]()
  for (const name of readdirSync(packages)) if (isOurs.test(name)) rmSync(join(packages, name), { recursive: true })
})
afterAll(() => sandbox[Symbol.dispose]())

const indexOf = async (wheels: Wheels): Promise<Index> => {
  const folder = join(sandbox.folder, `index-${Math.random().toString(36).slice(2)}`)
  writeWheels(sandbox.python, folder, wheels)
  const index = await startIndex(folder)
  indexes.push(index)
  return index
}

/** @returns the build that is installed afterwards, and what else */
async function choose(pipEnv: Record<string, string>, choice: { gpu?: boolean; cpuIndex?: string }): Promise<string[]> {
  const pip = pipBy(interpreter, sandbox.folder, (command, args) => runBound(command, args, { env: sandbox.env(pipEnv) }))
  await installTorch(pins, choice, pip, join(sandbox.folder, 'log'))
  return installed()
}

const isOurs = /^(torch|nvidia)/
const installed = (): string[] =>
  readdirSync(packages)
    .filter((name) => isOurs.test(name) && name.endsWith('.dist-info'))
    .map((name) => name.replace('.dist-info', ''))
    .toSorted()

describe('torch for the CPU', () => {
  it('is the +cpu build that pip finds by itself; no other index is asked', async () => {
    const own = await indexOf({ ...cpu, ...cuda, ...nvidia })
    const other = await indexOf(cpu)
    expect(await choose({ PIP_INDEX_URL: own.url }, { cpuIndex: other.url })).toEqual(['torch-0.9.9+cpu'])
    expect(other.served).toEqual([])
  })

  it("is found in a folder that the machine's pip configuration names", async () => {
    const folder = join(sandbox.folder, 'on disk')
    writeWheels(sandbox.python, folder, cpu)
    const config = join(sandbox.folder, 'pip.conf')
    writeFileSync(config, `[global]\nindex-url = ${unreachable}\nretries = 0\nfind-links = file://${encodeURI(folder)}\n`)
    expect(await choose({ PIP_CONFIG_FILE: config }, { cpuIndex: unreachable })).toEqual(['torch-0.9.9+cpu'])
  })

  it("is looked for in PyTorch's own index when pip finds only the CUDA build", async () => {
    const own = await indexOf({ ...cuda, ...nvidia })
    const other = await indexOf(cpu)
    expect(await choose({ PIP_INDEX_URL: own.url }, { cpuIndex: other.url })).toEqual(['torch-0.9.9+cpu'])
    expect(own.served).toEqual([])
  })

  it('is looked for there too when a constraints file of the machine names torch', async () => {
    const own = await indexOf({ ...cuda, ...nvidia })
    const other = await indexOf(cpu)
    const constraints = join(sandbox.folder, 'constraints.txt')
    writeFileSync(constraints, 'torch<=1.0\n')
    expect(await choose({ PIP_INDEX_URL: own.url, PIP_CONSTRAINT: constraints }, { cpuIndex: other.url })).toEqual(['torch-0.9.9+cpu'])
  })

  it('is never the CUDA build unasked: a sentence says what to do, after seconds', async () => {
    const own = await indexOf({ ...cuda, ...nvidia })
    const startedAt = performance.now()
    await expect(choose({ PIP_INDEX_URL: own.url }, { cpuIndex: unreachable })).rejects.toThrow(
      /finds no CPU build of torch==0\.9\.9 for this Python, neither by itself nor in PyTorch's own index .*PIP_EXTRA_INDEX_URL.*`-- --gpu` takes the CUDA build/,
    )
    expect(performance.now() - startedAt).toBeLessThan(30_000)
    expect(own.served).toEqual([])
    expect(installed()).toEqual([])
  })

  it('offline, the sentence speaks of the network', async () => {
    await expect(choose({ PIP_INDEX_URL: unreachable }, { cpuIndex: unreachable })).rejects.toThrow(/Check the network/)
  })

  it('a broken wheel is refused in the words of pip', async () => {
    const broken = join(sandbox.folder, 'broken')
    mkdirSync(broken)
    writeFileSync(join(broken, 'torch-0.9.9+cpu-py3-none-any.whl'), 'no archive')
    await expect(choose({ PIP_FIND_LINKS: broken, PIP_NO_INDEX: '1' }, {})).rejects.toThrow(
      /pip (could not install|refused) torch==0\.9\.9.*It said:/s,
    )
  })
})

describe('torch for the GPU', () => {
  it('is the plain build, also where a CPU build is at hand', async () => {
    const own = await indexOf({ ...cpu, ...cuda, ...nvidia })
    expect(await choose({ PIP_INDEX_URL: own.url }, { gpu: true })).toEqual(['torch-0.9.9'])
  })

  it('is no build that the lock does not name: an environment of one’s own is the way', async () => {
    const own = await indexOf(torch('0.9.9+rocm7.1'))
    await expect(choose({ PIP_INDEX_URL: own.url }, { gpu: true })).rejects.toThrow(/finds no GPU build.*DARKROOM_PYTHON/)
    expect(installed()).toEqual([])
  })

  it('is never a CPU build', async () => {
    const own = await indexOf(cpu)
    await expect(choose({ PIP_INDEX_URL: own.url }, { gpu: true })).rejects.toThrow(/pip finds no GPU build of torch==0\.9\.9/)
    expect(installed()).toEqual([])
  })
})

describe('whatever is installed', () => {
  it('is the very file that the lock names: one with other bytes under the same name is refused', async () => {
    const other = await indexOf(torch('0.9.9+cpu', { cuda: 'not what was locked' }))
    await expect(choose({ PIP_INDEX_URL: other.url }, { cpuIndex: unreachable })).rejects.toThrow(
      /pip refused torch==0\.9\.9\+cpu: a file is not the one that python\/requirements\.lock names by its SHA-256/,
    )
    expect(installed()).toEqual([])
  })

  it('is a wheel: nothing is built, which would run code of its package', async () => {
    const folder = join(sandbox.folder, 'source')
    const inside = join(folder, 'torch-0.9.9+cpu')
    mkdirSync(inside, { recursive: true })
    writeFileSync(join(inside, 'setup.py'), `open(${JSON.stringify(join(sandbox.folder, 'was-run'))}, "w")\n`)
    const archive = join(folder, 'torch-0.9.9+cpu.tar.gz')
    expect((await ask('tar', ['-czf', archive, '-C', folder, 'torch-0.9.9+cpu'])).code).toBe(0)
    await expect(choose({ PIP_FIND_LINKS: folder, PIP_NO_INDEX: '1' }, {})).rejects.toThrow(/finds no CPU build/)
    expect(existsSync(join(sandbox.folder, 'was-run'))).toBe(false)
  })
})
