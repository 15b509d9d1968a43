/** Schedules over HTTP; when they fall due is test/engine/schedules.test.ts'. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { eventually } from '../support/wait.ts'
import { sketchOf, startHarness, type Harness } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
afterAll(() => h.stop())

const nightly = (more: Record<string, unknown> = {}): Record<string, unknown> => ({
  name: 'nightly',
  cron: '30 2 * * *',
  timezone: 'Europe/Berlin',
  session: sketchOf('x'),
  ...more,
})

it('makes, shows, pauses, resumes and removes a schedule', async () => {
  const { status, json } = await h.client.post('/v1/schedules', nightly())
  expect([status, json]).toMatchObject([201, { name: 'nightly', cron: '30 2 * * *', overlap: 'skip', isPaused: false, occurrences: [] }])
  expect(json.next).toHaveLength(3)
  const path = `/v1/schedules/${json.id}`
  expect((await h.client.get('/v1/schedules')).json.schedules).toEqual([json])
  expect((await h.client.post(`${path}/pause`)).json).toMatchObject({ isPaused: true, next: [] })
  expect((await h.client.post(`${path}/resume`)).json.isPaused).toBe(false)
  expect((await h.client.request('DELETE', path)).status).toBe(204)
  expect((await h.client.get(path)).json).toMatchObject({ status: 404, code: 'schedule.unknown' })
})

it('starts sessions by itself', async () => {
  const { json } = await h.client.post('/v1/schedules', { name: 'often', everyS: 1, overlap: 'allow', session: sketchOf('x') })
  const sessions = await eventually('two sessions', async () => {
    const page = (await h.client.get(`/v1/sessions?tag=schedule:${json.id}`)).json.sessions as { workflow: string }[]
    return page.length >= 2 && page
  })
  expect(new Set(sessions.map(({ workflow }) => workflow))).toEqual(new Set(['sketch@1']))
  await h.client.request('DELETE', `/v1/schedules/${json.id}`)
})

it.each([
  ['cron', { cron: '61 * * * *' }],
  ['cron', { cron: '0 0 30 2 *' }],
  ['timezone', { timezone: 'Mars/Olympus' }],
  ['cron', { everyS: 60 }],
  ['cron', { cron: undefined, timezone: undefined }],
  ['timezone', { cron: undefined, everyS: 60 }],
  ['everyS', { cron: undefined, timezone: undefined, everyS: 0 }],
  ['catchUpS', { catchUpS: 86_400 * 7 }],
  ['overlap', { overlap: 'sometimes' }],
  ['name', { name: '' }],
  ['input.text', { session: { workflow: 'sketch', input: { text: 7 } } }],
  ['workflow', { session: { workflow: 'nothing', input: {} } }],
  ['webhook', { session: sketchOf('x', { webhook: 'wh_none' }) }],
  ['colour', { colour: 'red' }],
])('refuses a fault at %s: %o', async (field, more) => {
  const { status, json } = await h.client.post('/v1/schedules', nightly(more))
  expect([status, json.field]).toEqual([422, field])
  expect((await h.client.get('/v1/schedules')).json.schedules).toEqual([])
})

it('each key sees and changes its own; with scopes that fit', async () => {
  const [ann, bob, reader] = [
    await h.withKey('submit', 'read', 'control'),
    await h.withKey('submit', 'read', 'control'),
    await h.withKey('read'),
  ]
  const { json } = await ann.post('/v1/schedules', nightly())
  expect(json.keyId).toBe(ann.keyId)
  expect((await bob.get('/v1/schedules')).json.schedules).toEqual([])
  for (const [method, path] of [
    ['GET', ''],
    ['POST', '/pause'],
    ['DELETE', ''],
  ])
    expect((await bob.request(method ?? '', `/v1/schedules/${json.id}${path}`)).json.code).toBe('schedule.unknown')
  expect((await reader.post('/v1/schedules', nightly())).json.code).toBe('api.forbidden')
  expect((await reader.post(`/v1/schedules/${json.id}/pause`)).json.code).toBe('api.forbidden')
  expect((await ann.request('DELETE', `/v1/schedules/${json.id}`)).status).toBe(204)
})
