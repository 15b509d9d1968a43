/** Memory over HTTP: not promised twice, no more than a key may hold, and without the bytes of its last owner. */
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { crc32 } from 'node:zlib'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { KeyStore } from '../../../src/api-keys.ts'
import { root } from '../../../src/config.ts'
import { startFarm, type Farm } from '../../support/farm.ts'
import { ApiClient, type Answer } from '../../support/http.ts'
import { eventually } from '../../support/wait.ts'

const MiB = 2 ** 20
const wait = { Prefer: 'wait=30' }
const module = pathToFileURL(join(root, 'test/support/scribble.ts')).href

let farm: Farm
/** Devices of the workers; the last one's memory is in plain TypeScript. */
let devices: string[] = []

beforeAll(async () => {
  farm = await startFarm({ workers: [{}, {}, { plain: true }], module, settings: { DARKROOM_KEY_MEMORY: '64mb' } })
  devices = farm.workers.map(({ ready }) => ready.slice(0, -5))
})
afterAll(() => farm[Symbol.asyncDispose]())

const allocate = (client: ApiClient, device: string | undefined, bytes: number, more: object = {}): Promise<Answer> =>
  client.post('/v1/memory/allocations', { device, bytes: Math.floor(bytes), ...more }, wait)
const made = async (answer: Promise<Answer>): Promise<string> => {
  const { status, json, text } = await answer
  if (status !== 200) throw new Error(text)
  return json.id as string
}
const release = async (client: ApiClient, id: string): Promise<void> => {
  expect((await client.request('DELETE', `/v1/memory/allocations/${id}`, { headers: wait })).status).toBe(200)
}

it.each([{ kind: 'upload' }, { kind: 'device', placement: 'committed' }])(
  'RAM that one worker has promised, and nobody has touched, is not promised by another: $kind',
  async (how) => {
    const { client } = farm
    const { pools } = (await client.get('/v1/memory')).json as { pools: { pool: string; free: number }[] }
    const most = 0.4 * (pools.find(({ pool }) => pool === 'ram')?.free ?? 0)
    expect(most).toBeGreaterThan(0)
    const first = await made(allocate(client, devices[0], most, how))
    const second = await made(allocate(client, devices[1], most, how))
    for (const device of devices.slice(0, 2)) {
      const { json, status } = await allocate(client, device, most, how)
      expect([status, json.code]).toEqual([503, 'memory.exhausted'])
      expect(json.detail).toMatch(/\d+ bytes/)
    }
    await release(client, second)
    await made(
      eventually('there is room again', async () => {
        const answer = await allocate(client, devices[1], most / 2, how)
        return answer.status === 200 && answer
      }),
    ).then((id) => release(client, id))
    await release(client, first)
  },
)

it('asked for at once, no more is promised than there is', async () => {
  const { client } = farm
  const { pools } = (await client.get('/v1/memory')).json as { pools: { pool: string; free: number }[] }
  const most = 0.3 * (pools.find(({ pool }) => pool === 'ram')?.free ?? 0)
  const answers = await Promise.all([0, 1, 0, 1, 0, 1].map((n) => allocate(client, devices[n], most, { kind: 'readback' })))
  const granted = answers.filter(({ status }) => status === 200)
  expect(granted.length).toBeGreaterThan(0)
  expect(granted.length).toBeLessThanOrEqual(3)
  for (const { json } of answers.filter(({ status }) => status !== 200))
    expect(json).toMatchObject({ code: 'memory.exhausted', detail: expect.stringMatching(/of which \d+ are promised already/) })
  for (const { json } of granted) await release(client, json.id as string)
})

it('a key holds no more than its quota, on all workers together, and another key none the less', async () => {
  const store = new KeyStore(farm.eye)
  const withKey = async (): Promise<ApiClient> => new ApiClient(farm.client.url, { key: (await store.add('k', ['submit', 'read'])).key })
  const [alice, bob] = [await withKey(), await withKey()]
  // What a worker knows of the RAM that others have given back is a moment old.
  const placed = (client: ApiClient, device: string | undefined, bytes: number): Promise<string> =>
    made(
      eventually('there is room', async () => {
        const answer = await allocate(client, device, bytes)
        return answer.status === 200 && answer
      }),
    )
  const first = await placed(alice, devices[0], 40 * MiB)
  for (const device of devices) {
    const refused = await allocate(alice, device, 40 * MiB, { kind: 'upload' })
    expect(refused.json).toMatchObject({ status: 429, code: 'memory.quota', class: 'resource', field: 'bytes' })
    expect(refused.json.detail).toContain(
      `${40 * MiB} bytes more pass the quota of ${64 * MiB} bytes of this API key, which holds ${40 * MiB}`,
    )
    expect(refused.json.remedy).toContain('DARKROOM_KEY_MEMORY')
    expect(Number(refused.headers['retry-after'])).toBeGreaterThan(0)
  }
  const small = await placed(alice, devices[1], 20 * MiB)
  const other = await placed(bob, devices[0], 40 * MiB)
  await release(alice, first)
  const again = await placed(alice, devices[2], 40 * MiB)
  for (const id of [small, again]) await release(alice, id)
  await release(bob, other)
  for (const { id } of await store.list()) await store.revoke(id)
  await store.open()
})

const ways = [
  { kind: 'device', placement: 'automatic' },
  { kind: 'device', placement: 'committed' },
  { kind: 'device', placement: 'placed' },
  { kind: 'upload' },
  { kind: 'readback' },
]
it.each([0, 2])('an allocation holds zeros, whatever its place held before (worker %i)', async (n) => {
  const { client } = farm
  for (const way of ways.filter(({ placement }) => n === 0 || placement !== 'placed'))
    for (const bytes of [1, 70_001, 3 * MiB]) {
      const sum = async (id: string): Promise<string> => (await client.post('/v1/memory/checksum', { id }, wait)).json.crc32 as string
      const zeros = crc32(new Uint8Array(bytes)).toString(16).padStart(8, '0')
      const first = await made(allocate(client, devices[n], bytes, way))
      expect(await sum(first)).toBe(zeros)
      expect((await client.post(`/v1/memory/allocations/${first}/scribble`, undefined, wait)).status).toBe(200)
      expect(await sum(first)).not.toBe(zeros)
      await release(client, first)
      const next = await made(allocate(client, devices[n], bytes, way))
      expect(await sum(next), `${JSON.stringify(way)} of ${bytes} bytes`).toBe(zeros)
      await release(client, next)
    }
})
