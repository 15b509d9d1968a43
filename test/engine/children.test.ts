import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { childSessionId, keys, shardOf } from '../../src/keys.ts'
import type { Session } from '../../src/engine/session.ts'
import { startEngine, type TestEngine } from '../support/engine.ts'
import { eventually } from '../support/wait.ts'
import * as programs from '../support/program.ts'
import { tree, treeChildren } from '../support/programs.ts'

/** Children of children, so many. */
const deeper = (levels: number): programs.Node => (levels === 0 ? programs.step() : { do: 'child', body: deeper(levels - 1) })

describe('child sessions, over three shards, step by step', () => {
  let t: TestEngine
  beforeAll(async () => {
    t = await startEngine({ shards: 3, ...programs })
  })
  afterAll(() => t[Symbol.asyncDispose]())

  const deliver = async (id: string, suffix: string, n: number, dispatch = 1): Promise<boolean> =>
    (await t.port.deliver(await t.take(id, suffix, dispatch), { output: { n }, artifacts: [], stats: {} })).isRecorded
  const get = async (id: string): Promise<Session> => (await t.engine.get(id)) as Session
  const outbox = async (): Promise<string[]> => {
    const all = await Promise.all([0, 1, 2].map((shard) => t.redis.zrange(keys.outbox(shard), '0', '-1')))
    return all.flat()
  }
  /** What the sweep does with the outbox's entries about children, until it has nothing more to do with them. */
  const settle = async (): Promise<void> => {
    for (const member of await outbox()) {
      const [kind, name] = member.split(/:(.*)/s) as [string, string]
      if (kind === 'parent') await t.engine.children.tell(name)
      const [, stepKey, value] = /^([^:]+):(.*)$/s.exec(name) ?? []
      if (kind === 'child' && stepKey && value) await t.engine.children.follow(stepKey, value)
    }
  }
  const until = (id: string, status: string): Promise<unknown> =>
    eventually(`${id} ${status}`, async () => {
      await settle()
      return (await get(id)).status === status
    })
  /** A tree whose children are there: effects 2.0 (good) and 2.1 (bad). */
  const grown = async (): Promise<{ id: string; good: string; bad: string }> => {
    const id = await t.run(tree())
    await deliver(id, '1.0', 1)
    const { sessions } = await t.engine.list({ parent: id, keyId: null, limit: 10 })
    expect(sessions).toHaveLength(2)
    const good = sessions.find((child) => child.input['path'] === treeChildren.good)?.id ?? ''
    const bad = sessions.find((child) => child.input['path'] === treeChildren.bad)?.id ?? ''
    return { id, good, bad }
  }

  it('are made by the commit that asks for them, once, under an id that follows from the effect', async () => {
    const { id, good, bad } = await grown()
    const ids = ['2.0', '2.1', '2.2', '2.3'].map((suffix) => childSessionId(3, `${id}.${suffix}`))
    expect(ids).toContain(good)
    expect(ids).toContain(bad)
    expect(await get(good)).toMatchObject({
      parent: id,
      workflow: 'program@1',
      status: 'queued',
      input: { path: treeChildren.good, program: { n: 10, ms: 0 } },
    })
    expect(await get(id)).toMatchObject({ status: 'running', parent: null, waiting: 'child sessions: program@1, program@1' })
    expect((await outbox()).filter((member) => member.startsWith('child:'))).toEqual([])
    expect(new Set([...Array(50).keys()].map((n) => shardOf(childSessionId(3, `${id}.${n}.0`))))).toEqual(new Set([0, 1, 2]))
  })

  it('end in their parent: a result, a failure, each told once', async () => {
    const { id, good, bad } = await grown()
    await deliver(good, '1.0', 10)
    await t.engine.children.tell(good)
    await t.engine.children.tell(good)
    const refused = await t.take(bad, '1.0')
    await t.port.deliver(refused, { error: (await import('../../src/errors.ts')).ensureError(new Error('no'), 'worker.failed') })
    const ends = (await t.engine.history(id, 0, 100)).map(({ event }) => event).filter((event) => event.type === 'child.ended')
    expect(ends).toMatchObject([
      { session: good, status: 'succeeded' },
      { session: bad, status: 'failed', error: { code: 'worker.failed' } },
    ])
    expect(await get(id)).toMatchObject({ status: 'running', waiting: 'a timer' })
    await t.engine.control(id, 'cancel')
    await settle()
    expect((await outbox()).filter((member) => member.includes(id))).toEqual([])
  })

  it('are cancelled with their parent; one that was not there yet is made as cancelled', async () => {
    const { id, good, bad } = await grown()
    await t.engine.control(id, 'cancel')
    await settle()
    expect([(await get(good)).status, (await get(bad)).status]).toEqual(['cancelled', 'cancelled'])
    await settle()
    expect((await outbox()).filter((member) => member.includes(id))).toEqual([])

    const other = await t.run(tree())
    for (const [i, workflow] of ['program@1', 'image-generation@1'].entries()) {
      const effect = `${other}.9.${i}`
      const child = childSessionId(3, effect)
      expect(await t.engine.children.follow(effect, `${child}:${workflow}`)).toBe(true)
      expect((await get(child)).status).toBe('cancelled')
      await expect(t.engine.retry(child, { keyId: null })).rejects.toThrow(/never began/)
    }
    await settle()
  })

  it('pause and resume with their parent, which is paused when they are', async () => {
    const { id, good, bad } = await grown()
    const attempt = await t.take(good, '1.0')
    expect((await t.engine.control(id, 'pause')).status).toBe('pausing')
    await settle()
    expect([(await get(id)).status, (await get(good)).status, (await get(bad)).status]).toEqual(['pausing', 'pausing', 'paused'])
    await t.port.release(attempt, 'pause', undefined)
    await settle()
    expect([(await get(id)).status, (await get(good)).status]).toEqual(['paused', 'paused'])
    // Somebody who was frozen with an older wish in his hand.
    await t.engine.store.control(good, 'resume', '1')
    expect((await get(good)).status).toBe('paused')
    expect((await t.engine.control(id, 'resume')).status).toBe('running')
    await settle()
    expect([(await get(good)).status, (await get(bad)).status]).toEqual(['running', 'queued'])
    expect((await outbox()).filter((member) => member.startsWith('child:'))).toEqual([])
    await t.engine.control(id, 'cancel')
    await settle()
  })

  it('that end while their parent is pausing are told when it goes on', async () => {
    const { id, good, bad } = await grown()
    const attempt = await t.take(good, '1.0')
    await t.engine.control(id, 'pause')
    await t.port.deliver(attempt, { output: { n: 10 }, artifacts: [], stats: {} })
    await settle()
    await settle()
    expect((await get(id)).status).toBe('paused')
    await t.engine.control(id, 'resume')
    await settle()
    await t.engine.commits.drainInbox(good)
    await t.engine.commits.drainInbox(id)
    await settle()
    expect((await get(good)).status).toBe('succeeded')
    expect((await t.engine.history(id, 0, 100)).filter(({ event }) => event.type === 'child.ended')).toHaveLength(1)
    expect(await get(bad)).toMatchObject({ status: 'queued' })
    await t.engine.control(id, 'cancel')
    await settle()
  })

  it('cannot be deleted before their parent was told, go with it when it is deleted, and are opened anew by its retry', async () => {
    const { id, good, bad } = await grown()
    await t.engine.control(bad, 'cancel')
    await t.engine.remove(bad)
    expect((await t.engine.history(id, 0, 100)).map(({ event }) => event)).toContainEqual(
      expect.objectContaining({
        type: 'child.ended',
        session: bad,
        status: 'cancelled',
        error: expect.objectContaining({ code: 'session.child_cancelled' }),
      }),
    )
    await t.engine.control(id, 'cancel')
    await settle()
    const again = await t.engine.retry(id, { keyId: null })
    await settle()
    const children = (await t.engine.list({ parent: again.id, keyId: null, limit: 10 })).sessions
    expect(children.map((child) => child.input['path'])).toEqual([treeChildren.good])
    await t.engine.remove(id)
    expect(await t.engine.get(good)).toBe(undefined)
    // Those that were not cancelled yet go as well.
    await t.engine.control(again.id, 'cancel')
    await t.engine.remove(again.id)
    expect(await Promise.all(children.map((child) => t.engine.get(child.id)))).toEqual([undefined])
    expect((await t.engine.list({ parent: again.id, keyId: null, limit: 10 })).sessions).toEqual([])
  })

  it('whose request cannot be made whole fail, and so does what goes too deep', async () => {
    const refused = await t.run({ do: 'picture', seed: -1 })
    await until(refused, 'failed')
    expect(await get(refused)).toMatchObject({ status: 'failed', error: { code: 'api.invalid' } })
    const deep = await t.run(deeper(10))
    await until(deep, 'failed')
    expect(await get(deep)).toMatchObject({
      status: 'failed',
      error: { code: 'workflow.broken', message: expect.stringContaining('levels deep') },
    })
  })
})

