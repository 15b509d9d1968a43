/** The lanes of commands, of the device and of host steps on real queues. */
import { Queue } from 'bullmq'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { Dispatcher } from '../../src/engine/dispatch.ts'
import { keys, queues, stepsOfJob } from '../../src/keys.ts'
import { createLog } from '../../src/log.ts'
import { connect, type Redis } from '../../src/redis.ts'
import { Lane } from '../../src/workers/lanes.ts'
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

/** What a lane has besides its steps. */
const parts = () => ({ redis, log: createLog('silent', 'test'), putBack: () => Promise.reject(new Error('nothing is put back')) })

it('one API key runs so many commands at a time, others find a place beside them; without a key there is no such limit', async () => {
  const name = 'control.0123abcd-cpu-0'
  const queue = new Queue(name, { connection: redis, prefix: keys.queuePrefix(name) })
  const running = new Map<string, () => void>()
  const run = (id: string): Promise<undefined> => new Promise((resolve) => running.set(id, () => (running.delete(id), resolve(undefined))))
  const lane = new Lane({ ...parts(), runner: { run }, lane: 'control', queues: [name], size: 4, ofOneKey: 3 })
  const add = async (id: string, key?: string): Promise<void> => {
    await queue.add('x', key === undefined ? {} : { key }, { jobId: id })
    await redis.publish(keys.wake(name), '')
  }
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
  const run: StepRunner['run'] = (id, _lane, leave = () => undefined) =>
    new Promise((resolve) => running.set(id, { leave, end: () => (running.delete(id), resolve(undefined)) }))
  const runs = (): string[] => [...running.keys()].toSorted()
  let isPaused = false
  for (const id of ['a', 'b', 'c']) await sharedQueue.add('x', {}, { jobId: id })
  const isPausedNow = (): Promise<boolean> => Promise.resolve(isPaused)
  const lane = new Lane({ ...parts(), runner: { run }, lane: 'gpu', queues: [own, shared], size: 1, isPaused: isPausedNow })
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

it('of the steps that one job names half of the room begins, the others go back for whoever is free; each runs once', async () => {
  const queue = new Queue(queues.host, { connection: redis, prefix: keys.queuePrefix(queues.host) })
  const nothing = {} as never
  const dispatcher = new Dispatcher({
    redis,
    store: nothing,
    reads: nothing,
    models: nothing,
    times: { leaseMs: 1 },
    at: undefined,
    workers: () => Promise.resolve([]),
  })
  const step = (i: number) => ({ stepKey: `0-01m8kzt3n3qr0fby8z1258c361.${i}.0`, dispatch: 1, name: 'postprocessing.save', priority: 0 })
  await Promise.all(Array.from({ length: 40 }, (_, i) => dispatcher.addHost(step(i))))
  const named = (await queue.getJobs()).map(stepsOfJob)
  expect(named.flat().toSorted()).toEqual(Array.from({ length: 40 }, (_, i) => `${step(i).stepKey}.1`).toSorted())
  expect(named.map(({ length }) => length).toSorted((a, b) => a - b)).toEqual([8, 16, 16])

  const began: string[] = []
  const ends = new Map<string, () => void>()
  const open = (worker: string): Lane => {
    const run = (id: string): Promise<undefined> => {
      began.push(worker)
      return new Promise((resolve) => ends.set(id, () => (ends.delete(id), ran.push(id), resolve(undefined))))
    }
    const putBack = dispatcher.addSteps.bind(dispatcher)
    return new Lane({ ...parts(), putBack, runner: { run }, lane: 'host', queues: [queues.host], size: 8 })
  }
  const ran: string[] = []
  const lanes = [open('a')]
  await expect.poll(() => began).toHaveLength(8)
  lanes.push(open('b'))
  await expect.poll(() => began).toHaveLength(16)
  await new Promise((resolve) => setTimeout(resolve, 300))
  expect([began.filter((worker) => worker === 'a').length, began.length]).toEqual([8, 16])
  while (ran.length < 40) {
    for (const end of ends.values()) end()
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  expect(new Set(ran).size).toBe(40)
  await Promise.all(lanes.map((lane) => lane.close()))
  expect(await queue.getJobCountByTypes('active', 'waiting', 'delayed', 'prioritized')).toBe(0)
  await Promise.all([queue.close(), dispatcher.close()])
}, 30_000)
