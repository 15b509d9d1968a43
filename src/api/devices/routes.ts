/** Devices over HTTP, as their workers last published them, and the default device of the caller. */
import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { z } from 'zod'
import { DarkroomError } from '../../errors.ts'
import { findDevice } from '../../farm/devices.ts'
import { isHere, type HeardWorker } from '../../farm/record.ts'
import { needs } from '../auth.ts'
import type { ApiParts, App, AppEnv } from '../context.ts'
import { DeviceMemoryView, presentDeviceMemory } from '../memory/views.ts'
import { json, keyed, noQuery, problems } from '../route.ts'
import {
  DefaultView,
  DeviceView,
  HistoryView,
  presentDevice,
  presentHistory,
  presentStatus,
  SetDefaultDevice,
  StatusView,
} from './views.ts'

const idParam = z.object({
  id: z.string().meta({ param: { name: 'id', in: 'path' }, description: 'id of the device, or `cuda:0` while that means one device only' }),
})

const list = createRoute({
  method: 'get',
  path: '/devices',
  summary: 'List the devices that have a worker now',
  tags: ['devices'],
  ...keyed,
  middleware: needs('read'),
  request: { query: noQuery },
  responses: { 200: json('All devices', z.strictObject({ devices: z.array(DeviceView) })), ...problems() },
})

const getDefault = createRoute({
  method: 'get',
  path: '/devices/default',
  summary: 'The default device of the caller',
  tags: ['devices'],
  ...keyed,
  middleware: needs('read'),
  request: { query: noQuery },
  responses: { 200: json('The default', DefaultView), ...problems() },
})

const setDefault = createRoute({
  method: 'put',
  path: '/devices/default',
  summary: 'Choose the device on which the caller’s sessions run, unless they name another',
  description:
    'It holds for sessions that are submitted from then on: refused while this device is not here, waiting for it when it goes later.',
  tags: ['devices'],
  ...keyed,
  middleware: needs('submit'),
  request: {
    query: noQuery,
    body: {
      required: true,
      content: { 'application/json': { schema: SetDefaultDevice } },
    },
  },
  responses: { 200: json('The default from now on', DefaultView), ...problems() },
})

const get = createRoute({
  method: 'get',
  path: '/devices/{id}',
  summary: 'Get a device: what it is and what it can do',
  tags: ['devices'],
  ...keyed,
  middleware: needs('read'),
  request: { params: idParam, query: noQuery },
  responses: { 200: json('The device', DeviceView), ...problems(404) },
})

const status = createRoute({
  method: 'get',
  path: '/devices/{id}/status',
  summary: 'How a device is: utilization, temperature, power, clocks, what runs now',
  tags: ['devices'],
  ...keyed,
  middleware: needs('read'),
  request: { params: idParam, query: noQuery },
  responses: { 200: json('Its status', StatusView), ...problems(404) },
})

const memory = createRoute({
  method: 'get',
  path: '/devices/{id}/memory',
  summary: 'The memory of a device: by whom it is held, and how much it is pressed',
  tags: ['devices'],
  ...keyed,
  middleware: needs('read'),
  request: { params: idParam, query: noQuery },
  responses: { 200: json('Its memory', DeviceMemoryView), ...problems(404) },
})

const history = createRoute({
  method: 'get',
  path: '/devices/{id}/history',
  summary: 'How a device was over the last day, a sample a minute',
  tags: ['devices'],
  ...keyed,
  middleware: needs('read'),
  request: { params: idParam, query: noQuery },
  responses: { 200: json('The samples, oldest first; none of the time that it was away', HistoryView), ...problems(404) },
})

export function deviceRoutes(parts: ApiParts): App {
  const { engine } = parts
  const { devices } = engine

  const presentDefault = async (device: string | null): Promise<z.infer<typeof DefaultView>> => ({
    device,
    isHere: device !== null && (await engine.workers()).some((worker) => worker.device.id === device && isHere(worker)),
  })

  return (
    new OpenAPIHono<AppEnv>()
      .openapi(list, async (c) => {
        const [workers, own] = await Promise.all([engine.workers(), devices.default(c.get('caller').keyId)])
        const sorted = workers.toSorted((a, b) => (a.device.id < b.device.id ? -1 : 1))
        return c.json({ devices: sorted.map((worker) => presentDevice(worker, own)) }, 200)
      })
      // Before `{id}`, which they would be.
      .openapi(getDefault, async (c) => c.json(await presentDefault(await devices.default(c.get('caller').keyId)), 200))
      .openapi(setDefault, async (c) => {
        const { device } = c.req.valid('json')
        return c.json(await presentDefault(await devices.setDefault(c.get('caller').keyId, device)), 200)
      })
      .openapi(get, async (c) => {
        const [worker, own] = await Promise.all([find(c.req.valid('param').id), devices.default(c.get('caller').keyId)])
        return c.json(presentDevice(worker, own), 200)
      })
      .openapi(status, async (c) => c.json(presentStatus(await find(c.req.valid('param').id), c.get('caller')), 200))
      .openapi(history, async (c) => {
        const { device } = await find(c.req.valid('param').id)
        return c.json(presentHistory(device.id, await devices.history(device.id)), 200)
      })
      .openapi(memory, async (c) => {
        const worker = await find(c.req.valid('param').id)
        return c.json(await presentDeviceMemory(worker, c.get('caller'), engine), 200)
      })
  )

  /** For reading, a worker that takes no more work is as good as any. */
  async function find(name: string): Promise<HeardWorker> {
    const workers = await engine.workers()
    const own = workers.find(({ device }) => device.id === name)
    if (own) return own
    try {
      return findDevice(name, workers, 'id')
    } catch (error) {
      if (!(error instanceof DarkroomError)) throw error
      throw new DarkroomError(error.code, error.message, { cause: error })
    }
  }
}