describe('signals', () => {
  let t: TestEngine
  beforeAll(async () => {
    t = await startEngine({ ...programs })
  })
  afterAll(() => t[Symbol.asyncDispose]())
  const start = (): Promise<string> => t.run(tree())
  const received = async (id: string): Promise<number> =>
    (await t.engine.history(id, 0, 100)).filter(({ event }) => event.type === 'signal.received').length
  /** The data of the signals that changed its state. */
  const heard = async (id: string): Promise<unknown[]> => {
    const { snapshot } = await t.engine.reads.fields(id, 'snapshot')
    return Object.values((JSON.parse(snapshot ?? '') as { context: { heard: Record<string, unknown[]> } }).context.heard).flat()
  }
  const toMiddle = async (id: string): Promise<void> =>
    void (await t.port.deliver(await t.take(id, '1.0'), { output: { n: 1 }, artifacts: [], stats: {} }))

  it('change the state once, however often they are sent', async () => {
    const id = await start()
    await toMiddle(id)
    for (let i = 0; i < 3; i++) await t.engine.signal(id, { type: 'go', data: { word: 'x' }, eventId: 'one' })
    expect(await received(id)).toBe(1)
    expect(await heard(id)).toEqual([{ word: 'x' }])
  })

  it('that the present state does not take are recorded, and change nothing', async () => {
    const id = await start()
    await t.engine.signal(id, { type: 'go', data: { word: 'early' } })
    expect(await received(id)).toBe(1)
    await toMiddle(id)
    expect(await heard(id)).toEqual([])
  })

  it('to a paused session wait in its inbox, once', async () => {
    const id = await start()
    await toMiddle(id)
    for (const child of (await t.engine.list({ parent: id, keyId: null, limit: 10 })).sessions) await t.engine.control(child.id, 'cancel')
    await t.engine.control(id, 'pause')
    for (let i = 0; i < 2; i++) await t.engine.signal(id, { type: 'go', data: { word: 'later' }, eventId: 'later' })
    expect(await received(id)).toBe(0)
    await t.engine.control(id, 'resume')
    await t.engine.commits.drainInbox(id)
    expect(await received(id)).toBe(1)
    expect(await heard(id)).toEqual([{ word: 'later' }])
  })

  it('that end the session are no news when repeated; another one is refused', async () => {
    const id = await start()
    for (let i = 0; i < 2; i++) expect((await t.engine.signal(id, { type: 'stop', eventId: 'end' })).status).toBe('succeeded')
    await expect(t.engine.signal(id, { type: 'stop' })).rejects.toMatchObject({ code: 'session.ended' })
  })

  it('that no state takes are refused, with those that are taken', async () => {
    await expect(t.engine.signal(await start(), { type: 'jump' })).rejects.toThrow(/takes no signal jump; it takes go, stop/)
    await expect(t.engine.signal(await t.submit(), { type: 'go' })).rejects.toThrow(/it takes none/)
  })
})
