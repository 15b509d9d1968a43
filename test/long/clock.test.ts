/**
 * Redis' wall clock is set by an hour, back or ahead, while a farm works: leases, timers, deadlines, workers' records
 * and turns go on as if nothing had happened, and a worker that is killed meanwhile is made up for as ever.
 */
import { pathToFileURL } from 'node:url'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { root } from '../../src/config.ts'
import { leaseDevice } from '../../src/farm/device-lease.ts'
import { keys } from '../../src/keys.ts'
import { createLog } from '../../src/log.ts'
import { connect } from '../../src/redis.ts'
import type { Node } from '../support/program.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { writeModel } from '../support/model.ts'
import { startTestRedis } from '../support/redis.ts'
import { graceMs } from '../support/times.ts'
import { eventually, sleep } from '../support/wait.ts'

const hourMs = 3_600_000

describe.each([
  ['back', -hourMs],
  ['ahead', hourMs],
])('Redis’ clock set %s by an hour', (_, offsetMs) => {
  let farm: Farm
  let undisturbed: string[]
  beforeAll(async () => {
    farm = await startFarm({
      workers: 2,
      redis: { clock: true },
      module: pathToFileURL(join(root, 'test/support/program.ts')).href,
      fake: ['--call-ms', '10'],
    })
    undisturbed = await farm.pictures(await farm.submit())
  })
  afterAll(() => farm[Symbol.asyncDispose]())

  const run = async (program: Node, more: object = {}): Promise<string> => {
    const input = { key: crypto.randomUUID(), program, ledger: join(farm.folder, 'ledger') }
    const answer = await farm.client.post('/v1/sessions', { workflow: 'program', input, ...more })
    expect(answer.status).toBe(202)
    return (answer.json as { id: string }).id
  }
  const losses = async (...ids: string[]): Promise<number> =>
    (await Promise.all(ids.map((id) => farm.history(id)))).flat().filter(({ type }) => type === 'step.recovered').length

  it('no living worker loses a step, there or back; a killed one is taken over in its time', async () => {
    const [openOne, openOther] = [await farm.gate(7, 4), await farm.gate(8, 4)]
    const [one, other] = [await farm.submit(), await farm.submit({ seed: 8 })]
    const { worker } = await farm.untilCall(one, 4)
    await farm.untilCall(other, 4)
    for (const offset of [offsetMs, 0, offsetMs]) {
      await farm.redis.setClock(offset)
      await sleep(farm.times.leaseMs + 1000)
      expect(await losses(one, other)).toBe(0)
    }
    await openOther()
    await farm.pictures(other)
    const at = performance.now()
    await worker.kill()
    await eventually('the loss is noticed', async () => (await losses(one)) === 1)
    // A lease, a look at the leases, and what a busy machine needs.
    expect(performance.now() - at).toBeLessThan(graceMs(farm.times) + 3000)
    await openOne()
    expect(await farm.pictures(one)).toEqual(undisturbed)
    await eventually('its record goes', async () => (await farm.records()).length === 1, 10_000)
    await worker.start()
    await eventually('it is back', async () => (await farm.records()).length === 2)
    for (const { ageS } of await farm.records()) expect(ageS).toBeLessThan(5)
    await farm.redis.setClock(0)
  })

  it('a timer and a deadline fall due after as long as was said', async () => {
    const from = performance.now()
    const passed = (): number => performance.now() - from
    const timer = await run({ do: 'timer', ms: 4000 })
    const late = await run({ do: 'signal' }, { deadlineS: 4 })
    await farm.redis.setClock(offsetMs)
    await sleep(2000)
    await farm.redis.setClock(0)
    expect((await farm.get(timer)).status).toBe('running')
    expect((await farm.get(late)).status).toBe('running')
    await farm.until(timer, 'succeeded')
    expect(passed()).toBeGreaterThan(3900)
    expect(passed()).toBeLessThan(8000)
    expect((await farm.until(late, 'failed')).error?.code).toBe('session.deadline_exceeded')
    expect(passed()).toBeLessThan(9000)
  })

  it('the models of every host stay listed, and sessions draw with them', async () => {
    const folder = join(farm.folder, 'models-of-another')
    await writeModel(folder, 'elsewhere', 'elsewhere')
    const other = await farm.addWorker({ env: { DARKROOM_MODELS: folder } })
    const listed = async (): Promise<string[]> => {
      const { models } = (await farm.client.get('/v1/models')).json as { models: { id: string }[] }
      return models.map(({ id }) => id)
    }
    const both = ['darkroom-tiny', 'elsewhere']
    await eventually('both are listed', async () => (await listed()).join() === both.join())
    for (const offset of [offsetMs, 0]) {
      await farm.redis.setClock(offset)
      for (const from = performance.now(); performance.now() - from < 3000; await sleep(100)) expect(await listed()).toEqual(both)
      for (const model of both) expect(await farm.pictures(await farm.submit({ model }))).toHaveLength(1)
    }
    await other.stop(12_000)
  })

  it('who looks at the devices goes on looking', async () => {
    await farm.redis.setClock(offsetMs)
    const newest = async (): Promise<number> => ((await farm.client.get('/v1/devices/events')).json as { newest: number }).newest
    const before = await newest()
    const worker = farm.workersAlive()[0]
    await worker?.stop(12_000)
    await eventually('its end is recorded', async () => (await newest()) > before, 10_000)
    expect(await newest()).toBeGreaterThan(before)
    await worker?.start()
    await farm.redis.setClock(0)
  })
})

it('the lease of a device whose worker died before the clock was set back ends in its time', async () => {
  const server = await startTestRedis({ clock: true })
  const redis = connect(server.url, { patience: 'wait' })
  const log = createLog('silent', 'test')
  try {
    await redis.set(keys.deviceLease('d'), 'a worker that is dead', 'PX', 5000)
    await server.setClock(-hourMs)
    await using lease = await leaseDevice(redis, 'd', 'its successor', true, log)
    expect(await lease.renew()).toBe(true)
    await expect(leaseDevice(redis, 'd', 'another', false, log)).rejects.toMatchObject({ code: 'device.taken' })
  } finally {
    redis.disconnect()
    await server.stop()
  }
})
