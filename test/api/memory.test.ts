/**
 * Device memory over HTTP, on a farm with real workers: who may touch what, what is refused, and that nothing is left
 * over.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { KeyStore, type Scope } from '../../src/api-keys.ts'
import { readWorkers } from '../../src/farm/presence.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { eventually } from '../support/wait.ts'
import { ApiClient, type Answer } from '../support/http.ts'

const MiB = 2 ** 20
const wait = { Prefer: 'wait=30' }

let farm: Farm
let one = ''
let two = ''

beforeAll(async () => {
  farm = await startFarm({ workers: 2 })
  const ids = await eventually('both devices', async () => {
    const { json } = await farm.client.get('/v1/devices')
    return json.devices.length === 2 && (json.devices as { id: string }[]).map(({ id }) => id)
  })
  ;[one, two] = ids as [string, string]
})
afterAll(() => farm[Symbol.asyncDispose]())

const withKey = async (...scopes: Scope[]): Promise<ApiClient> =>
  new ApiClient(farm.client.url, { key: (await new KeyStore(farm.eye).add('test', scopes)).key })
/** Whoever is on this machine may do everything again. */
const withoutKeys = async (): Promise<void> => {
  const store = new KeyStore(farm.eye)
  for (const { id } of await store.list()) await store.revoke(id)
  await store.open()
}
const allocate = async (client: ApiClient, more: object = {}): Promise<string> => {
  const answer = await client.post('/v1/memory/allocations', { device: one, bytes: MiB, ...more }, wait)
  if (answer.status !== 200) throw new Error(`allocate → ${answer.status} ${answer.text}`)
  return answer.json.id as string
}
const release = (client: ApiClient, id: string): Promise<Answer> =>
  client.request('DELETE', `/v1/memory/allocations/${id}`, { headers: wait })
const problem = ({ status, json }: Answer) => ({ status, code: json.code as string, field: json.field as string | undefined })
/** By the workers' own figures, past the API. */
const held = async (): Promise<number> => (await readWorkers(farm.eye)).reduce((sum, { report }) => sum + report.allocationCount, 0)
const nothingHeld = (): Promise<unknown> => eventually('nothing is held', async () => (await held()) === 0)

