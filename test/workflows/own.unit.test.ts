/** Modules of workflows as they lie in a folder: what each is refused for, and that it keeps no other back. */
import { mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { operations } from '../../src/domains/index.ts'
import { OwnMachine } from '../../src/engine/own-machine.ts'
import { doneEvent } from '../../src/engine/transition.ts'
import { workflowId, workflows } from '../../src/workflows/index.ts'
import { readFolder } from '../../src/workflows/own/folder.ts'

let folder = ''
const write = (modules: Record<string, string>): Promise<unknown> =>
  Promise.all(Object.entries(modules).map(([name, text]) => writeFile(join(folder, name), text)))

/** A module of one workflow, whose one step is followed by `assigned`, and whose states hold more. */
const module = (name: string, { assigned = '{}', version = 1, more = '', top = '' } = {}): string => `
import { assign, defineWorkflow, setup, steps, z } from 'darkroom/workflows'
${top}
const machine = setup({ actors: steps('model.resolve') }).createMachine({
  context: ({ input }) => ({ ...input }),
  initial: 'resolving',
  states: {
    resolving: { invoke: { id: 'resolve', src: 'model.resolve', input: {}, onDone: { target: 'done', actions: assign(${assigned}) } } },
    done: { ${more || "type: 'final'"} },
  },
})
export const workflow = defineWorkflow({ name: '${name}', version: ${version}, input: z.strictObject({}), machine })
`

const read = async () => {
  const { loaded, refused } = await readFolder(folder, workflows, operations)
  return {
    loaded: loaded.map(({ workflow }) => workflowId(workflow)),
    refused: Object.fromEntries(refused.map(({ file, workflow, error }) => [workflow ?? file, `${error.code} ${error.message}`])),
    own: loaded,
  }
}

/** What the transition after its one step is refused for. */
const broken = async (name: string, output: unknown = {}): Promise<string> => {
  const own = (await read()).own.find(({ workflow }) => workflow.name === name)
  if (!own) throw new Error(`${name} was refused: ${JSON.stringify((await read()).refused)}`)
  const machine = new OwnMachine(own.workflow.machine)
  try {
    machine.next(machine.start({}, 1), doneEvent('resolve', output), '1.0', 2)
    return ''
  } catch (error) {
    return (error as Error).message
  }
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'darkroom-workflows-'))
})
afterEach(async () => {
  await rm(folder, { recursive: true })
  await mkdir(folder)
})
afterAll(() => rm(folder, { recursive: true }))

