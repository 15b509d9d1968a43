/** Jobs of open steps, where Redis is away. */
import { afterEach, beforeEach, expect, it } from 'vitest'
import { Dispatcher } from '../../src/engine/dispatch.ts'
import { connect, type Redis } from '../../src/redis.ts'
import { startTestRedis, type TestRedis } from '../support/redis.ts'

let server: TestRedis
let redis: Redis
beforeEach(async () => {
  server = await startTestRedis()
  redis = connect(server.url, { patience: 'fail' })
})
afterEach(async () => {
  redis.disconnect()
  await server.stop()
})

it('what BullMQ throws of a broken line is an error that the caller may repeat, as everywhere', async () => {
  const nothing = {} as never
  const parts = { redis, store: nothing, reads: nothing, workers: () => Promise.resolve([]), models: nothing, times: { leaseMs: 1 } }
  const dispatcher = new Dispatcher({ ...parts, at: undefined })
  const step = { stepKey: '0-01m8kzt3n3qr0fby8z1258c361.1.0', dispatch: 1, name: 'inference.denoise', priority: 5 }
  await dispatcher.add(step, 'gpu-class')
  await server.kill()
  const unavailable = { code: 'redis.unavailable', class: 'transient' }
  await expect(dispatcher.add({ ...step, dispatch: 2 }, 'gpu-class')).rejects.toMatchObject(unavailable)
  await expect(dispatcher.find('gpu-class', `${step.stepKey}.1`)).rejects.toMatchObject(unavailable)
})
