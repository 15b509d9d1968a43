/** API keys take turns at a device, on a farm with a real worker. */
import { Queue } from 'bullmq'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { KeyStore } from '../../src/api-keys.ts'
import { keys, queues } from '../../src/keys.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { ApiClient } from '../support/http.ts'
import { quickTimes } from '../support/times.ts'
import { eventually } from '../support/wait.ts'

const many = 300
let farm: Farm
let device = ''
let control: Queue
beforeAll(async () => {
  // A command is valid for long, however busy this machine is.
  farm = await startFarm({ times: { ...quickTimes, commandMs: 60_000 }, settings: { DARKROOM_LIMIT_ALLOCATIONS: '3' } })
  device = await eventually('the device', async () => (await farm.client.get('/v1/devices')).json.devices[0]?.id)
  const name = queues.control(device)
  control = new Queue(name, { connection: farm.eye.duplicate(), prefix: keys.queuePrefix(name) })
})
afterAll(async () => {
  const { connection } = control.opts
  await control.close()
  ;(connection as { disconnect(): void }).disconnect()
  await farm[Symbol.asyncDispose]()
})

const withKey = async (name: string): Promise<ApiClient> =>
  new ApiClient(farm.client.url, { key: (await new KeyStore(farm.eye).add(name, ['submit', 'read', 'control'])).key })
const refresh = async (client: ApiClient): Promise<string> => {
  const answer = await client.post(`/v1/devices/${device}/refresh`)
  if (answer.status !== 202) throw new Error(`refresh → ${answer.status} ${answer.text}`)
  return answer.json.id as string
}

it(`${many} commands of one key do not starve another's: they take turns`, { timeout: 60_000 }, async () => {
  const [ann, bob] = [await withKey('ann'), await withKey('bob')]
  // Nothing is taken while they come, so that all of them wait.
  await control.pause()
  const hers = await Promise.all(Array.from({ length: many }, () => refresh(ann)))
  const his: string[] = []
  for (let i = 0; i < 3; i++) his.push(await refresh(bob))
  await control.resume()
  const endOf = async (client: ApiClient, id: string): Promise<number> => {
    const session = await eventually(`${id} has ended`, async () => {
      const { json } = await client.get(`/v1/sessions/${id}`)
      return json.endedAt !== null && json
    })
    expect(session.status).toBe('succeeded')
    return Date.parse(session.endedAt)
  }
  const theirEnds = await Promise.all(his.map((id) => endOf(bob, id)))
  const herEnds = await Promise.all(hers.map((id) => endOf(ann, id)))
  // In turns: beside each of his one of hers, and the eight that run at a time.
  const before = herEnds.filter((at) => at < Math.max(...theirEnds)).length
  expect(before).toBeLessThan(30)
})

it('a key has so many allocations on a device; a released one makes room, another key has its own', async () => {
  const [ann, bob] = [await withKey('ann'), await withKey('bob')]
  const allocate = (client: ApiClient) => client.post('/v1/memory/allocations', { device, bytes: 4096 }, { Prefer: 'wait=30' })
  const made = await Promise.all(Array.from({ length: 5 }, () => allocate(ann)))
  const ids = made.flatMap(({ status, json }) => (status === 200 ? [json.id as string] : []))
  expect(ids).toHaveLength(3)
  for (const { status, json, headers } of made.filter((answer) => answer.status !== 200)) {
    expect([status, json.code]).toEqual([429, 'limit.allocations'])
    expect(headers['ratelimit-policy']).toBe('"allocations";q=3')
  }
  expect((await allocate(bob)).status).toBe(200)
  await ann.request('DELETE', `/v1/memory/allocations/${ids[0]}`, { headers: { Prefer: 'wait=30' } })
  expect((await allocate(ann)).status).toBe(200)
})
