import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { shardOf } from '../../src/keys.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { Monitor } from '../support/monitor.ts'

describe('three shards', () => {
  let farm: Farm
  let monitor: Monitor
  beforeAll(async () => {
    farm = await startFarm({ workers: 2, shards: 3, fake: ['--call-ms', '20'] })
    monitor = new Monitor(farm.redis.url)
  })
  afterAll(async () => {
    await monitor.close()
    await farm[Symbol.asyncDispose]()
  })

  it('hold sessions that run, pause, are cancelled, and recover, like one', async () => {
    const open = await farm.gate(5, 3)
    const ids = await Promise.all(Array.from({ length: 12 }, (_, i) => farm.submitSurely(`key-${i}`, { seed: i }, { tags: ['shards'] })))
    expect(new Set(ids.map(shardOf))).toEqual(new Set([0, 1, 2]))
    for (const [i, id] of ids.entries()) expect(await farm.submitSurely(`key-${i}`, { seed: i }, { tags: ['shards'] })).toBe(id)
    const [paused = '', cancelled = '', ...others] = ids.toReversed()
    await farm.control(paused, 'pause')
    await farm.control(cancelled, 'cancel')
    await farm.until(paused, 'paused')
    const { worker } = await farm.untilCall(ids[5] ?? '', 3)
    await worker.kill()
    await open()
    for (const id of others) expect(await farm.pictures(id)).toHaveLength(1)
    await farm.control(paused, 'resume')
    expect(await farm.pictures(paused)).toHaveLength(1)
    const { json } = await farm.control(cancelled, 'retry')
    expect(shardOf(json.id)).toBe(shardOf(cancelled))
    expect(await farm.pictures(json.id)).toHaveLength(1)
  })

  it('list as one, in order, page by page', async () => {
    const listed: { id: string; createdAt: string }[] = []
    for (let path = '/v1/sessions?limit=5&tag=shards'; path !== '';) {
      const { json } = await farm.client.get(path)
      listed.push(...json.sessions)
      path = json.next === null ? '' : `/v1/sessions?limit=5&tag=shards&cursor=${json.next}`
    }
    expect(new Set(listed.map(({ id }) => id))).toHaveProperty('size', 13)
    const times = listed.map(({ createdAt }) => createdAt)
    expect(times).toEqual(times.toSorted().toReversed())
  })

  it('no script crosses hash tags, as a cluster would refuse it', () => {
    const { scripts, tags, crossings } = monitor.report()
    expect(crossings).toEqual([])
    expect(scripts).toBeGreaterThan(500)
    expect(tags.size).toBeGreaterThan(5)
    expect(tags).toContain('{s2}')
  })
})
