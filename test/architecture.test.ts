import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { root } from '../src/config.ts'
import { operations } from '../src/domains/index.ts'
import { checkImports, checkKeys, checkPythonMirror, checkScripts, checkShape } from './support/architecture.ts'

const gpuSteps = Object.entries(operations)
  .filter(([, operation]) => operation.lane === 'gpu')
  .map(([name]) => name)

describe('the architecture', () => {
  it('imports in one direction, without cycles, each library through its door', () => expect(checkImports(root)).toEqual([]))
  it('gives every domain the same shape', () => expect(checkShape(root)).toEqual([]))
  it('gives every script a contract', () => expect(checkScripts(root)).toEqual([]))
  it('has a Python function of the same name for every step on the device', () => expect(checkPythonMirror(root, gpuSteps)).toEqual([]))
  it('keeps Redis keys in one file', () => expect(checkKeys(root)).toEqual([]))
})

describe('a planted violation is found', () => {
  let copy: string
  beforeAll(() => {
    copy = mkdtempSync(join(tmpdir(), 'darkroom-architecture-'))
    for (const folder of ['src', 'redis', 'python/darkroom']) cpSync(join(root, folder), join(copy, folder), { recursive: true })
  })
  afterAll(() => rmSync(copy, { recursive: true, force: true }))

  const planted = (file: string, line: string, check: () => string[]): string[] => {
    const path = join(copy, file)
    const text = readFileSync(path, 'utf8')
    writeFileSync(path, `${text}\n${line}\n`)
    try {
      return check()
    } finally {
      writeFileSync(path, text)
    }
  }

  it.each([
    ['src/domains/inference/encode.ts', "import '../model/resolve.ts'", /domains never import one another/],
    ['src/engine/store.ts', "import '../api/problem.ts'", /engine may not import api/],
    ['src/workers/tools.ts', "import '../engine/engine.ts'", /through attempt\.ts only/],
    ['src/errors.ts', "import './redis.ts'\nimport './config.ts'", /import cycle/],
    ['src/engine/engine.ts', "import { Queue } from 'bullmq'", /whose door is elsewhere/],
    ['src/api/problem.ts', "import { spawn } from 'node:child_process'", /whose door is elsewhere/],
  ])('in %s: %s', (file, line, rule) => {
    expect(planted(file, line, () => checkImports(copy)).join('\n')).toMatch(rule)
  })

  it('in a script without a header, an unnamed argument, a key spelled outside', () => {
    expect(planted('redis/takeStep.lua', 'local x = ARGV[99]', () => checkScripts(copy)).join('\n')).toMatch(/ARGV\[99\]/)
    expect(planted('src/log.ts', "const key = 'darkroom:x'", () => checkKeys(copy)).join('\n')).toMatch(/src\/log\.ts/)
    expect(checkPythonMirror(copy, ['inference.dream']).join('\n')).toMatch(/no function dream/)
  })
})
