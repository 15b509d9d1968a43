/** Workflows of one's own through the doors: the examples, reading again, versions, and modules that are wrong. */
import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { root } from '../../src/config.ts'
import type { Session, WorkflowReload } from '../../src/client/index.ts'
import { keys } from '../../src/keys.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { eventually } from '../support/wait.ts'

const module = (name: string, { version = 1, says = 'one', assigned = '{}' } = {}): string => `
import { assign, defineWorkflow, setup, steps, z } from 'darkroom/workflows'
let count = 0
const machine = setup({ actors: steps('model.resolve') }).createMachine({
  context: { said: '' },
  initial: 'waiting',
  states: {
    waiting: { on: { 'signal.go': { target: 'done', actions: assign(${assigned}) } } },
    done: { type: 'final' },
  },
  output: ({ context }) => ({ said: '${says}' }),
})
export const workflow = defineWorkflow({ name: '${name}', version: ${version}, input: z.strictObject({}), machine })
`

describe('workflows of one’s own', () => {
  let farm: Farm
  let folder = ''
  const write = (name: string, text: string): Promise<void> => writeFile(join(folder, name), text)
  const reload = async (): Promise<WorkflowReload> => {
    const { status, json, text } = await farm.client.post('/v1/workflows/reload')
    if (status !== 200) throw new Error(`reload → ${status} ${text}`)
    return json as WorkflowReload
  }
  const start = (workflow: string, input: Record<string, unknown> = {}) => farm.client.post('/v1/sessions', { workflow, input })
  const begin = async (workflow: string, input: Record<string, unknown> = {}): Promise<string> => {
    const { status, json, text } = await start(workflow, input)
    if (status !== 202) throw new Error(`submit → ${status} ${text}`)
    return (json as Session).id
  }
  const signal = (id: string, type: string) => farm.client.post(`/v1/sessions/${id}/signal`, { type })
  const waits = (id: string, what: string): Promise<unknown> =>
    eventually(`${id} waits for ${what}`, async () => (await farm.get(id)).waiting === what)
  const said = async (id: string): Promise<unknown> => {
    await signal(id, 'go')
    return (await farm.until(id, 'succeeded')).output?.['said']
  }

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'darkroom-workflows-'))
    await cp(join(root, 'examples'), folder, { recursive: true })
    await write('talk.ts', module('talk'))
    farm = await startFarm({ settings: { DARKROOM_WORKFLOWS: folder }, fake: ['--call-ms', '1'] })
  })
  afterAll(async () => {
    await farm[Symbol.asyncDispose]()
    await rm(folder, { recursive: true })
  })

  it('are listed with schema, diagram, states and content', async () => {
    const { status, json } = await farm.client.get('/v1/workflows/judged-picture')
    expect(status).toBe(200)
    expect(json.source).toEqual({ file: 'judged-picture.ts', sha256: expect.stringMatching(/^[0-9a-f]{64}$/) as string })
    expect(json.inputSchema.properties.tries.maximum).toBe(10)
    expect(json.diagram).toContain('drawing --> judging: done')
    const { root: top, transitions } = json.graph
    expect(top.states.map(({ name }: { name: string }) => name)).toEqual(['drawing', 'judging', 'done'])
    expect(top.states[0]).toMatchObject({ type: 'atomic', steps: ['image-generation@1'], states: [], isFailure: false })
    expect(transitions).toContainEqual({ from: '(machine).judging', to: '(machine).done', on: 'signal.again', guard: 'isLast' })
    expect(transitions).toContainEqual({ from: '(machine).judging', to: '(machine).done', on: 'after 3600 s', guard: null })
    expect((await farm.client.get('/v1/workflows/image-generation')).json.source).toBeNull()
  })

  it('enlarge a picture once a person has approved it', async () => {
    const id = await begin('approved-upscale', { prompt: 'a red circle', seed: 7 })
    await waits(id, 'a timer')
    await signal(id, 'approve')
    const { output } = await farm.until(id, 'succeeded')
    expect(output).toMatchObject({ approved: true, images: [{ seed: 7, width: 128, height: 128 }] })
  })

  it('draw again until the judge is content, and no more often than they may', async () => {
    const id = await begin('judged-picture', { prompt: 'a red circle', seed: 7, tries: 2 })
    await waits(id, 'a timer')
    await signal(id, 'again')
    await eventually('the second picture', async () => (await farm.client.get(`/v1/sessions?parent=${id}`)).json.sessions.length === 2)
    await waits(id, 'a timer')
    await signal(id, 'again')
    expect((await farm.until(id, 'succeeded')).output).toMatchObject({ seed: 8, isGood: false })
  })

  it('draw a list one after another, past what fails', async () => {
    const id = await begin('nightly-pictures', { prompts: ['a', 'long '.repeat(3000), 'c'], seed: 3 })
    const { output } = await farm.until(id, 'succeeded')
    expect(output).toMatchObject({ images: [{ seed: 3 }, { seed: 5 }], failed: [{ code: 'api.invalid' }] })
  })

  it('may be changed before their first session, and never after it: the next version is another', async () => {
    await write('fresh.ts', module('fresh'))
    expect((await reload()).loaded).toContain('fresh@1')
    await write('fresh.ts', module('fresh', { says: 'two' }))
    expect((await reload()).refused).toEqual([])
    const first = await begin('fresh')
    await write('fresh.ts', module('fresh', { says: 'three' }))
    expect((await reload()).refused).toMatchObject([{ file: 'fresh.ts', workflow: 'fresh@1', error: { code: 'workflow.changed' } }])
    // This process has the used content still.
    const second = await begin('fresh')
    await write('fresh-2.ts', module('fresh', { version: 2, says: 'three' }))
    await write('fresh.ts', module('fresh', { says: 'two' }))
    const { loaded, refused } = await reload()
    expect(refused).toEqual([])
    expect(loaded).toEqual(expect.arrayContaining(['fresh@1', 'fresh@2']))
    const third = await begin('fresh')
    expect((await farm.get(third)).workflow).toBe('fresh@2')
    expect([await said(first), await said(second), await said(third)]).toEqual(['two', 'two', 'three'])
    expect(await farm.eye.hkeys(keys.workflowContents())).toEqual(expect.arrayContaining(['fresh@1', 'fresh@2']))
  })

  it('are not used by a process that has another content under a used version', async () => {
    const { json } = await farm.client.get('/v1/workflows/talk')
    // Another process of the farm was faster with what it has.
    await farm.eye.hset(keys.workflowContents(), 'talk@1', 'f'.repeat(64))
    const refusal = await start('talk')
    expect(refusal).toMatchObject({ status: 409, json: { code: 'workflow.changed', field: 'workflow' } })
    expect((await start('talk')).json.code).toBe('workflow.unknown')
    await farm.eye.hset(keys.workflowContents(), 'talk@1', json.source.sha256)
    expect((await reload()).loaded).toContain('talk@1')
    expect(await said(await begin('talk'))).toBe('one')
  })

  it('go on in memory when their module is gone, and no new session begins', async () => {
    await write('gone.ts', module('gone'))
    await reload()
    const id = await begin('gone')
    await rm(join(folder, 'gone.ts'))
    expect((await reload()).loaded).not.toContain('gone@1')
    expect((await start('gone')).json).toMatchObject({ code: 'workflow.unknown' })
    expect(await said(id)).toBe('one')
  })

  it('that are wrong are refused by name, and all others can be used', async () => {
    await write('throws.ts', 'throw new Error("no key")')
    await write('misspelt.ts', module('misspelt').replace("'model.resolve'", "'model.resolv'"))
    const { loaded, refused } = await reload()
    expect(loaded).toContain('talk@1')
    expect(refused).toMatchObject([
      { file: 'throws.ts', workflow: null, error: { code: 'workflow.unloadable', message: 'throws.ts: it threw Error: no key' } },
      { file: 'misspelt.ts', workflow: 'misspelt@1', error: { message: expect.stringContaining('did you mean model.resolve?') as string } },
    ])
    await Promise.all(['throws.ts', 'misspelt.ts'].map((file) => rm(join(folder, file))))
  })

  it.each([
    ['clock', '{ said: () => String(Date.now()) }', 'workflow.broken', /Date\.now reads a clock/],
    ['counter', '{ said: () => ++count }', 'workflow.broken', /another state when it was applied a second time \(context\.said\)/],
    ['endless', '{ said: () => { for (;;); } }', 'workflow.broken', /did not end within 2 s/],
    ['large', "{ said: () => 'x'.repeat(10_000_000) }", 'workflow.too_large', /a state of large@1 would have 10000/],
  ])('whose machine is wrong fail their session alone: %s', async (name, assigned, code, words) => {
    await write(`${name}.ts`, module(name, { assigned }))
    await reload()
    const id = await begin(name)
    await signal(id, 'go')
    const { error } = await farm.until(id, 'failed')
    expect(error).toMatchObject({ code, message: expect.stringMatching(words) as string })
    await farm.until(await farm.submit(), 'succeeded')
  })

  it('with an endless `always` are refused at the submit', async () => {
    await write(
      'circle.ts',
      module('circle')
        .replace('waiting: { on', "waiting: { always: 'turning', on")
        .replace('done: {', "turning: { always: 'waiting' },\n    done: {"),
    )
    await reload()
    expect((await start('circle')).json).toMatchObject({
      code: 'workflow.broken',
      detail: expect.stringMatching(/Infinite loop/) as string,
    })
  })

  it('are read by every process before it serves; without their module the session waits for one that has it', async () => {
    await mkdir(join(folder, 'shared'), { recursive: true })
    await write('kept.ts', module('kept'))
    await reload()
    const id = await begin('kept')
    const text = module('kept')
    await rm(join(folder, 'kept.ts'))
    for (const process of [...farm.apis, ...farm.workers]) await process.kill()
    for (const process of [...farm.apis, ...farm.workers]) await process.start()
    await eventually('the signal is taken', async () => (await signal(id, 'go')).status === 200)
    expect((await farm.get(id)).status).toBe('running')
    await write('kept.ts', text)
    await reload()
    expect((await farm.until(id, 'succeeded')).output?.['said']).toBe('one')
  })
})
