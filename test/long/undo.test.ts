/** What a workflow says how to undo: run in reverse after a failure or a cancel, tried again, and shown. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Session } from '../../src/client/index.ts'
import { keys } from '../../src/keys.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { readLedger } from '../support/program.ts'
import { module } from '../support/scripted.ts'
import { eventually } from '../support/wait.ts'

/** Counts `a`, then `b`, each undone by a count of its own; that of `a` fails `stuck` times before it counts. */
const careful = `
import { assign, defineWorkflow, setup, steps, z } from 'darkroom/workflows'

const Input = z.strictObject({ ledger: z.string(), key: z.string() })
const work = ({ ledger, key }, path, failures = 0) =>
  ({ ledger, key, path, mark: '', n: 1, ms: 0, isDeaf: true, failures, how: 'permanent' })
const count = (path, onDone, failures) =>
  ({ invoke: { id: path, src: 'test.count', input: ({ context }) => work(context, path, failures), onDone } })
const machine = setup({ actors: steps('test.count') }).createMachine({
  context: ({ input }) => input,
  initial: 'first',
  states: {
    first: count('a', 'second'),
    second: count('b', 'waiting'),
    waiting: {
      on: {
        'signal.fail': 'failing',
        'signal.throw': { actions: assign(() => { throw new Error('thrown') }) },
        'signal.end': 'done',
      },
    },
    failing: count('c', 'done', null),
    done: { type: 'final' },
  },
})
const undo = {
  'test.count': ({ input }) => ({ step: 'test.count', input: work(input, 'undo ' + input.path, input.path === 'a' ? Number(input.key.split('.')[1]) : 0) }),
}
export const workflow = defineWorkflow({ name: 'careful', input: Input, machine, undo })
`

describe('what steps have done', () => {
  let farm: Farm
  let folder = ''
  let number = 0
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'darkroom-workflows-'))
    await writeFile(join(folder, 'careful.ts'), careful)
    farm = await startFarm({ module, settings: { DARKROOM_WORKFLOWS: folder } })
  })
  afterAll(async () => {
    await farm[Symbol.asyncDispose]()
    await rm(folder, { recursive: true })
  })

  const begin = async (stuck = 0): Promise<{ id: string; runs: () => string[] }> => {
    const input = { ledger: join(farm.folder, 'ledger'), key: `careful-${number++}.${stuck}` }
    const { json, status, text } = await farm.client.post('/v1/sessions', { workflow: 'careful', input })
    if (status !== 202) throw new Error(text)
    const id = (json as Session).id
    await eventually('it waits', async () => (await farm.get(id)).waiting === 'a signal')
    const counted = (): string[] =>
      [...readLedger(join(input.ledger, input.key))]
        .flatMap(([name, lines]) => lines.filter(({ is }) => is === 'counted').map(({ at }) => ({ name, at })))
        .toSorted((one, other) => one.at - other.at)
        .map(({ name }) => name)
    return { id, runs: counted }
  }
  const signal = (id: string, type: string) => farm.client.post(`/v1/sessions/${id}/signal`, { type })
  const undoing = async (id: string): Promise<string> => {
    const { undo } = await farm.get(id)
    if (undo === null) throw new Error(`nothing of ${id} is to be undone`)
    await eventually('it is begun', async () => (await farm.client.get(`/v1/sessions/${undo}`)).status === 200)
    return undo
  }

  it('is undone in reverse when the session fails', async () => {
    const { id, runs } = await begin()
    await signal(id, 'fail')
    expect((await farm.until(id, 'failed')).error?.code).toBe('test.refused')
    const undo = await undoing(id)
    expect((await farm.until(undo, 'succeeded')).output).toEqual({ undone: 2 })
    expect(runs()).toEqual(['a', 'b', 'undo b', 'undo a'])
    expect((await farm.get(undo)).input['of']).toBe(id)
  })

  it('is undone when the session is cancelled, which is over at once, or its machine throws', async () => {
    const cancelled = await begin()
    expect((await farm.control(cancelled.id, 'cancel')).json.status).toBe('cancelled')
    await farm.until(await undoing(cancelled.id), 'succeeded')
    expect(cancelled.runs()).toEqual(['a', 'b', 'undo b', 'undo a'])
    const thrown = await begin()
    await signal(thrown.id, 'throw')
    await farm.until(thrown.id, 'failed')
    await farm.until(await undoing(thrown.id), 'succeeded')
    expect(thrown.runs()).toEqual(['a', 'b', 'undo b', 'undo a'])
  })

  it('stays as it is when the session succeeds', async () => {
    const { id, runs } = await begin()
    await signal(id, 'end')
    expect((await farm.until(id, 'succeeded')).undo).toBeNull()
    expect(runs()).toEqual(['a', 'b'])
    expect(await farm.eye.zscore(keys.outbox(Number(id.split('-')[0])), `undo:${id}`)).toBeNull()
  })

  it('cannot be gone on from once it is undone: a retry begins anew, and no fork passes it', async () => {
    const { id, runs } = await begin()
    await farm.control(id, 'cancel')
    await farm.until(await undoing(id), 'succeeded')
    const { states } = (await farm.client.get(`/v1/sessions/${id}/states`)).json
    const refusal = await farm.client.post(`/v1/sessions/${id}/fork`, { from: { entry: states.at(-1).entry } })
    expect(refusal.json).toMatchObject({ code: 'session.not_forkable', field: 'from.entry' })
    const { json } = await farm.control(id, 'retry')
    await eventually('it waits', async () => (await farm.get(json.id)).waiting === 'a signal')
    expect(runs()).toEqual(['a', 'b', 'undo b', 'undo a', 'a', 'b'])
    await signal(json.id, 'end')
    await farm.until(json.id, 'succeeded')
  })

  it('is tried again when its undoing fails, and that is shown', async () => {
    const { id, runs } = await begin(1)
    await farm.control(id, 'cancel')
    const undo = await undoing(id)
    await eventually('it waits for another try', async () => (await farm.get(undo)).waiting === 'a timer')
    const failed = (await farm.history(undo)).filter(({ type }) => type === 'step.failed')
    expect(failed[0]).toMatchObject({ step: 'test.count', error: { code: 'test.refused' } })
    await farm.until(undo, 'succeeded')
    expect(runs()).toEqual(['a', 'b', 'undo b', 'undo a'])
  })

  it('is undone before its session is deleted', async () => {
    const { id, runs } = await begin()
    await farm.control(id, 'cancel')
    expect((await farm.client.request('DELETE', `/v1/sessions/${id}`)).status).toBe(204)
    await eventually('all is undone', () => Promise.resolve(runs().length === 4))
  })
})