describe('a folder of workflows', () => {
  it('has those of every module in it, in TypeScript or JavaScript, with the helpers that they import', async () => {
    await mkdir(join(folder, 'shared'))
    await write({
      'one.ts': module('one', { top: "import { noted } from './shared/noted.ts'\nconst text: string = noted", assigned: '{ text }' }),
      'two.mjs': module('two'),
      'three.js':
        module('three') +
        module('three')
          .replace(/import.*/, '')
          .replaceAll('workflow =', 'later =')
          .replace('machine =', 'machine2 =')
          .replace(', machine }', ', version: 2, machine: machine2 }')
          .replace('version: 1, ', ''),
      'notes.md': 'not a module',
      'types.d.ts': 'export declare const nothing: never',
      'shared/noted.ts': "export const noted: string = 'noted'",
    })
    const { loaded, refused } = await read()
    expect(refused).toEqual({})
    expect(loaded.toSorted()).toEqual(['one@1', 'three@1', 'three@2', 'two@1'])
  })

  it('knows a content again under another file name, and tells it from any other, a helper’s among them', async () => {
    const helped = module('one', { top: "import { noted } from './noted.ts'\nexport { noted }" })
    await write({ 'one.ts': helped, 'noted.ts': module('two') + "export const noted = 'a'" })
    const hashes = async (): Promise<(string | undefined)[]> => {
      const { own } = await read()
      return ['one', 'two'].map((name) => own.find(({ workflow }) => workflow.name === name)?.sha256)
    }
    const before = await hashes()
    await rename(join(folder, 'one.ts'), join(folder, 'one-first.ts'))
    expect(await hashes()).toEqual(before)
    await write({ 'noted.ts': module('two') + "export const noted = 'b'" })
    const after = await hashes()
    expect(after[0]).not.toBe(before[0])
    expect(after[1]).not.toBe(before[1])
  })

  it('refuses each bad module by name, and has the others', async () => {
    await write({
      'good.ts': module('good'),
      'throws.ts': 'throw new Error("no key")',
      'endless.ts': 'while (true) {}',
      'syntax.ts': 'export const = 1',
      'nothing.ts': 'export const workflow = { name: "nothing" }',
      'reads.ts': "import { readFileSync } from 'node:fs'\nreadFileSync('/etc/passwd')",
      'leaves.ts': "import '../outside.ts'",
      'clock.ts': `const now = Date.now()\n${module('clock')}`,
      'unnamed.ts': module('Not a name'),
      'misspelt.ts': module('misspelt').replace("steps('model.resolve')", "steps('model.resolv')"),
      'undeclared.ts': module('undeclared').replace("src: 'model.resolve'", "src: 'model.resolver'"),
      'ours.ts': module('image-generation', { version: 7 }),
      'routed.ts': module('routed').replace(', machine }', ", machine, route: { method: 'post', path: '/routed', answers: 'x' } }"),
      'twin-a.ts': module('twin'),
      'twin-b.ts': `${module('twin')}// another`,
    })
    const { loaded, refused } = await read()
    expect(loaded).toEqual(['good@1', 'twin@1'])
    const only = (words: string): unknown => expect.stringMatching(new RegExp(`^workflow\\.unloadable ${words}`))
    expect(refused).toEqual({
      'throws.ts': only('throws\\.ts: it threw Error: no key'),
      'endless.ts': only('endless\\.ts: it did not end within 2 s'),
      'syntax.ts': only('syntax\\.ts: line 1: Expected identifier'),
      'nothing.ts': only('nothing\\.ts: it exports no workflow'),
      'reads.ts': only('reads\\.ts: line 1: it imports node:fs: a workflow’s module|reads\\.ts: line 1: it imports node:fs'),
      'leaves.ts': only('leaves\\.ts: line 1: it imports \\.\\./outside\\.ts'),
      'clock.ts': only('clock\\.ts: Date\\.now reads a clock'),
      'unnamed.ts': only('unnamed\\.ts: it threw Error: the name of a workflow'),
      'misspelt@1': only('misspelt\\.ts: misspelt@1 names operation model\\.resolv, which does not exist; did you mean model\\.resolve\\?'),
      'undeclared@1': only('undeclared\\.ts: undeclared@1 invokes model\\.resolver, .*; did you mean model\\.resolve\\?'),
      'image-generation@7': only('ours\\.ts: image-generation is the name of a workflow that comes with Darkroom'),
      'routed@1': only('routed\\.ts: routed@1 asks for a route'),
      'twin@1': only('twin-b\\.ts: twin@1 is in twin-a\\.ts too'),
    })
  })

  it('refuses one whose child is refused', async () => {
    const parent = module('parent')
      .replace('setup, steps', 'child, setup, steps')
      .replace("steps('model.resolve')", "{ ...steps('model.resolve'), ...child(other) }")
      .replace(
        'const machine',
        "const other = defineWorkflow({ name: 'other', input: z.strictObject({}), machine: setup({}).createMachine({}) })\nconst machine",
      )
    await write({ 'parent.ts': parent, 'other.ts': module('other').replace("src: 'model.resolve'", "src: 'model.gone'") })
    const { loaded, refused } = await read()
    expect(loaded).toEqual([])
    expect(refused['parent@1']).toMatch(/parent@1 names workflow other@1, which does not exist/)
  })

  it('is refused whole when it is not there', async () => {
    await expect(readFolder(join(folder, 'none'), workflows, operations)).rejects.toMatchObject({ code: 'workflow.unloadable' })
  })
})

describe('the machine of a workflow of one’s own', () => {
  it.each([
    ['a clock', '{ at: () => Date.now() }', /Date\.now reads a clock/],
    ['the date of now', '{ at: () => new Date().toISOString() }', /new Date\(\) reads a clock/],
    ['a stopwatch', '{ at: () => performance.now() }', /performance\.now reads a clock/],
    ['chance', '{ n: () => Math.random() }', /Math\.random draws lots/],
    ['a random id', '{ id: () => crypto.randomUUID() }', /crypto\.randomUUID draws lots/],
    ['a count of its own', '{ n: () => ++count }', /another state when it was applied a second time \(context\.n\)/],
    ['a change in place', '({ context }) => { (context.all ??= []).push(1); return { all: context.all } }', /second time \(context\.all\)/],
    ['a timer of Node', '{ n: () => setTimeout(() => {}, 1) }', /setTimeout is not a function/],
    ['no end', '{ n: () => { for (;;); } }', /did not end within 2 s/],
  ])('may not have %s in it', async (_, assigned, words) => {
    await write({ 'bad.ts': module('bad', { assigned, top: 'let count = 0' }) })
    expect(await broken('bad')).toMatch(words)
  })

  it('may not go in a circle of `always`', async () => {
    await write({ 'circle.ts': module('circle', { more: "always: 'done2' },\n    done2: { always: 'done'" }) })
    // Whichever notices first: XState counts the transitions, the judge has its two seconds.
    expect(await broken('circle')).toMatch(/Infinite loop detected|did not end within 2 s/)
  })

  it('may reckon with dates that it is given', async () => {
    await write({ 'dates.ts': module('dates', { assigned: "{ at: () => new Date('2020-01-01T00:00:00Z').getTime() + Math.max(1, 2) }" }) })
    expect(await broken('dates')).toBe('')
  })
})
