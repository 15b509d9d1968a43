import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { keys } from '../../src/keys.ts'
import type { ItemStatus } from '../../src/engine/item-reads.ts'
import type { Session } from '../../src/engine/session.ts'
import { ensureError } from '../../src/errors.ts'
import { startEngine, type TestEngine } from '../support/engine.ts'
import { eventually } from '../support/wait.ts'
import * as programs from '../support/program.ts'

const asker = { keyId: null }

describe('items, over three shards, step by step', () => {
  let t: TestEngine
  beforeAll(async () => {
    t = await startEngine({ shards: 3, ...programs })
  })
  afterAll(() => t[Symbol.asyncDispose]())

  const get = async (id: string): Promise<Session> => (await t.engine.get(id)) as Session
  const outbox = async (): Promise<string[]> =>
    (await Promise.all([0, 1, 2].map((shard) => t.redis.zrange(keys.outbox(shard), '0', '-1')))).flat()
  /** What the sweep does with entries about children. */
  const settle = async (): Promise<void> => {
    for (const member of await outbox()) {
      const [kind, name] = member.split(/:(.*)/s) as [string, string]
      if (kind === 'parent') await t.engine.children.tell(name)
      const [, stepKey, value] = /^([^:]+):(.*)$/s.exec(name) ?? []
      if (kind === 'child' && stepKey && value) await t.engine.children.follow(stepKey, value)
    }
  }
  const submit = async (count: number, more: Record<string, unknown> = {}): Promise<string> => {
    const input = {
      workflow: 'program',
      input: { ledger: t.folder, key: 'items' },
      items: Array.from({ length: count }, (_, n) => ({ program: programs.step({ n }) })),
      window: 2,
      ...more,
    }
    const { session } = await t.engine.start({ workflow: 'batch', input, priority: 5, tags: [], keyId: null })
    await eventually('its first items', async () => (await open(session.id)).length > 0)
    return session.id
  }
  const statuses = async (id: string): Promise<ItemStatus[]> =>
    (await t.engine.items.page(id, { from: 0, limit: 100 })).items.map(({ status }) => status)
  /** Sessions of the items that are open. */
  const open = async (id: string): Promise<{ index: number; session: string }[]> =>
    (await t.engine.items.page(id, { from: 0, limit: 100 })).items.flatMap(({ index, session, status }) =>
      session !== null && ['queued', 'running', 'pausing', 'paused'].includes(status) ? [{ index, session }] : [],
    )
  const succeed = async (child: string): Promise<void> =>
    void (await t.port.deliver(await t.take(child, '1.0'), { output: { n: 1, token: 'x', said: '' }, artifacts: [], stats: {} }))
  const fail = async (child: string): Promise<void> =>
    void (await t.port.deliver(await t.take(child, '1.0'), { error: ensureError(new Error('no'), 'worker.failed') }))

  it('are opened a window at a time; whoever brings the end of one makes the next', async () => {
    const id = await submit(5)
    expect(await get(id)).toMatchObject({
      status: 'running',
      waiting: 'its items',
      input: { workflow: 'program@1', axes: [{ field: 'items', count: 5 }], window: 2 },
      progress: { fraction: 0, items: { total: 5, waiting: 3, running: 2, succeeded: 0 } },
    })
    for (let ended = 0; ended < 5; ended++) {
      const [next] = await open(id)
      expect(next?.index).toBe(ended)
      expect(await get(next?.session ?? '')).toMatchObject({ parent: id, input: { program: { n: ended } } })
      await succeed(next?.session ?? '')
    }
    expect(await get(id)).toMatchObject({ status: 'succeeded', output: { total: 5, succeeded: 5, failed: 0, cancelled: 0 } })
    expect((await get(id)).progress).toMatchObject({ fraction: 1, items: { total: 5, waiting: 0, running: 0, succeeded: 5 } })
    expect((await t.engine.history(id, 0, 100)).map(({ event }) => event.type)).toEqual([
      'session.created',
      'items.ended',
      'session.succeeded',
    ])
    expect((await outbox()).filter((member) => member.startsWith('child:') || member.startsWith('parent:'))).toEqual([])
  })

  it('that fail are passed over, or end the batch, as it says', async () => {
    const goes = await submit(3)
    await fail((await open(goes))[0]?.session ?? '')
    expect(await statuses(goes)).toEqual(['failed', 'queued', 'queued'])
    await t.engine.control(goes, 'cancel')
    await settle()

    const stops = await submit(5, { onFailure: 1 })
    await fail((await open(stops))[0]?.session ?? '')
    expect((await get(stops)).status).toBe('running')
    const [second, third] = await open(stops)
    await fail(second?.session ?? '')
    expect(await get(stops)).toMatchObject({
      status: 'failed',
      error: { code: 'session.items_failed', message: '2 of 5 items have failed', details: { total: 5, failed: 2, cancelled: 1 } },
    })
    await settle()
    expect((await get(third?.session ?? '')).status).toBe('cancelled')
    expect(await statuses(stops)).toEqual(['failed', 'failed', 'cancelled', 'cancelled', 'cancelled'])
    expect((await outbox()).filter((member) => member.includes(stops))).toEqual([])
  })

  it('rest with their session, and go on with it; one that ends meanwhile counts', async () => {
    const id = await submit(4)
    const [first] = await open(id)
    const attempt = await t.take(first?.session ?? '', '1.0')
    expect((await t.engine.control(id, 'pause')).status).toBe('pausing')
    await settle()
    expect([(await get(id)).status, ...(await statuses(id))]).toEqual(['pausing', 'pausing', 'paused', 'waiting', 'waiting'])
    await t.port.deliver(attempt, { output: { n: 1, token: 'x', said: '' }, artifacts: [], stats: {} })
    await settle()
    expect((await get(id)).status).toBe('paused')
    expect((await outbox()).filter((member) => member.includes(id))).toEqual([])
    await t.engine.control(id, 'resume')
    await settle()
    // What it was told while it rested is applied by its own sweep.
    await t.engine.commits.drainInbox(first?.session ?? '')
    await settle()
    expect(await statuses(id)).toEqual(['succeeded', 'queued', 'queued', 'waiting'])
    await t.engine.control(id, 'cancel')
    await settle()
    expect(await statuses(id)).toEqual(['succeeded', 'cancelled', 'cancelled', 'cancelled'])
    expect((await get(id)).progress).toMatchObject({ items: { waiting: 0, running: 0, succeeded: 1, cancelled: 3 } })
  })

  it('that all end while their session rests end it when it goes on', async () => {
    const id = await submit(1)
    const [only] = await open(id)
    const attempt = await t.take(only?.session ?? '', '1.0')
    await t.engine.control(id, 'pause')
    await t.engine.control(only?.session ?? '', 'cancel')
    expect((await t.port.deliver(attempt, { output: { n: 1, token: 'x', said: '' }, artifacts: [], stats: {} })).isRecorded).toBe(false)
    await settle()
    expect(await get(id)).toMatchObject({ status: 'paused', progress: { items: { cancelled: 1 } } })
    await t.engine.control(id, 'resume')
    await t.engine.commits.drainInbox(id)
    await settle()
    expect(await get(id)).toMatchObject({ status: 'succeeded', output: { total: 1, cancelled: 1 } })
  })

  it.each([
    ['listed', [0, 1, 2, 3, 4, 5, 6, 7]],
    ['reversed', [7, 6, 5, 4, 3, 2, 1, 0]],
    ['spread', [0, 5, 2, 7, 4, 1, 6, 3]],
  ])('begin in the order that the batch says: %s', async (order, expected) => {
    const id = await submit(8, { order, window: 1 })
    const met: number[] = []
    for (let n = 0; n < 8; n++) {
      const [next] = await open(id)
      met.push(next?.index ?? -1)
      await succeed(next?.session ?? '')
    }
    expect(met).toEqual(expected)
  })

  it('of an ended batch that have not succeeded are those of its retry', async () => {
    const id = await submit(4)
    await succeed((await open(id))[0]?.session ?? '')
    await expect(t.engine.retry(id, asker)).rejects.toMatchObject({ code: 'session.not_retryable' })
    await fail((await open(id))[0]?.session ?? '')
    await t.engine.control(id, 'cancel')
    await settle()
    const again = await t.engine.retry(id, asker)
    expect(again).toMatchObject({ retryOf: id, progress: { items: { total: 3 } } })
    await eventually('its first items', async () => (await open(again.id)).length === 2)
    const { items } = await t.engine.items.page(again.id, { from: 0, limit: 10 })
    expect(items.map(({ input }) => (input['program'] as { n: number }).n)).toEqual([1, 2, 3])
    for (let n = 0; n < 3; n++) await succeed((await open(again.id))[0]?.session ?? '')
    expect((await get(again.id)).status).toBe('succeeded')
    await expect(t.engine.retry(again.id, asker)).rejects.toThrow(/all items of session .* have succeeded/)
  })

  it('and all that stands of them goes with their session', async () => {
    const id = await submit(6)
    await succeed((await open(id))[0]?.session ?? '')
    await t.engine.control(id, 'cancel')
    await t.engine.remove(id)
    await settle()
    expect(await t.redis.keys(`*${id}*`)).toEqual([])
    expect((await t.engine.list({ parent: id, keyId: null, limit: 10 })).sessions).toEqual([])
  })

  it('reserve what their sessions may need, and give it back', async () => {
    const reserved = async (): Promise<number> =>
      (await Promise.all([0, 1, 2].map((shard) => t.redis.get(keys.reserved(shard))))).reduce((sum, bytes) => sum + Number(bytes), 0)
    const before = await reserved()
    const id = await submit(3)
    expect((await reserved()) - before).toBeGreaterThan(3 * 6000)
    for (let n = 0; n < 3; n++) await succeed((await open(id))[0]?.session ?? '')
    await settle()
    expect(await reserved()).toBe(before)
  })

  it('are found by their status, page by page', async () => {
    const id = await submit(5)
    await fail((await open(id))[0]?.session ?? '')
    await succeed((await open(id))[0]?.session ?? '')
    const page = await t.engine.items.page(id, { status: 'queued', from: 0, limit: 1 })
    expect(page).toMatchObject({ items: [{ index: 2 }], next: 3 })
    expect(await t.engine.items.page(id, { status: 'queued', from: page.next ?? 0, limit: 5 })).toMatchObject({
      items: [{ index: 3 }],
      next: null,
    })
    expect(await t.engine.items.page(id, { status: 'failed', from: 0, limit: 5 })).toMatchObject({
      items: [{ index: 0, error: { code: 'worker.failed' } }],
    })
    await expect(t.engine.items.page(await t.submit(), { from: 0, limit: 1 })).rejects.toMatchObject({ code: 'session.no_items' })
    await t.engine.control(id, 'cancel')
    await settle()
  })
})
