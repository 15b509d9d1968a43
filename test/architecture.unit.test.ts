import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { root } from '../src/config.ts'
import { operations } from '../src/domains/index.ts'
import {
  checkImageRequest,
  checkImports,
  checkKeys,
  checkLengths,
  checkPythonMirror,
  checkScripts,
  checkShape,
} from './support/architecture.ts'

const steps = Object.keys(operations)
const gpuSteps = Object.entries(operations)
  .filter(([, operation]) => operation.lane === 'gpu')
  .map(([name]) => name)

/** Every rule, by what it says of the files that keep it. */
const rules: Record<string, (root: string) => string[]> = {
  'imports in one direction, without circles, each library through its door': checkImports,
  'gives every domain the same shape': (root) => checkShape(root, steps),
  'has no file that is two concepts long': checkLengths,
  'declares the image request once': checkImageRequest,
  'gives every script a contract': checkScripts,
  'has a Python function of the same name for every step on the device': (root) => checkPythonMirror(root, gpuSteps),
  'keeps Redis keys in one file': checkKeys,
}

describe('the architecture', () => {
  it.each(Object.keys(rules))('%s', (rule) => expect(rules[rule]?.(root)).toEqual([]))
})

/**
 * What each rule says when a file breaks it: the file, the lines that are added to it (null: it is removed), the
 * sentence.
 */
const violations: [file: string, lines: string | null, sentence: RegExp][] = [
  ['src/new-leaf.ts', 'export {}', /lies in no room/],
  ['src/drawing/brush.ts', 'export {}', /lies in no room/],
  ['src/engine/store.ts', "import '../api/problem.ts'", /engine may not import api/],
  ['src/engine/store.ts', "import type { Problem } from '../api/problem.ts'", /engine may not import api/],
  ['src/farm/record.ts', "import '../workflows/step.ts'", /farm may not import workflows/],
  ['src/web/page.ts', "import '../api/app.ts'", /web may not import api/],
  ['src/web/table.tsx', "import '../api/app.ts'", /web may not import api/],
  ['src/api/page.ts', "import { render } from 'preact'", /imports preact, whose door is elsewhere/],
  ['src/domains/inference/encode.ts', "import '../model/resolve.ts'", /domains never import one another/],
  ['src/workers/tools.ts', "import '../engine/engine.ts'", /through attempt\.ts only/],
  ['src/client/types.ts', "import '../errors.ts'", /the client imports types only/],
  ['src/log.ts', "import '../setup/npm.mjs'", /outside src\/ only host\/ may be imported/],
  ['src/log.ts', "import '../package.json'", /outside src\/ only host\/ may be imported/],
  ['src/errors.ts', "import './redis.ts'\nimport './config.ts'", /import cycle: .*errors\.ts/],
  ['src/errors.ts', "import type { Config } from './config.ts'", /import cycle: .*errors\.ts/],
  ['src/engine/engine.ts', "import { Queue } from 'bullmq'", /imports bullmq, whose door is elsewhere/],
  ['src/api/problem.ts', "import { spawn } from 'node:child_process'", /imports node:child_process, whose door is elsewhere/],
  ['src/client/types.ts', "import { readFile } from 'node:fs/promises'", /imports node:fs\/promises, whose door is elsewhere/],
  ['src/api/problem.ts', "import express from 'express'", /imports express, which has no door/],
  ['src/domains/weather/index.ts', 'export {}', /src\/domains\/weather has no operation in src\/domains\/index\.ts/],
  ['src/domains/memory/index.ts', null, /src\/domains\/memory has no index\.ts/],
  ['src/domains/memory/copy.ts', null, /src\/domains\/memory\/copy\.ts does not exist, but memory\.copy is an operation/],
  ['src/engine/utils.ts', 'export {}', /not into a drawer/],
  ['src/log.ts', '\n'.repeat(400) + 'export {}', /src\/log\.ts has \d+ lines/],
  ['python/darkroom/errors.py', '\n'.repeat(400) + 'x = 1', /python\/darkroom\/errors\.py has \d+ lines/],
  ['src/api/route.ts', 'const Form = z.strictObject({ sampler: z.string() })', /src\/api\/route\.ts declares sampler again/],
  ['src/api/route.ts', 'const Form = {\n  negativePrompt: z\n    .string(),\n}', /src\/api\/route\.ts declares negativePrompt again/],
  ['redis/takeStep.lua', 'local x = ARGV[99]', /takeStep\.lua uses ARGV\[99\] without naming it/],
  ['redis/takeNothing.lua', 'return 1', /does not begin with `-- takeNothing: `/],
  ['redis/takeNothing.lua', '-- takeNothing: for the test', /takeNothing\.lua is called nowhere/],
  ['python/darkroom/inference.py', null, /python\/darkroom\/inference\.py does not exist, but inference\.\w+ runs there/],
  ['src/log.ts', "const key = 'darkroom:x'", /src\/log\.ts spells a Redis key/],
]

describe('a planted violation is found', () => {
  let copy: string
  beforeAll(() => {
    copy = mkdtempSync(join(tmpdir(), 'darkroom-architecture-'))
    for (const folder of ['src', 'redis', 'python/darkroom']) cpSync(join(root, folder), join(copy, folder), { recursive: true })
  })
  afterAll(() => rmSync(copy, { recursive: true, force: true }))

  it.each(violations.map(([file, lines, sentence]) => ({ file, lines, sentence })))('in $file: $sentence', ({ file, lines, sentence }) => {
    const path = join(copy, file)
    const isNew = !existsSync(path)
    const text = isNew ? '' : readFileSync(path, 'utf8')
    mkdirSync(dirname(path), { recursive: true })
    if (lines === null) rmSync(path)
    else writeFileSync(path, `${text}\n${lines}\n`.trimStart())
    try {
      const found = Object.values(rules).flatMap((check) => check(copy))
      expect(found.join('\n')).toMatch(sentence)
    } finally {
      if (isNew) rmSync(path)
      else writeFileSync(path, text)
    }
  })

  it('of the Python mirror, in a function that is missing', () => {
    expect(checkPythonMirror(copy, ['inference.dream']).join('\n')).toMatch(/no function dream/)
  })
})
