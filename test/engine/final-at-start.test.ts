/** Workflows that are final at their start: their session has ended when it is made, and who waits for it is told. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { assign, child, defineWorkflow, setup, z } from '../../src/workflows/index.ts'
import { keys } from '../../src/keys.ts'
import { ended, type Session } from '../../src/engine/session.ts'
import { startEngine, type TestEngine } from '../support/engine.ts'
import { eventually } from '../support/wait.ts'

const Input = z.strictObject({ way: z.enum(['at once', 'by a guard', 'failed', 'thrown', 'spawned']) })
type Fields = z.infer<typeof Input> & { sum?: number }
const types = {} as { context: Fields; input: Fields; output: { sum: number } | { error: unknown } }
const told = { code: 'worker.failed', class: 'permanent', message: 'not today', remedy: 'Come back.' }

const atOnce = defineWorkflow({
  name: 'at-once',
  input: Input,
  machine: setup({ types }).createMachine({
    context: ({ input }) => input,
    initial: 'choosing',
    states: {
      choosing: {
        always: [
          { guard: ({ context }) => context.way === 'failed', target: 'failed' },
          { guard: ({ context }) => context.way === 'thrown', target: 'thrown' },
          { target: 'done', actions: assign({ sum: 3 }) },
        ],
      },
      thrown: {
        entry: () => {
          throw new Error('it cannot begin')
        },
      },
      done: { type: 'final' },
      failed: { type: 'final', tags: 'failed' },
    },
    output: ({ context }) => (context.way === 'failed' ? { error: told } : { sum: context.sum ?? 0 }),
  }),
})

/** Its only state is final: nothing is chosen. */
const nothing = defineWorkflow({
  name: 'nothing',
  input: z.strictObject({}),
  machine: setup({}).createMachine({ initial: 'done', states: { done: { type: 'final' } } }),
})

const parent = defineWorkflow({
  name: 'asks-at-once',
  input: Input,
  machine: setup({ types: {} as { context: { way: Fields['way']; said?: unknown }; input: Fields }, actors: child(atOnce) }).createMachine({
    context: ({ input }) => ({ way: input.way }),
    initial: 'asking',
    states: {
      asking: {
        invoke: {
          src: 'at-once@1',
          input: ({ context }) => ({ way: context.way }),
          onDone: { target: 'done', actions: assign({ said: ({ event }) => event.output }) },
          onError: { target: 'done', actions: assign({ said: ({ event }) => event.error }) },
        },
      },
      done: { type: 'final' },
    },
    output: ({ context }) => ({ said: context.said }),
  }),
})

describe('a workflow that is final at its start', () => {
  let t: TestEngine
  beforeAll(async () => {
    t = await startEngine({ shards: 3, workflows: [atOnce, nothing, parent] })
  })
  afterAll(() => t[Symbol.asyncDispose]())

  const start = (workflow: string, input: object, more: object = {}): Promise<{ session: Session; created: boolean }> =>
    t.engine.start({ workflow, input, priority: 5, tags: ['first'], keyId: null, ...more })
  const get = async (id: string): Promise<Session> => (await t.engine.get(id)) as Session
  const types = async (id: string): Promise<string[]> => (await t.engine.history(id, 0, 100)).map(({ event }) => event.type)

  it('has succeeded with its output when the submit is answered; nothing of it is left to do', async () => {
    const { session, created } = await start('at-once', { way: 'at once' }, { deadlineS: 60 })
    expect(created).toBe(true)
    expect(session).toMatchObject({ status: 'succeeded', output: { sum: 3 }, error: null, waiting: null })
    expect(session.endedAt).toBeGreaterThan(0)
    expect(await get(session.id)).toEqual(session)
    expect(await types(session.id)).toEqual(['session.created', 'session.succeeded'])
    const shard = Number.parseInt(session.id, 10)
    for (const list of ['timers', 'outbox', 'leases'] as const) expect(await t.redis.zrange(keys[list](shard), '0', '-1')).toEqual([])
    expect(await t.redis.get(keys.reserved(shard))).toBe('0')
    const { sessions } = await t.engine.list({ status: 'succeeded', tag: 'first', keyId: null, limit: 10 })
    expect(sessions.map(({ id }) => id)).toContain(session.id)
  })

  it('without any output, and again under its idempotency key: the same session', async () => {
    const key = { idempotencyKey: 'once', bodySha256: 'a' }
    const { session } = await start('nothing', {}, key)
    expect(session).toMatchObject({ status: 'succeeded', output: {} })
    expect(await start('nothing', {}, key)).toEqual({ session, created: false })
  })

  it('has failed with what its final state says; a retry begins again, and fails alike', async () => {
    const { session } = await start('at-once', { way: 'failed' })
    expect(session).toMatchObject({ status: 'failed', error: told, output: null })
    const again = await t.engine.retry(session.id, { keyId: null })
    expect(again).toMatchObject({ status: 'failed', error: told, retryOf: session.id })
    expect(await types(again.id)).toEqual(['session.created', 'session.failed'])
  })

  it('that throws at its start is refused: there is no session', async () => {
    const count = async (): Promise<number> => (await t.engine.list({ keyId: null, limit: 100 })).sessions.length
    const before = await count()
    await expect(start('at-once', { way: 'thrown' })).rejects.toMatchObject({ code: 'workflow.broken', message: /it cannot begin/ })
    expect(await count()).toBe(before)
  })

  it.each([
    ['at once', 'succeeded', { sum: 3 }],
    ['failed', 'failed', told],
    ['thrown', 'failed', { code: 'workflow.broken' }],
  ] as const)('as a child, %s: its parent is told at once', async (way, status, said) => {
    const { session } = await start('asks-at-once', { way })
    await eventually('the end of the parent', async () => ended.has((await get(session.id)).status))
    expect(await get(session.id)).toMatchObject({ status: 'succeeded', output: { said } })
    const [made] = (await t.engine.list({ parent: session.id, keyId: null, limit: 5 })).sessions
    expect(made).toMatchObject({ status, parent: session.id })
    for (let shard = 0; shard < 3; shard++) await eventually('an empty outbox', async () => (await t.redis.zcard(keys.outbox(shard))) === 0)
  })
})
