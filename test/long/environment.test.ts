import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { environmentOf, readyEnvironment, type Mark } from '../../host/places.mjs'
import { ask } from '../../host/programs.mjs'
import type { EnvironmentChoice } from '../../setup/python.mjs'
import { lockOf, Sandbox, startIndex, torch, wheel, writeWheels, type Index, type Running } from '../setup/sandbox.ts'

/** Nobody listens there. */
const nowhere = 'http://127.0.0.1:9/simple/'

let sandbox: Sandbox
let index: Index
/** A file here makes one stage of set-up stop at a known place; `held` appears when it has. */
let holds: string
let choice: EnvironmentChoice

beforeAll(async () => {
  sandbox = await Sandbox.make()
  holds = join(sandbox.folder, 'holds')
  mkdirSync(holds)
  const held = join(holds, 'held')
  // Half of what `python -m venv` does, then nothing more.
  sandbox.program(
    'python3',
    `if [ "$1 $2 $3" = "-I -m venv" ] && [ -e "${holds}/venv" ]; then "${sandbox.python}" -m venv --without-pip "$4"; : > "${held}"; exec sleep 60; fi
exec "${sandbox.python}" "$@"`,
  )
  // Every Python of a finished environment reads this at its start: the inspection before the mark is one.
  const waits = `import os, time; os.path.exists("${holds}/mark") and (open("${held}", "w").close(), time.sleep(60))\n`
  const wheels = join(sandbox.folder, 'wheels')
  writeWheels(sandbox.python, wheels, {
    ...torch('0.9.9+cpu'),
    ...wheel('alpha', '1.0'),
    ...wheel('beta', '2.0', { files: { 'beta_waits.pth': waits } }),
  })
  index = await startIndex(wheels)
  const lock = join(sandbox.folder, 'requirements.lock')
  // No index serves the GPU build.
  writeFileSync(lock, `torch==0.9.9 --hash=sha256:${'0'.repeat(64)}\n${lockOf(wheels)}`)
  choice = { home: sandbox.home, lock, cpuIndex: nowhere }
})
afterAll(async () => {
  await index[Symbol.asyncDispose]()
  sandbox[Symbol.dispose]()
})

const setUp = (home = sandbox.home, url = index.url): Running =>
  sandbox.start('test/setup/set-up.mjs', [JSON.stringify({ environment: { ...choice, home } })], sandbox.env({ PIP_INDEX_URL: url }))

const result = async ({ ended }: Running): Promise<Mark & { interpreter: string }> => {
  const { code, stdout, stderr } = await ended
  expect(code, stderr).toBe(0)
  return JSON.parse(stdout) as Mark & { interpreter: string }
}

describe('the Python environment', () => {
  it('killed at every stage in turn and run again, it ends whole, and nothing that it started lives on', async () => {
    const untilHeld = (stage: string) => async () => {
      writeFileSync(join(holds, stage), '')
      await vi.waitUntil(() => existsSync(join(holds, 'held')), { timeout: 60_000, interval: 20 })
    }
    const stages: Record<string, () => Promise<void>> = {
      'half of the environment made': untilHeld('venv'),
      'torch on its way': () => index.hold('torch-'),
      'the packages on their way': () => index.hold('beta-'),
      'all installed, no mark yet': untilHeld('mark'),
    }
    for (const [stage, reached] of Object.entries(stages)) {
      const running = setUp()
      const early = running.ended.then(({ stderr }) => Promise.reject(new Error(`ended before ${stage}\n${stderr}`)))
      await Promise.race([reached(), early])
      expect(sandbox.processes().length, stage).toBeGreaterThan(1)
      running.process.kill('SIGKILL')
      await running.ended
      early.catch(() => undefined)
      await vi.waitUntil(() => sandbox.processes().length === 0, { timeout: 5000, interval: 20 })
      expect(readyEnvironment(choice), stage).toBeUndefined()
      for (const file of readdirSync(holds)) rmSync(join(holds, file))
    }
    // Without its mark even a whole environment is made anew.
    const { folder } = environmentOf(choice)
    expect(readdirSync(join(folder, 'bin'))).toContain('python')
    writeFileSync(join(folder, 'left-over'), '')

    const made = await result(setUp())
    expect(made).toMatchObject({ interpreter: join(folder, 'bin', 'python'), torch: '0.9.9+cpu', gpu: null })
    const { out } = await ask(made.interpreter, ['-c', 'import alpha, beta, torch; print(alpha.version, beta.version, torch.version)'])
    expect(out.trim()).toBe('1.0 2.0 0.9.9+cpu')
    expect(readdirSync(folder)).not.toContain('left-over')
    expect(readdirSync(folder)).not.toContain('tmp')
    expect(readyEnvironment(choice)).toEqual(made)
  }, 240_000)

  it('a second set-up waits for the first, also by another path; neither writes anywhere else', async () => {
    const [home, link] = [join(sandbox.folder, 'second home'), join(sandbox.folder, 'link')]
    mkdirSync(home)
    symlinkSync(home, link)
    sandbox.program('nvidia-smi', 'exit 0')
    const before = index.served.length
    const beside = (): string[][] => ['cwd', 'tmp', 'user'].map((folder) => readdirSync(join(sandbox.folder, folder)))
    const found = beside()
    const both = [setUp(home), setUp(link)]
    const [one, two] = await Promise.all(both.map(result))
    expect({ ...one, interpreter: '' }).toEqual({ ...two, interpreter: '' })
    expect(index.served.slice(before).toSorted()).toEqual([...new Set(index.served.slice(before))].toSorted())
    const words = (await Promise.all(both.map(({ ended }) => ended))).map(({ stderr }) => stderr)
    expect(words.filter((text) => /Another set-up \(pid \d+\) is making the Python environment/.test(text))).toHaveLength(1)
    // Before it fetches: how much, where, how long. Beside a GPU the CPU build all the same, and how to get the other.
    const [maker = ''] = words.filter((text) => text.includes('Fetching'))
    expect(maker).toMatch(/^Fetching .* for the CPU: 310 MB \(1\.3 GB on disk\) into .*(second home|link).*two minutes/)
    expect(maker).toContain('`-- --gpu`')

    expect(beside()).toEqual(found)

    const again = await setUp(home).ended
    expect(again).toMatchObject({ code: 0, stderr: '' })
  }, 120_000)

  it('that cannot be made leaves nothing but its log, and says which step failed', async () => {
    const home = join(sandbox.folder, 'third home')
    const { code, stderr } = await setUp(home, nowhere).ended
    expect(code).toBe(1)
    expect(stderr).toMatch(/✓ environment of Python .*✗ torch/s)
    expect(readdirSync(join(home, 'python'))).toEqual([expect.stringMatching(/^cpu-\w+\.log$/)])
  })

  it('one whose interpreter is gone is not believed', async () => {
    const { interpreter, mark } = environmentOf({ ...choice, home: join(sandbox.folder, 'second home') })
    expect(JSON.parse(readFileSync(mark, 'utf8'))).toMatchObject({ torch: '0.9.9+cpu' })
    rmSync(interpreter)
    expect(readyEnvironment({ ...choice, home: join(sandbox.folder, 'second home') })).toBeUndefined()
  })
})
