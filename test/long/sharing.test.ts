/** Sessions of one model share a device with two slots: `DARKROOM_DEVICE_SLOTS`. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { join } from 'node:path'
import { startFarm, type Farm } from '../support/farm.ts'
import { writeModel } from '../support/model.ts'
import { eventually } from '../support/wait.ts'

describe('a device with two slots', () => {
  let farm: Farm
  beforeEach(async () => {
    farm = await startFarm({ workers: 1, fake: ['--call-ms', '10'], settings: { DARKROOM_DEVICE_SLOTS: '2' } })
    await writeModel(join(farm.folder, 'models'), 'another', 'other bytes')
    await eventually('the other model is known', async () => (await farm.client.get('/v1/models/another')).status === 200)
    // Both are hashed, and the one that is shared was used last.
    for (const model of ['another', 'darkroom-tiny']) await farm.pictures(await farm.submit({ seed: 1000, model }))
  })
  afterEach(() => farm[Symbol.asyncDispose]())

  const running = async (): Promise<string[]> =>
    (await farm.records()).flatMap(({ running: steps }) => steps.map(({ session }) => session ?? '')).toSorted()
  /** Each held at its third call, so that both are under way. */
  const held = async (...seeds: number[]): Promise<{ ids: string[]; open: () => Promise<void> }> => {
    const gates = await Promise.all(seeds.map((seed) => farm.gate(seed, 3)))
    const ids: string[] = []
    for (const seed of seeds) ids.push(await farm.submit({ seed }))
    for (const id of ids) await farm.untilCall(id, 3)
    return {
      ids,
      open: async () => {
        for (const open of gates) await open()
      },
    }
  }

  it('draws two sessions of one model at a time, and the bytes of each are those that it has alone', async () => {
    const { ids, open } = await held(7, 8)
    await eventually('both are under way', async () => (await running()).join() === ids.toSorted().join())
    expect((await farm.records())[0]?.lanes.gpu).toBe(2)
    await open()
    const drawn = [await farm.pictures(ids[0] ?? ''), await farm.pictures(ids[1] ?? '')]
    expect(drawn).toEqual([await farm.undisturbed({ seed: 7 }), await farm.undisturbed({ seed: 8 })])
  })

  it('killed in the middle of both, another worker goes on with each to the same bytes', async () => {
    const { ids, open } = await held(7, 8)
    const [victim] = farm.workers
    const other = await farm.addWorker()
    await victim?.kill()
    await open()
    for (const [i, seed] of [7, 8].entries()) {
      const id = ids[i] ?? ''
      const drawn = await farm.pictures(id)
      const attempts = await farm.attempts(id, 'inference.denoise')
      expect(attempts.map(({ end }) => end)).toEqual(['lost', 'completed'])
      expect(attempts[1]).toMatchObject({ worker: other.ready, resumedFrom: { call: expect.any(Number) } })
      expect(drawn).toEqual(await farm.undisturbed({ seed }))
    }
  })

  it('a session of another model begins when both have ended, before others of theirs that came later', async () => {
    const { ids, open } = await held(7, 8)
    const waits = await farm.submit({ seed: 9, model: 'another' })
    const later = await farm.submit({ seed: 10 })
    const queue = async () => (await farm.client.get('/v1/queue')).json
    await eventually('one comes next, and one waits', async () =>
      JSON.stringify(await queue()).includes('"waiting":1,"running":2,"next":1'),
    )
    await open()
    for (const id of [...ids, waits, later]) await farm.pictures(id)
    const span = async (id: string): Promise<[number, number]> => {
      const attempts = (await farm.receipt(id)).steps.flatMap((step) => (step.step === 'inference.denoise' ? step.attempts : []))
      return [
        Math.min(...attempts.map(({ startedAt }) => Date.parse(startedAt))),
        Math.max(...attempts.map(({ endedAt }) => Date.parse(endedAt ?? ''))),
      ]
    }
    const [began] = await span(waits)
    for (const id of ids) expect((await span(id))[1]).toBeLessThanOrEqual(began)
    expect((await span(later))[0]).toBeGreaterThanOrEqual(began)
  })

  it('both make way for an urgent session, and go on from their checkpoints to the same bytes', async () => {
    const { ids, open } = await held(7, 8)
    const urgent = await farm.submit({ seed: 9, model: 'another' }, { priority: 9 })
    await farm.pictures(urgent)
    await open()
    for (const [i, seed] of [7, 8].entries()) {
      const id = ids[i] ?? ''
      const drawn = await farm.pictures(id)
      expect((await farm.attempts(id, 'inference.denoise')).map(({ end }) => end)).toEqual(['released', 'completed'])
      expect(drawn).toEqual(await farm.undisturbed({ seed }))
    }
  })

  it('paused, one of them leaves the other alone', async () => {
    const { ids, open } = await held(7, 8)
    await farm.control(ids[0] ?? '', 'pause')
    await farm.until(ids[0] ?? '', 'paused')
    await open()
    expect(await farm.pictures(ids[1] ?? '')).toEqual(await farm.undisturbed({ seed: 8 }))
    await farm.control(ids[0] ?? '', 'resume')
    expect(await farm.pictures(ids[0] ?? '')).toEqual(await farm.undisturbed({ seed: 7 }))
  })
})
