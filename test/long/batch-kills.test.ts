import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { keys } from '../../src/keys.ts'
import type { Session } from '../../src/client/index.ts'
import { faultsOf, itemsOf, submitBatch, succeeded } from '../support/batches.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { eventually } from '../support/wait.ts'

describe('a batch', { timeout: 180_000 }, () => {
  let farm: Farm
  beforeAll(async () => {
    farm = await startFarm({ workers: 3, fake: ['--call-ms', '0'] })
  })
  afterAll(() => farm[Symbol.asyncDispose]())

  const base = { prompt: 'a red circle', steps: 2 }

  it('of 60 pictures whose workers are killed: each is drawn once, none is lost, each alone gives the same bytes', async () => {
    const { id } = await submitBatch(farm, { input: base, grid: { guidance: [1, 5] }, seeds: { from: 100, count: 30 }, window: 12 })
    for (const [i, count] of [8, 20, 35].entries()) {
      await succeeded(farm, id, count)
      await farm.workers[i]?.kill()
      await farm.workers[i]?.start()
    }
    await farm.until(id, 'succeeded')
    expect(await faultsOf(farm, id, 60)).toEqual([])
    const items = await itemsOf(farm, id)
    for (const { input, output } of [items[7], items[59]].flatMap((item) => item ?? []))
      expect(await farm.pictures(await farm.submit(input))).toEqual(output?.images?.map(({ sha256 }) => sha256))

    // Its document holds none of them, and what is recorded is small.
    const record = await farm.eye.hgetall(keys.session(id))
    expect(record['snapshot']?.length).toBeLessThan(500)
    expect(Object.values(record).join('').length).toBeLessThan(8192)

    const sheet = await farm.client.post(`/v1/sessions/${id}/sheet`, { side: 32 }, { Prefer: 'wait=60' })
    expect(sheet.json, sheet.text).toMatchObject({ width: 30 * 36 + 4, height: 2 * 36 + 4, mediaType: 'image/png' })
    const zip = await farm.client.get(`/v1/sessions/${id}/results.zip`)
    expect([zip.status, zip.bytes.subarray(0, 2).toString()]).toEqual([200, 'PK'])
  })

  it('that is paused rests whole, and goes on; cancelled, it has ended when the answer comes', async () => {
    const { id } = await submitBatch(farm, { input: base, seeds: { count: 500 }, window: 8 })
    await succeeded(farm, id, 3)
    await farm.control(id, 'pause')
    const paused = await farm.until(id, 'paused')
    const { items } = paused.progress ?? {}
    expect((await itemsOf(farm, id)).filter(({ status }) => status === 'paused')).toHaveLength(items?.running ?? -1)
    await farm.control(id, 'resume')
    await succeeded(farm, id, (items?.succeeded ?? 0) + 5)
    const { json } = await farm.control(id, 'cancel')
    expect(json).toMatchObject({ status: 'cancelled', progress: { items: { waiting: 0, running: 0 } } })
    await eventually('its children have ended', async () => {
      const sessions = (await farm.client.get(`/v1/sessions?parent=${id}&limit=200`)).json.sessions as Session[]
      return sessions.every(({ endedAt }) => endedAt !== null)
    })
  })
})