describe('an allocation', () => {
  it('is made, found, renewed and given back in one call each', async () => {
    const made = await farm.client.post('/v1/memory/allocations', { device: one, bytes: 3 * MiB, kind: 'upload', timeToLiveS: 60 }, wait)
    expect(made.status).toBe(200)
    expect(made.headers['preference-applied']).toBe('wait=30')
    expect(made.json).toMatchObject({ device: one, bytes: 3 * MiB, kind: 'upload', owner: 'key:local' })
    const { id } = made.json as { id: string }
    const left = Date.parse(made.json.expiresAt) - Date.now()
    expect(left).toBeGreaterThan(0)
    expect(left).toBeLessThanOrEqual(60_000)

    const found = await eventually('it is published', async () => {
      const answer = await farm.client.get(`/v1/memory/allocations/${id}`)
      return answer.status === 200 && answer
    })
    expect(found.json).toMatchObject({ id, bytes: 3 * MiB })
    expect((await farm.client.get('/v1/memory/allocations')).json).toMatchObject({ allocations: [{ id }], isComplete: true })
    const renewed = await farm.client.post(`/v1/memory/allocations/${id}/renew`, { timeToLiveS: 6000 }, wait)
    expect(Date.parse(renewed.json.expiresAt) - Date.now()).toBeGreaterThan(3_000_000)

    const gone = await release(farm.client, id)
    expect([gone.status, gone.json]).toEqual([200, { id, bytes: 3 * MiB }])
    expect(problem(await release(farm.client, id))).toEqual({ status: 404, code: 'memory.unknown', field: undefined })
    await nothingHeld()
    // The API has read the workers' figures some moments before.
    await eventually('it is not found', async () => (await farm.client.get(`/v1/memory/allocations/${id}`)).status === 404)
  })

  it('is a session when nobody waits for it', async () => {
    const accepted = await farm.client.post('/v1/memory/allocations', { device: one, bytes: MiB })
    expect(accepted.status).toBe(202)
    expect(accepted.json).toMatchObject({ workflow: 'memory-allocate@1' })
    expect(accepted.headers['location']).toBe(`/v1/sessions/${accepted.json.id}`)
    const { output } = await farm.until(accepted.json.id as string, 'succeeded')
    expect((await release(farm.client, (output as unknown as { id: string }).id)).status).toBe(200)
    await nothingHeld()
  })

  it('is made once under one Idempotency-Key', async () => {
    const again = { ...wait, 'Idempotency-Key': 'once' }
    const body = { device: one, bytes: MiB }
    const [first, second] = [
      await farm.client.post('/v1/memory/allocations', body, again),
      await farm.client.post('/v1/memory/allocations', body, again),
    ]
    expect(second.json).toEqual(first.json)
    await eventually('it is published', async () => (await held()) === 1)
    expect(problem(await farm.client.post('/v1/memory/allocations', { ...body, bytes: 2 * MiB }, again))).toMatchObject({
      code: 'session.idempotency_mismatch',
    })
    await release(farm.client, first.json.id as string)
    await nothingHeld()
  })

  it('goes by itself when its time is over', async () => {
    const id = await allocate(farm.client, { timeToLiveS: 4 })
    await eventually('it is published', async () => (await farm.client.get(`/v1/memory/allocations/${id}`)).status === 200)
    await eventually('its time is over', async () => (await farm.client.get(`/v1/memory/allocations/${id}`)).status === 404)
    await nothingHeld()
    expect(problem(await release(farm.client, id))).toMatchObject({ status: 404, code: 'memory.unknown' })
  })

  it('is made on the default device of the caller', async () => {
    expect(problem(await farm.client.post('/v1/memory/allocations', { bytes: MiB }, wait))).toMatchObject({
      status: 422,
      code: 'api.invalid',
      field: 'device',
    })
    await farm.client.request('PUT', '/v1/devices/default', { body: { device: two } })
    const made = await farm.client.post('/v1/memory/allocations', { bytes: MiB }, wait)
    expect(made.json.device).toBe(two)
    await release(farm.client, made.json.id as string)
    await farm.client.request('PUT', '/v1/devices/default', { body: { device: null } })
    await nothingHeld()
  })
})

describe('bytes', () => {
  it('are copied within a device and transferred to another, and stay the same', async () => {
    const source = await allocate(farm.client, { kind: 'upload', bytes: 2 * MiB })
    const near = await allocate(farm.client, { bytes: 2 * MiB })
    const copied = await farm.client.post(
      '/v1/memory/copy',
      { from: source, to: near, fromAt: MiB, at: 4096, bytes: 65_536, verify: true },
      wait,
    )
    expect(copied.json).toMatchObject({ bytes: 65_536 })
    const sum = async (id: string, at: number): Promise<string> =>
      (await farm.client.post('/v1/memory/checksum', { id, at, bytes: 65_536 }, wait)).json.crc32 as string
    expect(copied.json.crc32).toBe(await sum(source, MiB))

    const moved = await farm.client.post('/v1/memory/transfer', { from: near, fromAt: 4096, bytes: 65_536, device: two }, wait)
    expect(moved.json.allocation).toMatchObject({ device: two, bytes: 65_536, owner: 'key:local' })
    const far = moved.json.allocation.id as string
    expect(await sum(far, 0)).toBe(copied.json.crc32)
    expect((await farm.client.post('/v1/memory/transfer', { from: far, to: source, at: 128 }, wait)).json).toMatchObject({ bytes: 65_536 })
    expect(await sum(source, 128)).toBe(copied.json.crc32)
    for (const id of [source, near, far]) expect((await release(farm.client, id)).status).toBe(200)
    await nothingHeld()
  })
})

