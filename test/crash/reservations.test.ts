import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { keys } from '../../src/keys.ts'
import { readWorkers } from '../../src/farm/presence.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { eventually } from '../support/wait.ts'

interface Entry {
  owner: string
  worker: string
  slots: number
  model: string
  modelBytes: number
  until: number
  priority: number
}

describe('what an attempt has reserved of a device', () => {
  let farm: Farm
  beforeAll(async () => {
    farm = await startFarm({ workers: 1, fake: ['--call-ms', '10'] })
    // The worker has seen the model once, and knows its size.
    await farm.pictures(await farm.submit())
    const knows = async (): Promise<boolean> => (await readWorkers(farm.eye)).some(({ report }) => (report.python?.models.length ?? 0) > 0)
    await eventually('the worker knows its model', knows)
  })
  afterAll(() => farm[Symbol.asyncDispose]())

  const held = async (): Promise<Entry[]> => {
    const found = await Promise.all((await farm.eye.keys(keys.reservations('*'))).map((key) => farm.eye.hgetall(key)))
    return found.flatMap((entries) =>
      Object.entries(entries).map(([owner, text]) => ({ ...(JSON.parse(text) as Omit<Entry, 'owner'>), owner })),
    )
  }
  const none = async (): Promise<boolean> => (await held()).length === 0

  it('is the slot and the model, under its own name, while it runs; and nothing once its picture is done', async () => {
    const open = await farm.gate(7, 3)
    const id = await farm.submit({}, { priority: 8 })
    const { stepKey, worker } = await farm.untilCall(id, 2)
    const attempt = await farm.eye.hget(keys.step(stepKey), 'attemptId')
    expect(await held()).toMatchObject([
      { owner: attempt, worker: worker.ready, slots: 1, model: 'darkroom-tiny', modelBytes: 1000, priority: 8 },
    ])
    await open()
    await farm.pictures(id)
    expect(await none()).toBe(true)
  })

  it.each(['pause', 'cancel'] as const)('is given back after a %s, before anybody else takes the device', async (verb) => {
    const open = await farm.gate(7, 3)
    const id = await farm.submit()
    await farm.untilCall(id, 2)
    expect(await held()).toHaveLength(1)
    await farm.control(id, verb)
    await eventually('it is given back', none)
    await open()
    if (verb === 'pause') await farm.control(id, 'resume')
    await farm.until(id, verb === 'pause' ? 'succeeded' : 'cancelled')
  })

  it('goes by its time when the worker was killed, and the step goes on', async () => {
    const open = await farm.gate(7, 4)
    const id = await farm.submit()
    const { worker } = await farm.untilCall(id, 3)
    const [before] = await held()
    await worker.kill()
    await worker.start()
    await open()
    await farm.pictures(id)
    // Nobody may serve that device any more: then its entry stays, and counts for nothing.
    const isFree = async (): Promise<boolean> => (await held()).every(({ owner, until }) => owner !== before?.owner || until < Date.now())
    expect(await eventually('the dead worker holds nothing', isFree)).toBe(true)
  })
})
