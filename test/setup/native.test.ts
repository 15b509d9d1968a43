/** The native addon in set-up: it is built where it can be, and where it cannot Darkroom says so and goes on. */
import { cpSync, existsSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { onPath } from '../../host/programs.mjs'
import { root } from '../../src/config.ts'
import { Sandbox, type Ended } from './sandbox.ts'

let sandbox: Sandbox
beforeEach(async () => {
  sandbox = await Sandbox.make()
  // A clone of its own: what others have built here is left alone.
  const clone = join(sandbox.folder, 'clone')
  mkdirSync(clone)
  for (const name of [
    'host',
    'setup',
    'src/web',
    'web/dist',
    'native',
    'python/requirements.lock',
    'python/requirements.in',
    'package.json',
    'package-lock.json',
  ])
    cpSync(join(root, name), join(clone, name), { recursive: true, filter: (path) => !path.startsWith(join(root, 'native', 'build')) })
  symlinkSync(join(root, 'node_modules'), join(clone, 'node_modules'))
})
afterEach(() => sandbox[Symbol.dispose]())

const setUp = (env: Record<string, string>): Promise<Ended> =>
  sandbox.start(join(sandbox.folder, 'clone', 'setup', 'run.mjs'), ['setup'], { ...(process.env as Record<string, string>), ...env }).ended
const inBuild = (name: string): string => join(sandbox.folder, 'clone', 'native', 'build', `${process.platform}-${process.arch}`, name)
const isBuilt = (): boolean => existsSync(inBuild('darkroom_native.node'))

describe('the native addon', () => {
  it('that cannot be built stops nothing: set-up shows what the compiler said, and goes on without it', async () => {
    const compiler = sandbox.program('broken-compiler', 'echo this compiler is broken >&2; exit 1')
    const { code, stderr } = await setUp({ CXX: compiler })
    expect(stderr).toMatch(/The native addon cannot be built\. It said:\n(?:.*\n)*.*broken-compiler/)
    expect(stderr).toMatch(/Darkroom runs without it and manages host memory only/)
    expect(stderr).toMatch(/Everything is in place/)
    expect(code, stderr).toBe(0)
    expect(isBuilt()).toBe(false)
  })

  it('begins anew where the checkout was moved since it was built', async () => {
    mkdirSync(inBuild('.'), { recursive: true })
    writeFileSync(inBuild('complete'), 'of other sources')
    writeFileSync(inBuild('CMakeCache.txt'), 'CMAKE_HOME_DIRECTORY:INTERNAL=/elsewhere/native\n')
    const compiler = sandbox.program('broken-compiler', 'echo this compiler is broken >&2; exit 1')
    const { stderr } = await setUp({ CXX: compiler })
    expect(stderr).toMatch(/The native addon cannot be built\. It said:\n(?:.*\n)*.*broken-compiler/)
  })

  it('is left out where there is no compiler', async () => {
    for (const name of ['python3', 'cmake', 'make', 'sh', 'env'])
      for (const program of onPath(name).slice(0, 1)) sandbox.program(name, `exec "${program}" "$@"`)
    const { code, stderr } = await setUp({ PATH: sandbox.bin, CXX: '' })
    expect(code, stderr).toBe(0)
    expect(stderr).toMatch(/^Everything is in place/)
    expect(isBuilt()).toBe(false)
  })
})
