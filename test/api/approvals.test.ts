/** Approvals: a URL that is all a person needs, counts once, and is refused by name otherwise. */
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { root } from '../../src/config.ts'
import { keys } from '../../src/keys.ts'
import { ApiClient } from '../support/http.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { eventually } from '../support/wait.ts'

describe('an approval', () => {
  let farm: Farm
  /** Without an API key. */
  let person: ApiClient
  beforeAll(async () => {
    farm = await startFarm({ settings: { DARKROOM_WORKFLOWS: join(root, 'examples') }, fake: ['--call-ms', '1'] })
    person = new ApiClient(farm.client.url)
  })
  afterAll(() => farm[Symbol.asyncDispose]())

  const waiting = async (): Promise<string> => {
    const { json } = await farm.client.post('/v1/sessions', { workflow: 'judged-picture', input: { prompt: 'a', seed: 7 } })
    await eventually('it waits', async () => (await farm.get(json.id)).waiting === 'a timer')
    return json.id
  }
  const grant = (id: string, body: Record<string, unknown> = { signals: ['good', 'again'] }) =>
    farm.client.post(`/v1/sessions/${id}/approvals`, body)

  it('takes one answer, once, and keeps no token', async () => {
    const id = await waiting()
    const { json } = await grant(id)
    expect(json.url).toMatch(/^\/v1\/approvals\/\d-[0-9a-z]{26}\.[\w-]{43}$/)
    expect(JSON.stringify(await farm.eye.hgetall(keys.session(id)))).not.toContain(json.url.split('.')[1])
    expect((await person.post(json.url, { signal: 'discard' })).json).toMatchObject({ status: 422, code: 'api.invalid', field: 'signal' })
    const all = await Promise.all(
      ['good', 'good', 'again', 'again'].map((signal) => person.post(json.url, { signal, data: { by: 'Ada' } })),
    )
    expect(all.map(({ status }) => status).toSorted((a, b) => a - b)).toEqual([200, 409, 409, 409])
    expect((await farm.history(id)).filter(({ type }) => type === 'signal.received')).toMatchObject([{ data: { by: 'Ada' } }])
    if ((await farm.get(id)).status !== 'succeeded') await farm.control(id, 'cancel')
    expect((await person.post(json.url, { signal: 'good' })).json).toMatchObject({ status: 409, code: 'approval.used' })
  })

  it('is refused before and after its time, and for what there is not', async () => {
    const id = await waiting()
    expect((await grant(id, { signals: ['nothing'] })).json).toMatchObject({ code: 'session.signal_unknown', field: 'signals.0' })
    expect((await grant(id, { signals: [] })).json).toMatchObject({ code: 'api.invalid', field: 'signals' })
    const { json } = await grant(id)
    const first = json.url.replace(/.$/, (last: string) => (last === 'A' ? 'B' : 'A'))
    for (const url of [first, '/v1/approvals/none', `/v1/approvals/${id}.`])
      expect((await person.post(url, { signal: 'good' })).json).toMatchObject({ status: 404, code: 'approval.unknown' })
    const short = (await grant(id, { signals: ['good'], expiresInS: 1 })).json
    const field = Object.entries(await farm.eye.hgetall(keys.session(id))).find(([, value]) => value.includes('["good"]'))?.[0] ?? ''
    await farm.eye.hset(keys.session(id), field, '{"until":1,"signals":["good"]}')
    expect((await person.post(short.url, { signal: 'good' })).json).toMatchObject({ status: 410, code: 'approval.expired' })
    await person.post((await grant(id)).json.url, { signal: 'again' })
    expect((await person.post(json.url, { signal: 'good' })).json).toMatchObject({ status: 409, code: 'approval.late' })
    await farm.control(id, 'cancel')
    expect((await grant(id)).json).toMatchObject({ code: 'session.ended' })
  })

  it('is made 32 times of a session at most', async () => {
    const id = await waiting()
    const all = await Promise.all(Array.from({ length: 34 }, () => grant(id)))
    expect(all.filter(({ status }) => status === 200)).toHaveLength(32)
    expect(all.find(({ status }) => status !== 200)?.json).toMatchObject({ code: 'approval.too_many' })
    await farm.control(id, 'cancel')
  })
})