describe('what is refused names its field, and leaves nothing', () => {
  it.each<[string, object | string, number, string, string]>([
    ['size 0', { bytes: 0 }, 422, 'api.invalid', 'bytes'],
    ['a negative size', { bytes: -1 }, 422, 'api.invalid', 'bytes'],
    ['half a byte', { bytes: 1.5 }, 422, 'api.invalid', 'bytes'],
    ['a size in words', { bytes: '1 GiB' }, 422, 'api.invalid', 'bytes'],
    ['NaN, which JSON makes null', { bytes: null }, 422, 'api.invalid', 'bytes'],
    ['NaN, which is no JSON', '{"device": "cpu:0", "bytes": NaN}', 400, 'api.malformed', ''],
    ['a number that no computer counts exactly', { bytes: 2 ** 60 }, 422, 'api.invalid', 'bytes'],
    ['more than the device has', { bytes: 2 ** 50 }, 422, 'memory.invalid', 'bytes'],
    ['more than the host has', { bytes: 2 ** 50, kind: 'upload' }, 422, 'memory.invalid', 'bytes'],
    ['another kind', { bytes: 1, kind: 'swap' }, 422, 'api.invalid', 'kind'],
    ['no time to live', { bytes: 1, timeToLiveS: 0 }, 422, 'api.invalid', 'timeToLiveS'],
    ['a longer time than a day', { bytes: 1, timeToLiveS: 86_401 }, 422, 'api.invalid', 'timeToLiveS'],
    ['an owner of the caller’s choice', { bytes: 1, owner: 'key:other' }, 422, 'api.invalid', 'owner'],
    ['an unknown device', { bytes: 1, device: 'cuda:7' }, 422, 'device.unknown', 'device'],
  ])('%s', async (_, body, status, code, field) => {
    const isText = typeof body === 'string'
    const answer = await farm.client.request('POST', '/v1/memory/allocations', {
      body: isText ? body : { device: one, ...body },
      headers: { ...wait, ...(isText && { 'Content-Type': 'application/json' }) },
    })
    expect(problem(answer)).toEqual({ status, code, field: field === '' ? undefined : field })
    expect(answer.json.remedy).toMatch(/\w/)
    expect(await held()).toBe(0)
  })

  it('however the allocation is asked for', async () => {
    const submit = async (input: object): Promise<ReturnType<typeof problem>> =>
      problem(await farm.client.post('/v1/sessions', { workflow: 'memory-allocate', input }, wait))
    expect(await submit({ device: one, bytes: 2 ** 50 })).toEqual({ status: 422, code: 'memory.invalid', field: 'input.bytes' })
    expect(await submit({ device: 'cuda:7', bytes: 1 })).toEqual({ status: 422, code: 'device.unknown', field: 'input.device' })
    expect(await submit({ bytes: 1 })).toEqual({ status: 422, code: 'api.invalid', field: 'input.device' })
    expect(await held()).toBe(0)
  })

  it('copies and transfers that leave their allocations, or go nowhere', async () => {
    const [a, b, far] = [await allocate(farm.client), await allocate(farm.client), await allocate(farm.client, { device: two })]
    const copy = async (body: object): Promise<ReturnType<typeof problem>> =>
      problem(await farm.client.post('/v1/memory/copy', { from: a, to: b, ...body }, wait))
    expect(await copy({ at: MiB })).toEqual({ status: 422, code: 'memory.out_of_range', field: 'at' })
    expect(await copy({ fromAt: MiB + 1 })).toEqual({ status: 422, code: 'memory.out_of_range', field: 'fromAt' })
    expect(await copy({ bytes: MiB + 1 })).toMatchObject({ status: 422, code: 'memory.out_of_range' })
    expect(await copy({ bytes: 0 })).toEqual({ status: 422, code: 'api.invalid', field: 'bytes' })
    expect(await copy({ at: -1 })).toEqual({ status: 422, code: 'api.invalid', field: 'at' })
    expect(await copy({ to: 'there' })).toEqual({ status: 422, code: 'api.invalid', field: 'to' })
    expect(await copy({ to: far })).toEqual({ status: 422, code: 'memory.elsewhere', field: 'to' })
    expect(await copy({ to: b.replace(/\d+$/, '999999') })).toMatchObject({ status: 422, code: 'memory.unknown', field: 'to' })
    expect(await copy({ from: a.replace(/\.\w{8}\./, '.00000000.') })).toEqual({ status: 422, code: 'memory.unknown', field: 'from' })
    const transfer = async (body: object): Promise<ReturnType<typeof problem>> =>
      problem(await farm.client.post('/v1/memory/transfer', { from: a, ...body }, wait))
    expect(await transfer({})).toEqual({ status: 422, code: 'memory.invalid', field: 'to' })
    expect(await transfer({ to: far, device: two })).toEqual({ status: 422, code: 'memory.invalid', field: 'to' })
    expect(await transfer({ device: 'cuda:9' })).toEqual({ status: 422, code: 'device.unknown', field: 'device' })
    expect(await transfer({ to: far, at: 1 })).toMatchObject({ status: 422, code: 'memory.out_of_range' })
    expect(await transfer({ device: two, bytes: 2 * MiB })).toMatchObject({ status: 422, code: 'memory.out_of_range' })
    for (const id of [a, b, far]) expect((await release(farm.client, id)).status).toBe(200)
    await nothingHeld()
  })

  it('ids that are none, or that nobody has', async () => {
    expect(problem(await release(farm.client, 'nothing'))).toMatchObject({ status: 422, code: 'api.invalid', field: 'id' })
    expect(problem(await release(farm.client, `${one}.00000000.1`))).toMatchObject({ status: 404, code: 'memory.unknown' })
    expect(problem(await release(farm.client, 'ffffffff-cuda-00000000.00000000.1'))).toMatchObject({ status: 404, code: 'memory.unknown' })
    expect(problem(await farm.client.get('/v1/memory/allocations?device=cuda:9'))).toEqual({
      status: 422,
      code: 'device.unknown',
      field: 'device',
    })
  })
})

