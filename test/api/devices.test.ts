/** Devices over HTTP: what they are, the one that a caller prefers, and what becomes of them. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { KeyStore } from '../../src/api-keys.ts'
import { keys } from '../../src/keys.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { eventually } from '../support/wait.ts'
import { ApiClient, type Answer } from '../support/http.ts'

interface Event {
  id: number
  type: string
  device: string
  from: string | null
  alert: { code: string } | null
}

let farm: Farm
let one = ''
let two = ''

beforeAll(async () => {
  // Two APIs and two workers: four processes look at the devices.
  farm = await startFarm({ apis: 2, workers: 2, fake: ['--call-ms', '20'] })
  const ids = await eventually('both devices', async () => {
    const { json } = await farm.client.get('/v1/devices')
    return json.devices.length === 2 && (json.devices as { id: string }[]).map(({ id }) => id)
  })
  ;[one, two] = ids as [string, string]
})
afterAll(() => farm[Symbol.asyncDispose]())

const problem = ({ status, json }: Answer) => ({ status, code: json.code as string, field: json.field as string | undefined })
const workerOf = async (device: string): Promise<string> => (await farm.client.get(`/v1/devices/${device}`)).json.worker as string
const choose = (device: string | null): Promise<Answer> => farm.client.request('PUT', '/v1/devices/default', { body: { device } })
const since = async (after: number, device: string): Promise<Event[]> =>
  (await farm.client.get(`/v1/devices/events?after=${after}&device=${device}`)).json.events as Event[]
const newest = async (): Promise<number> => (await farm.client.get('/v1/devices/events?limit=1')).json.newest as number

describe('a device', () => {
  it('says what it is, how it is, and what holds its memory', async () => {
    const { json: device } = await farm.client.get(`/v1/devices/${one}`)
    expect(device).toMatchObject({ id: one, status: 'ready', backend: 'host', isDefault: false })
    expect(device.capabilities.families).toContain('sd1')
    expect(device.totalBytes).toBeGreaterThan(0)
    const { json: workers } = await farm.client.get('/v1/workers')
    expect(workers.workers[0].native).toMatchObject({ backend: 'host' })
    expect((await farm.client.get(`/v1/devices/${one}/status`)).json.vitals).toMatchObject({ temperature: null })
    expect((await farm.client.get(`/v1/devices/${one}/memory`)).json).toMatchObject({ device: one, allocations: [] })
  })

  it('says how each family is drawn there', async () => {
    const { json } = await farm.client.get(`/v1/devices/${one}`)
    // How fast it draws is told by who draws: test/long/previews.test.ts.
    expect(json.capabilities).toMatchObject({ measured: [] })
    expect(json.capabilities.drawing).toEqual([
      {
        family: 'sd1',
        dtype: 'float32',
        samplers: expect.arrayContaining(['Euler', 'DPM++ 3M SDE']) as string[],
        schedules: expect.arrayContaining(['Automatic', 'AYS']) as string[],
        graphs: false,
      },
    ])
  })

  it('is unknown by a name that nobody has, or two have', async () => {
    for (const name of ['cuda:0', 'cpu:0', 'x'.repeat(300)])
      for (const path of ['', '/status', '/memory'])
        expect(problem(await farm.client.get(`/v1/devices/${name}${path}`)), name).toEqual({
          status: 404,
          code: 'device.unknown',
          field: undefined,
        })
    expect((await farm.client.get('/v1/devices/cpu:0')).json.detail).toMatch(new RegExp(`${one}.*${two}`))
    for (const path of ['refresh', 'optimize'])
      expect(problem(await farm.client.post(`/v1/devices/cuda:0/${path}`, {}))).toEqual({
        status: 404,
        code: 'device.unknown',
        field: undefined,
      })
    expect(problem(await farm.client.post(`/v1/devices/${one}/optimize`, { idleModels: 'yes' }))).toMatchObject({
      status: 422,
      field: 'idleModels',
    })
  })

  it('is looked at now when somebody asks for it, and optimized with figures before and after', async () => {
    const wait = { Prefer: 'wait=30' }
    const before = Date.now()
    const { json } = await farm.client.post(`/v1/devices/${one}/refresh`, undefined, wait)
    expect(Date.parse(json.sampledAt as string)).toBeGreaterThanOrEqual(before - 1000)
    const optimized = await farm.client.post(`/v1/devices/${one}/optimize`, undefined, wait)
    expect(optimized.status).toBe(200)
    expect(optimized.json.before.allocations).toBeGreaterThanOrEqual(optimized.json.after.allocations as number)
    expect(optimized.json.did).not.toEqual([])
  })
})

describe('the device of a request', () => {
  it('draws all its steps, whichever is free', async () => {
    const held = await farm.gate(41, 2)
    const first = await farm.submit({ seed: 41 }, { device: two })
    await farm.untilCall(first, 2)
    // The other device is idle, and is not asked.
    const second = await farm.submit({ seed: 42 }, { device: two })
    await held()
    for (const id of [first, second]) {
      await farm.until(id, 'succeeded')
      const { steps } = await farm.receipt(id)
      const workers = steps
        .filter(({ step }) => step.startsWith('inference.'))
        .flatMap(({ attempts }) => attempts.map(({ worker }) => worker))
      expect(new Set(workers)).toEqual(new Set([await workerOf(two)]))
    }
    expect((await farm.client.get(`/v1/sessions/${second}`)).json.device).toBe(two)
  })

  it('is refused by its field when it is not here, and for what is a command to another', async () => {
    const submit = (more: object): Promise<Answer> =>
      farm.client.post('/v1/sessions', { workflow: 'image-generation', input: { prompt: 'a' }, ...more })
    expect(problem(await submit({ device: 'cuda:0' }))).toEqual({ status: 422, code: 'device.unknown', field: 'device' })
    expect(problem(await submit({ device: 'cpu:0' }))).toEqual({ status: 422, code: 'device.unknown', field: 'device' })
    expect(problem(await submit({ device: '' }))).toEqual({ status: 422, code: 'api.invalid', field: 'device' })
    expect(problem(await submit({ workflow: 'device-refresh', input: { device: one }, device: two }))).toMatchObject({
      status: 422,
      field: 'device',
    })
  })

  it('is its caller’s default, of each key its own, until it goes', async () => {
    expect((await choose(two)).json).toEqual({ device: two, isHere: true })
    expect((await farm.client.get(`/v1/devices/${two}`)).json.isDefault).toBe(true)
    const id = await farm.submit({ seed: 43 })
    expect((await farm.client.get(`/v1/sessions/${id}`)).json.device).toBe(two)
    const other = await farm.submit({ seed: 44 }, { device: one })
    expect((await farm.client.get(`/v1/sessions/${other}`)).json.device).toBe(one)
    for (const session of [id, other]) await farm.until(session, 'succeeded')
    expect(problem(await choose('cuda:5'))).toEqual({ status: 422, code: 'device.unknown', field: 'device' })

    const store = new KeyStore(farm.eye)
    const { key, record } = await store.add('test', ['submit', 'read'])
    const client = new ApiClient(farm.client.url, { key })
    expect((await client.get('/v1/devices/default')).json).toEqual({ device: null, isHere: false })
    expect((await client.request('PUT', '/v1/devices/default', { body: { device: one } })).json.device).toBe(one)
    await store.revoke(record.id)
    await store.open()
    expect(await farm.eye.hexists(keys.defaultDevices(), record.id)).toBe(0)
    expect((await choose(null)).json).toEqual({ device: null, isHere: false })
  })

  it('is waited for while it is away, and nobody else draws instead', async () => {
    await choose(two)
    const held = await farm.gate(45, 1)
    const id = await farm.submit({ seed: 45 })
    const { worker } = await farm.untilCall(id, 1)
    expect(worker.ready).toBe(await workerOf(two))
    await worker.kill()
    await held()
    await eventually('it says what it waits for', async () =>
      (await farm.get(id)).waiting?.includes(`device ${two}, which has no ready worker now`),
    )
    // What one session waits for is nothing that the farm lacks.
    expect((await farm.client.get('/v1/ready')).status).toBe(200)
    // A default that is away takes no new work either, once the API has looked who is there.
    await eventually('the device is away', async () => {
      const { json } = await farm.client.get('/v1/devices')
      return !(json.devices as { id: string }[]).some(({ id: each }) => each === two)
    })
    const refused = await farm.client.post('/v1/sessions', { workflow: 'image-generation', input: { prompt: 'a' } })
    expect(problem(refused)).toEqual({ status: 422, code: 'device.unknown', field: 'device' })
    expect(refused.json.remedy).toMatch(/default/)
    await worker.start()
    await farm.until(id, 'succeeded', 60_000)
    const attempts = await farm.attempts(id, 'inference.denoise')
    expect(attempts.map((attempt) => attempt.end)).toEqual(['lost', 'completed'])
    expect(attempts.at(-1)?.worker).toBe(worker.ready)
    await choose(null)
  })
})

describe('device events', () => {
  it('tell each change once, in order, though four processes look', async () => {
    const from = await newest()
    const worker = farm.worker(await workerOf(one))
    const held = await farm.gate(46, 1)
    const id = await farm.submit({ seed: 46 }, { device: one })
    await farm.untilCall(id, 1)
    await eventually('it is busy', async () => (await since(from, one)).some(({ type }) => type === 'device.busy'))
    await held()
    await farm.until(id, 'succeeded')
    await eventually('it is online again', async () => (await since(from, one)).at(-1)?.type === 'device.online')
    await worker.kill()
    await eventually('it is offline', async () => (await since(from, one)).at(-1)?.type === 'device.offline')
    await worker.start()
    await eventually('it is back', async () => (await since(from, one)).at(-1)?.type === 'device.online')

    const events = await since(from, one)
    expect(events.filter(({ alert }) => alert === null).map(({ type }) => type)).toEqual([
      'device.busy',
      'device.online',
      'device.offline',
      'device.online',
    ])
    for (const [i, event] of events.entries()) expect(event.id).toBeGreaterThan(events[i - 1]?.id ?? from)
    // The other API tells the same.
    const [, second] = farm.apis
    if (!second) throw new Error('there is no second API')
    expect((await farm.clientOf(second).get(`/v1/devices/events?after=${from}&device=${one}`)).json.events).toEqual(events)
  })

  it('are streamed from where a listener was', async () => {
    const all = (await farm.client.get('/v1/devices/events?limit=1000')).json.events as Event[]
    const first = all[0]
    if (!first) throw new Error('there are no events')
    const seen: Event[] = []
    const headers = { Accept: 'text/event-stream', 'Last-Event-ID': String(first.id) }
    for await (const { id, event, data } of farm.client.events('/v1/devices/events', { headers })) {
      expect([id, event]).toEqual([String(data.id), data.type])
      seen.push(data as Event)
      if (seen.length === all.length - 1) break
    }
    expect(seen).toEqual(all.slice(1))
  })

  it('begin where they are asked to, and refuse what is no position', async () => {
    const last = await newest()
    expect((await farm.client.get(`/v1/devices/events?after=${last + 1000}`)).json).toEqual({ events: [], newest: last })
    for (const query of ['after=-1', 'after=x', 'limit=0', 'limit=1001', 'since=1'])
      expect(problem(await farm.client.get(`/v1/devices/events?${query}`))).toMatchObject({ status: 422, code: 'api.invalid' })
  })
})
