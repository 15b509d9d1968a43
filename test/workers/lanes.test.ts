/** The lanes of commands and of the device on real queues. */
import { Queue } from 'bullmq'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { keys } from '../../src/keys.ts'
import { createLog } from '../../src/log.ts'
import { connect, type Redis } from '../../src/redis.ts'
import { DeviceLane, openLane } from '../../src/workers/lanes.ts'
import type { StepRunner } from '../../src/workers/runner.ts'
import { startTestRedis, type TestRedis } from '../support/redis.ts'

let server: TestRedis
let redis: Redis
beforeAll(async () => {
  server = await startTestRedis()
  redis = connect(server.url, { patience: 'wait' })
})
afterAll(async () => {
  redis.disconnect()
  await server.stop()
})

it('one API key runs so many commands at a time, others find a place beside them; without a key there is no such limit', async () => {
  const name = 'control.0123abcd-cpu-0'
  const queue = new Queue(name, { connection: redis, prefix: keys.queuePrefix(name) })
  const running = new Map<string, () => void>()
  const run = (id: string): Promise<undefined> => new Promise((resolve) => running.set(id, () => (running.delete(id), resolve(undefined))))
  const runner = { run } as unknown as StepRunner
  const lane = openLane('control', name, 4, { redis, runner, log: createLog('silent', 'test'), ofOneKey: 3 })
  const add = (id: string, key?: string): Promise<unknown> => queue.add('x', key === undefined ? {} : { key }, { jobId: id })
  const runs = (): string[] => [...running.keys()].toSorted()
  const end = (id: string): void => running.get(id)?.()

  for (let i = 0; i < 6; i++) await add(`ann.${i}`, 'ann')
  await expect.poll(runs).toHaveLength(3)
  await add('bob.0', 'bob')
  await expect.poll(runs).toContain('bob.0')
  await new Promise((resolve) => setTimeout(resolve, 700))
  expect(runs()).toHaveLength(4)
  end('bob.0')
  const [first = ''] = runs()
  end(first)
  await expect.poll(runs, { timeout: 3000 }).toHaveLength(3)
  for (let left = 5; left > 0; left--) {
    await expect.poll(runs, { timeout: 3000 }).not.toEqual([])
    end(runs()[0] ?? '')
  }
  for (let i = 0; i < 4; i++) await add(`local.${i}`)
  await expect.poll(runs, { timeout: 3000 }).toEqual(['local.0', 'local.1', 'local.2', 'local.3'])
  for (const id of runs()) end(id)
  await lane.close()
  await queue.close()
}, 30_000)

it('a step that has left the device makes room for the next; the lane closes when both are over', async () => {
  const [own, shared] = ['gpu.0123abcd-cpu-1', 'gpu.class-1']
  const [ownQueue, sharedQueue] = [own, shared].map((name) => new Queue(name, { connection: redis, prefix: keys.queuePrefix(name) }))
  if (!ownQueue || !sharedQueue) throw new Error('void')
  const running = new Map<string, { leave: () => void; end: () => void }>()
  const run = (id: string, _lane: string, leave: () => void): Promise<undefined> =>
    new Promise((resolve) => running.set(id, { leave, end: () => (running.delete(id), resolve(undefined)) }))
  const runs = (): string[] => [...running.keys()].toSorted()
  let isPaused = false
  for (const id of ['a', 'b', 'c']) await sharedQueue.add('x', {}, { jobId: id })
  const lane = new DeviceLane({
    redis,
    runner: { run } as unknown as StepRunner,
    log: createLog('silent', 'test'),
    queues: [own, shared],
    isOpen: () => true,
    isPaused: () => Promise.resolve(isPaused),
  })
  await expect.poll(runs).toEqual(['a'])
  await new Promise((resolve) => setTimeout(resolve, 200))
  expect(runs()).toEqual(['a'])
  running.get('a')?.leave()
  await expect.poll(runs).toEqual(['a', 'b'])
  // What the device has begun comes by its own queue, and is served while it begins nothing else.
  isPaused = true
  await ownQueue.add('x', {}, { jobId: 'own' })
  running.get('b')?.end()
  await expect.poll(runs, { timeout: 3000 }).toEqual(['a', 'own'])
  running.get('own')?.end()
  await new Promise((resolve) => setTimeout(resolve, 200))
  expect(runs()).toEqual(['a'])

  let isClosed = false
  const closing = lane.close().then(() => (isClosed = true))
  await new Promise((resolve) => setTimeout(resolve, 200))
  expect(isClosed).toBe(false)
  running.get('a')?.end()
  await closing
  expect(await sharedQueue.getJobCountByTypes('active')).toBe(0)
  expect(await sharedQueue.getJobCountByTypes('waiting')).toBe(1)
  await Promise.all([ownQueue.close(), sharedQueue.close()])
}, 30_000)