describe('API keys', () => {
  afterAll(withoutKeys)

  it('see and touch their own allocations; an operator all of them', async () => {
    const ada = await withKey('submit', 'read')
    const bob = await withKey('submit', 'read')
    const reader = await withKey('read')
    const operator = await withKey('submit', 'read', 'operate')
    const id = await allocate(ada)
    const other = await allocate(bob)
    await eventually('both are published', async () => (await operator.get('/v1/memory/allocations')).json.allocations.length === 2)
    const ids = async (client: ApiClient): Promise<string[]> =>
      ((await client.get('/v1/memory/allocations')).json.allocations as { id: string }[]).map((each) => each.id)
    expect([await ids(ada), await ids(bob), await ids(reader)]).toEqual([[id], [other], []])
    expect((await bob.get(`/v1/devices/${one}/memory`)).json.allocations).toHaveLength(1)

    for (const answer of [
      await bob.get(`/v1/memory/allocations/${id}`),
      await release(bob, id),
      await bob.post(`/v1/memory/allocations/${id}/renew`, {}, wait),
    ])
      expect(problem(answer)).toMatchObject({ status: 404, code: 'memory.unknown' })
    expect(problem(await bob.post('/v1/memory/copy', { from: id, to: other }, wait))).toMatchObject({ status: 422, code: 'memory.unknown' })
    expect(problem(await bob.post('/v1/memory/transfer', { from: id, device: two }, wait))).toMatchObject({ code: 'memory.unknown' })
    // The same by the door that takes any workflow.
    const session = await bob.post('/v1/sessions', { workflow: 'memory-release', input: { id } }, wait)
    expect(session.json).toMatchObject({ status: 'failed', error: { code: 'memory.unknown' } })
    for (const body of [
      { workflow: 'memory-defragment', input: { device: one } },
      { workflow: 'device-optimize', input: { device: one } },
    ])
      expect(problem(await bob.post('/v1/sessions', body, wait))).toMatchObject({ status: 403, code: 'workflow.forbidden' })

    for (const answer of [
      await reader.post('/v1/memory/allocations', { device: one, bytes: 1 }, wait),
      await release(reader, id),
      await bob.post('/v1/memory/defragment', { device: one }, wait),
      await bob.post(`/v1/devices/${one}/optimize`, {}, wait),
    ])
      expect(problem(answer)).toMatchObject({ status: 403, code: 'api.forbidden' })

    expect((await operator.post('/v1/memory/defragment', { device: one }, wait)).json.compaction).toMatchObject({ moves: 0 })
    expect((await release(operator, id)).status).toBe(200)
    expect((await release(bob, other)).status).toBe(200)
    await nothingHeld()
  })
})

