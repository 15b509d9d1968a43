/** docs/extending.md, followed: its recipes are applied to a copy of the sources, and what comes out is checked. */
import { execFile } from 'node:child_process'
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { root } from '../../src/config.ts'
import { interpreter } from '../support/child.ts'

const run = promisify(execFile)
let copy: string
let seen: Record<string, string[]>
/** What Python has in the copy. */
let python: Record<string, unknown>

beforeAll(async () => {
  copy = await mkdtemp(join(tmpdir(), 'darkroom-extending-'))
  for (const each of ['src', 'host', 'redis', 'python/darkroom', 'types', 'package.json', 'tsconfig.json'])
    await cp(join(root, each), join(copy, each), { recursive: true })
  await symlink(join(root, 'node_modules'), join(copy, 'node_modules'))
  for (const block of recipes(await readFile(join(root, 'docs/extending.md'), 'utf8'))) await apply(block)
  await run(process.execPath, ['--import', 'tsx', 'src/workers/python/write-schema.ts'], { cwd: copy })
  await writeFile(join(copy, 'look.ts'), look)
  const { stdout } = await run(process.execPath, ['--import', 'tsx', 'look.ts'], { cwd: copy })
  seen = JSON.parse(stdout) as typeof seen
  const asked = { cwd: join(copy, 'python'), env: { ...process.env, PYTHONPATH: '.' } }
  python = JSON.parse((await run(interpreter(), ['-c', lookInPython], asked)).stdout) as typeof python
}, 120_000)
afterAll(() => rm(copy, { recursive: true, force: true }))

interface Block {
  language: string
  file: string
  lines: string[]
}

const recipes = (text: string): Block[] =>
  [...text.matchAll(/^```(\w+) (\S+)\n([\s\S]*?)^```$/gm)].map(([, language = '', file = '', body = '']) => {
    return { language, file, lines: body.split('\n').slice(0, -1) }
  })

/**
 * A `diff` block: lines that begin with a blank or a minus are there once, those that begin with a plus come in their
 * place or behind them.
 */
async function apply({ language, file, lines }: Block): Promise<void> {
  const path = join(copy, file)
  await mkdir(dirname(path), { recursive: true })
  if (language !== 'diff') return writeFile(path, `${lines.join('\n')}\n`)
  let text = await readFile(path, 'utf8')
  let at = 0
  for (const line of lines) {
    const [mark, rest] = [line.slice(0, 1), line.slice(1)]
    if (mark === '+') {
      text = `${text.slice(0, at)}${rest}\n${text.slice(at)}`
      at += rest.length + 1
      continue
    }
    const found = text.indexOf(`${rest}\n`, at)
    if (found < 0) throw new Error(`${file} has no line ${rest} here any more`)
    at = mark === '-' ? found : found + rest.length + 1
    if (mark === '-') text = text.slice(0, found) + text.slice(found + rest.length + 1)
  }
  await writeFile(path, text)
}

/** Says what the product in the copy has. */
const look = `
import { createApp } from './src/api/app.ts'
import { operations } from './src/domains/index.ts'
import { samplers } from './src/domains/samplers.ts'
import { Registry } from './src/engine/registry.ts'
import { families } from './src/models/families.ts'
import { workflowId, workflows } from './src/workflows/index.ts'

const infos = new Registry(workflows, operations).infos()
const log = { debug() {}, error() {} }
const engine = { devices: {}, workflows: () => infos }
const parts = { engine, config: { host: '127.0.0.1', allowedHosts: [], allowedOrigins: [] }, log, keys: {} }
const answer = await createApp(parts as never).request('http://localhost/openapi.json', { headers: { Host: 'localhost' } }, {})
const paths = Object.keys((await answer.json() as { paths: object }).paths)
console.log(JSON.stringify({ operations: Object.keys(operations), workflows: workflows.map(workflowId), samplers, families, paths }))
`

const lookInPython = `
import json
from darkroom.families import families
from darkroom.registry import operation
from darkroom.samplers import SAMPLERS

sampler = SAMPLERS["DPM++ 2S"]
print(json.dumps({
    "operation": operation("inference.measure").__name__,
    "sampler": [sampler["class"], len(sampler["schedules"])],
    "family": families()["distilled"].condition.__qualname__,
}))
`

describe('docs/extending.md', () => {
  it('has five recipes', async () => {
    const headings = [...(await readFile(join(root, 'docs/extending.md'), 'utf8')).matchAll(/^## (.+)$/gm)].map(([, heading]) => heading)
    expect(headings).toEqual(['An operation', 'A workflow', 'A sampler', 'A route', 'A family'])
  })

  it('makes sources whose types fit', async () => {
    await rm(join(copy, 'look.ts'))
    const config = { extends: './tsconfig.json', include: ['types', 'src'] }
    await writeFile(join(copy, 'tsconfig.recipes.json'), JSON.stringify(config))
    const tsc = run(join(root, 'node_modules/.bin/tsc'), ['-p', 'tsconfig.recipes.json'], { cwd: copy })
    expect(await tsc.catch((error: { stdout: string }) => error)).toMatchObject({ stdout: '' })
  }, 120_000)

  it('adds an operation with its workflow, its route and its Python function', () => {
    expect(seen['operations']).toContain('inference.measure')
    expect(seen['workflows']).toContain('inference-measure@1')
    expect(seen['paths']).toContain('/v1/prompts/measure')
    expect(python['operation']).toBe('measure')
  })

  it('adds a workflow', () => expect(seen['workflows']).toContain('fitting-picture@1'))

  it('adds a sampler to both sides', () => {
    expect(seen['samplers']).toContain('DPM++ 2S')
    expect(python['sampler']).toEqual(['DpmPlus2S', 8])
  })

  it('adds a route', () => expect(seen['paths']).toContain('/v1/samplers'))

  it('adds a family that has what the protocol of families asks for', () => {
    expect(seen['families']).toContain('distilled')
    expect(python['family']).toBe('Distilled.condition')
  })
})
