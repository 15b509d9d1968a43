/** The audit log: what operators have changed, and nothing else. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { keptEntries } from '../../src/audit.ts'
import { keys } from '../../src/keys.ts'
import { sketchOf, startHarness, type Harness } from './harness.ts'

let h: Harness
beforeAll(async () => {
  h = await startHarness()
})
afterAll(() => h.stop())

interface Entry {
  keyId: string | null
  action: string
  requestId: string | null
}

it('holds changes by keys with the scope operate and changes of keys, newest first; no reads, no submissions, no refusals', async () => {
  const user = await h.withKey('submit', 'read', 'control')
  const operator = await h.withKey('submit', 'read', 'control', 'operate')
  const { id } = (await user.post('/v1/sessions', sketchOf('x'))).json
  await user.post(`/v1/sessions/${id}/pause`)
  await operator.get(`/v1/sessions/${id}`)
  await operator.post('/v1/sessions', sketchOf('y'))
  const { headers } = await operator.post(`/v1/sessions/${id}/cancel`)
  expect((await operator.post(`/v1/sessions/${id}/resume`)).status).toBe(409)
  await h.keys.revoke(user.keyId)

  const { json, text } = await operator.get('/v1/audit')
  const entries = json.entries as Entry[]
  expect(entries.map(({ keyId, action, requestId }) => ({ keyId, action, requestId }))).toEqual([
    { keyId: null, action: `revoke key ${user.keyId}`, requestId: null },
    { keyId: operator.keyId, action: `POST /v1/sessions/${id}/cancel`, requestId: headers['x-request-id'] },
    { keyId: null, action: `add key ${operator.keyId} (submit read control operate)`, requestId: null },
    { keyId: null, action: `add key ${user.keyId} (submit read control)`, requestId: null },
  ])
  for (const { key } of [user, operator]) expect(text).not.toContain(key)
})

it('is for operators alone, and bounded', async () => {
  const [reader, operator] = [await h.withKey('read'), await h.withKey('operate')]
  expect((await reader.get('/v1/audit')).json).toMatchObject({ status: 403, code: 'api.forbidden' })
  await h.redis.rpush(keys.audit(), ...Array.from({ length: keptEntries }, () => 'old'))
  await h.keys.add('one more', ['read'])
  expect(await h.redis.llen(keys.audit())).toBe(keptEntries)
  expect((await operator.get('/v1/audit?limit=1')).json.entries).toHaveLength(1)
  expect((await operator.get('/v1/audit?limit=0')).json).toMatchObject({ status: 422, field: 'limit' })
})