describe('reads', () => {
  it('say what each pool holds, and never that unknown is nothing', async () => {
    const { pools } = (await farm.client.get('/v1/memory')).json as { pools: Record<string, unknown>[] }
    expect(pools.map(({ pool, device }) => [pool, device])).toEqual([
      ['device', one],
      ['device', two],
      ['ram', null],
    ])
    for (const { total, used, free } of pools) {
      expect(total).toBeGreaterThan(0)
      expect(used === null ? null : Number(used) > 0).not.toBe(false)
      expect(free === null).toBe(used === null)
    }
    for (const path of ['models', 'leaks', 'analytics', 'recommendations'])
      expect((await farm.client.get(`/v1/memory/${path}?device=${one}`)).status, path).toBe(200)
    expect((await farm.client.get('/v1/memory/models')).json.devices).toHaveLength(2)
  })

  it('answer while the workers stand still', async () => {
    const id = await allocate(farm.client)
    await eventually('it is published', async () => (await farm.client.get(`/v1/memory/allocations/${id}`)).status === 200)
    const still = farm.workersAlive()
    for (const worker of still) worker.signal('SIGSTOP')
    try {
      const paths = ['/devices', `/devices/${one}`, `/devices/${one}/status`, `/devices/${one}/memory`, '/devices/events', '/memory']
      const more = [`/memory/allocations/${id}`, '/memory/allocations', '/memory/models', '/memory/leaks', '/memory/analytics']
      const answers = await Promise.all([...paths, ...more].map((path) => farm.client.get(`/v1${path}`)))
      expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200))
      // A command is not: it waits for its worker, and whoever waits for it is told that it runs on.
      const asked = await farm.client.post(`/v1/devices/${one}/refresh`, undefined, { Prefer: 'wait=0' })
      expect(asked.status).toBe(202)
    } finally {
      for (const worker of still) worker.signal('SIGCONT')
    }
    await eventually('the workers are back', async () => (await farm.client.get('/v1/devices')).json.devices.length === 2)
    await release(farm.client, id)
    await nothingHeld()
  })
})

describe('a worker that dies', () => {
  it('takes its allocations with it, and whoever asks for them is told so', async () => {
    const again = { ...wait, 'Idempotency-Key': 'before-it-died' }
    const asked = { device: one, bytes: MiB }
    const { id } = (await farm.client.post('/v1/memory/allocations', asked, again)).json as { id: string }
    const { worker: name } = (await farm.client.get(`/v1/devices/${one}`)).json as { worker: string }
    const worker = farm.worker(name)
    await worker.kill()
    const answer = await farm.client.post('/v1/memory/allocations', { device: one, bytes: MiB }, wait)
    expect([409, 422, 503]).toContain(answer.status)
    expect(['device.lost', 'device.not_ready', 'device.unknown']).toContain(answer.json.code)
    await eventually('it is gone', async () => (await farm.client.get(`/v1/devices/${one}`)).status === 404)
    expect(problem(await release(farm.client, id))).toEqual({ status: 404, code: 'memory.unknown', field: undefined })
    expect(problem(await farm.client.post('/v1/memory/allocations', { device: one, bytes: MiB }, wait))).toEqual({
      status: 422,
      code: 'device.unknown',
      field: 'device',
    })
    // A repeat of what was accepted says what became of it, though its device is gone.
    const repeated = await farm.client.post('/v1/memory/allocations', asked, again)
    expect([repeated.status, repeated.json.id]).toEqual([200, id])
    await worker.start()
    await eventually('it is back', async () => (await farm.client.get(`/v1/devices/${one}`)).json.status === 'ready')
    const late = await release(farm.client, id)
    expect(problem(late)).toEqual({ status: 404, code: 'memory.unknown', field: undefined })
    expect(late.json.detail).toMatch(/device epoch/)
    await release(farm.client, await allocate(farm.client))
    await nothingHeld()
  })
})
