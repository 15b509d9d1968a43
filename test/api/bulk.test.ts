/** Actions over many sessions: counted first, then applied to each, whatever dies in between. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { Bulk, type BulkRecord } from '../../src/engine/bulk.ts'
import type { Point } from '../../src/engine/points.ts'
import { KeyStore } from '../../src/api-keys.ts'
import { createLog } from '../../src/log.ts'
import { eventually } from '../support/wait.ts'
import { sketchOf, startHarness, type Harness } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
afterAll(() => h.stop())

const submit = async (tag: string, count: number, client = h.client): Promise<string[]> =>
  Promise.all(
    Array.from({ length: count }, async (_, i) => (await client.post('/v1/sessions', sketchOf(`${i}`, { tags: [tag] }))).json.id as string),
  )

const begin = async (body: Record<string, unknown>): Promise<string> => {
  const { status, json, text } = await h.client.post('/v1/bulk', body)
  if (status !== 202) throw new Error(`bulk → ${status} ${text}`)
  return json.id as string
}
const untilDone = (id: string): Promise<BulkRecord> =>
  eventually(`${id} done`, async () => {
    const { json } = await h.client.get(`/v1/bulk/${id}`)
    return json.state === 'done' && (json as BulkRecord)
  })
const statuses = async (ids: string[]): Promise<Set<string>> =>
  new Set(await Promise.all(ids.map(async (id) => (await h.client.get(`/v1/sessions/${id}`)).json.status ?? 'gone')))

it('counts first, and does nothing then; the action is for those that it found', async () => {
  const ids = await submit('many', 60)
  const filter = { tag: 'many', status: 'queued' }
  expect((await h.client.post('/v1/bulk/count', { filter })).json).toEqual({ count: 60 })
  expect(await statuses(ids)).toEqual(new Set(['queued']))
  const id = await begin({ action: 'pause', filter })
  const [later] = await submit('many', 1)
  expect(await untilDone(id)).toMatchObject({ total: 60, done: 60, failed: 0 })
  expect([await statuses(ids), await statuses([later ?? ''])]).toEqual([new Set(['paused']), new Set(['queued'])])
  expect((await h.client.get(`/v1/sessions/${later}`)).json.status).toBe('queued')

  await untilDone(await begin({ action: 'resume', filter: { tag: 'many', status: 'paused' } }))
  expect(await statuses(ids)).toEqual(new Set(['queued']))
  await untilDone(await begin({ action: 'cancel', filter: { tag: 'many' } }))
  expect(await statuses(ids)).toEqual(new Set(['cancelled']))
  await untilDone(await begin({ action: 'tag', filter: { tag: 'many' }, tags: { add: ['old'], remove: ['many'] } }))
  expect((await h.client.get(`/v1/sessions/${ids[0]}`)).json.tags).toEqual(['old'])
  expect((await h.client.get('/v1/sessions?tag=many')).json.sessions).toEqual([])
  await untilDone(await begin({ action: 'delete', filter: { tag: 'old', workflow: 'sketch@1' } }))
  expect((await h.client.get('/v1/sessions?tag=old')).json.sessions).toEqual([])
})

it('tells how many refused it, and why', async () => {
  const [open, ended] = await submit('mixed', 2)
  await h.client.post(`/v1/sessions/${ended}/cancel`)
  const done = await untilDone(await begin({ action: 'delete', filter: { tag: 'mixed' } }))
  expect(done).toMatchObject({ total: 2, done: 1, failed: 1, failures: [{ session: open, said: `session ${open} is queued` }] })
  await h.client.post(`/v1/sessions/${open}/cancel`)
})

it.each(['bulk.before', 'bulk.after'] as const)(
  'whose process dies at %s is taken up again: each session once, the counts right',
  async (point) => {
    const ids = await submit(point, 70)
    const { redis } = h
    let left = 1
    const dying = new Bulk({
      redis,
      reads: h.engine.reads,
      keyStore: new KeyStore(redis),
      act: h.engine,
      times: { claimMs: 300 },
      log: createLog('silent', 'test'),
      at: (passed: Point) => {
        if (passed === point && left-- > 0) throw new Error(`died at ${point}`)
      },
    })
    // It would take the action over. From here on nothing goes on by itself.
    await h.engine.bulk.stop()
    const { id } = await dying.add({ keyId: null, action: 'cancel', filter: { tag: point }, tags: null }, null)
    await dying.turn()
    expect(await dying.get(id, null)).toMatchObject({ done: 0, state: 'running' })
    await eventually('its end', async () => {
      await dying.turn()
      return (await dying.get(id, null)).state === 'done'
    })
    expect(await dying.get(id, null)).toMatchObject({ total: 70, done: 70, failed: 0 })
    expect(await statuses(ids)).toEqual(new Set(['cancelled']))
  },
)

it('can be stopped: what is done stays so', async () => {
  const ids = await submit('stopped', 3)
  const id = await begin({ action: 'cancel', filter: { tag: 'stopped' } })
  expect((await h.client.post(`/v1/bulk/${id}/stop`)).json).toMatchObject({ state: 'stopped', done: 0 })
  await h.engine.bulk.turn()
  expect(await statuses(ids)).toEqual(new Set(['queued']))
  expect((await h.redis.keys(`*${id}*`)).length).toBe(0)
  await Promise.all(ids.map((each) => h.client.post(`/v1/sessions/${each}/cancel`)))
})

it.each([
  [{ action: 'cancel', filter: {} }, 'filter'],
  [{ action: 'burn', filter: { tag: 'x' } }, 'action'],
  [{ action: 'tag', filter: { tag: 'x' } }, 'tags'],
  [{ action: 'cancel', filter: { tag: 'x' }, tags: { add: ['y'] } }, 'tags'],
  [{ action: 'tag', filter: { tag: 'x' }, tags: { add: ['no blanks'] } }, 'tags.add.0'],
  [{ action: 'cancel', filter: { colour: 'red' } }, 'filter.colour'],
])('refuses %j', async (body, field) => {
  const { status, json } = await h.client.post('/v1/bulk', body)
  expect([status, json.field]).toEqual([422, field])
})

it('each key acts on its own sessions alone, and sees its own actions', async () => {
  const [ann, bob] = [await h.withKey('submit', 'read', 'control'), await h.withKey('submit', 'read', 'control')]
  await submit('shared', 2, ann)
  const count = async (client: typeof ann): Promise<number> =>
    (await client.post('/v1/bulk/count', { filter: { tag: 'shared' } })).json.count as number
  expect([await count(ann), await count(bob)]).toEqual([2, 0])
  const { json } = await ann.post('/v1/bulk', { action: 'cancel', filter: { tag: 'shared' } })
  expect((await bob.get(`/v1/bulk/${json.id}`)).json.code).toBe('bulk.unknown')
  expect((await bob.get('/v1/bulk')).json.actions).toEqual([])
})
