import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { assign, setup } from 'xstate'
import { z } from 'zod'
import { keys } from '../../src/keys.ts'
import { steps } from '../../src/workflows/step.ts'
import { defineWorkflow } from '../../src/workflows/index.ts'
import { startEngine, type TestEngine } from '../support/engine.ts'

/** Its transition throws when the step's result is not of the family it expects. */
const fragile = defineWorkflow({
  name: 'fragile',
  version: 1,
  title: 'Fragile',
  description: 'Throws at a result it did not expect.',
  input: z.unknown(),
  output: z.unknown(),
  machine: setup({
    types: { context: {} as { family: string } },
    actors: steps('model.resolve'),
  }).createMachine({
    id: 'fragile',
    context: { family: '' },
    initial: 'resolving',
    states: {
      resolving: {
        invoke: {
          id: 'resolve',
          src: 'model.resolve',
          input: { model: { id: 'm', bodyHash: '0'.repeat(64) } },
          onDone: {
            target: 'done',
            actions: assign({
              family: ({ event }) => {
                if (event.output.family === 'bad') throw new Error('this family was not expected')
                return event.output.family
              },
            }),
          },
        },
      },
      done: { type: 'final' },
    },
    output: ({ context }) => context,
  }),
  resolveInput: () => Promise.resolve({}),
  resources: { lanes: ['host'], note: 'nothing' },
})

const result = (family: string) => ({ output: { model: { id: 'm', bodyHash: '0'.repeat(64) }, family }, artifacts: [], stats: {} })

describe('a workflow that throws', () => {
  let t: TestEngine
  beforeAll(async () => {
    t = await startEngine({ workflows: [fragile] })
  })
  afterAll(() => t[Symbol.asyncDispose]())

  it('fails its session with the reason, and leaves nothing open', async () => {
    const id = await t.submit({ workflow: 'fragile' })
    expect((await t.port.deliver(await t.take(id, '1.0'), result('bad'))).isRecorded).toBe(true)
    expect(await t.engine.get(id)).toMatchObject({
      status: 'failed',
      error: { code: 'workflow.broken', message: expect.stringContaining('this family was not expected') },
    })
    const history = (await t.engine.history(id, 0, 10)).map(({ event }) => event.type)
    expect(history).toEqual(['session.created', 'step.started', 'step.completed', 'session.failed'])
    expect(await t.redis.keys(`${keys.step(id)}*`)).toEqual([])
    // The state before the fault is kept: a retry runs the step again.
    const again = await t.engine.retry(id, { keyId: null })
    expect((await t.port.deliver(await t.take(again.id, '1.0'), result('good'))).isRecorded).toBe(true)
    expect(await t.engine.get(again.id)).toMatchObject({ status: 'succeeded', output: { family: 'good' } })
  })

  it('is not broken by the late result of an older attempt', async () => {
    const id = await t.submit({ workflow: 'fragile' })
    const late = await t.take(id, '1.0')
    await t.redis.hset(keys.step(late.stepKey), 'leaseUntil', 0)
    await t.engine.store.expire(late.stepKey, 5)
    const attempt = await t.take(id, '1.0', 2)
    expect((await t.port.deliver(late, result('bad'))).isRecorded).toBe(false)
    expect((await t.engine.get(id))?.status).toBe('running')
    expect((await t.port.deliver(attempt, result('good'))).isRecorded).toBe(true)
    expect((await t.engine.get(id))?.status).toBe('succeeded')
  })

  it('throws while its result waits in the inbox: the session fails when it is applied', async () => {
    const id = await t.submit({ workflow: 'fragile' })
    const attempt = await t.take(id, '1.0')
    await t.engine.control(id, 'pause')
    expect((await t.port.deliver(attempt, result('bad'))).isRecorded).toBe(true)
    expect((await t.engine.get(id))?.status).toBe('paused')
    await t.engine.control(id, 'resume')
    await t.engine.commits.drainInbox(id)
    expect(await t.engine.get(id)).toMatchObject({ status: 'failed', error: { code: 'workflow.broken' } })
  })
})
