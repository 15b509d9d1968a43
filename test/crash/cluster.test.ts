import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readConfig } from '../../src/config.ts'
import { keys, shardOf } from '../../src/keys.ts'
import { createLog } from '../../src/log.ts'
import { connect } from '../../src/redis.ts'
import { Engine } from '../../src/engine/engine.ts'
import type { Session } from '../../src/client/index.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { eventually } from '../support/wait.ts'
import { Monitor } from '../support/monitor.ts'
import { tree, treeOutput } from '../support/programs.ts'
import { inputOf, module } from '../support/scripted.ts'

/** `npm run test:cluster` runs all suites this way; this is the part of it that always runs. */
describe('three shards on a Redis cluster of one node', () => {
  let farm: Farm
  let monitor: Monitor
  beforeAll(async () => {
    farm = await startFarm({
      workers: 2,
      shards: 3,
      redis: { cluster: true },
      module,
    })
    monitor = new Monitor(farm.redis.url)
  })
  afterAll(async () => {
    await monitor.close()
    await farm[Symbol.asyncDispose]()
  })

  const start = async (workflow: string, input: object, more: object = {}): Promise<string> => {
    const { status, json } = await farm.client.post('/v1/sessions', { workflow, input, ...more })
    expect(status).toBe(202)
    return (json as Session).id
  }

  it('refuses what crosses slots, or the rest would show nothing', async () => {
    await expect(farm.eye.mget(keys.outbox(0), keys.outbox(1))).rejects.toThrow('CROSSSLOT')
    expect(await farm.eye.info('errorstats')).toContain('errorstat_CROSSSLOT:count=1')
    await farm.eye.config('RESETSTAT')
  })

  it('steps, parallel states, timers, children on other shards and signals; pause, resume, cancel, retry, delete, list', async () => {
    const trees = await Promise.all(
      Array.from({ length: 6 }, (_, i) =>
        start('program', inputOf(farm, tree({ n: i, ms: 30, delayMs: 300 + 100 * i })), { tags: ['trees'] }),
      ),
    )
    expect(new Set(trees.map(shardOf)).size).toBeGreaterThan(1)
    const [paused = '', cancelled = ''] = trees
    await farm.control(paused, 'pause')
    expect((await farm.control(cancelled, 'cancel')).json.status).toBe('cancelled')
    const again = (await farm.control(cancelled, 'retry')).json.id
    await farm.until(paused, 'paused')
    await farm.control(paused, 'resume')
    for (const id of [...trees.filter((each) => each !== cancelled), again]) {
      // It waits for nothing of these before the state that takes the signal.
      const middle = /^(a signal|a timer|child sessions)/
      await eventually(`${id} in its middle`, async () => middle.test((await farm.get(id)).waiting ?? ''))
      await farm.client.post(`/v1/sessions/${id}/signal`, { type: 'go', data: { word: 'x' }, eventId: 'once' })
      const n = id === again ? 1 : trees.indexOf(id)
      expect((await farm.until(id, 'succeeded')).output).toMatchObject(treeOutput(n, { word: 'x' }))
    }
    const children = await farm.client.get(`/v1/sessions?parent=${paused}`)
    expect(children.json.sessions).toHaveLength(2)
    const listed = await farm.client.get('/v1/sessions?tag=trees&status=succeeded')
    expect(listed.json.sessions).toHaveLength(6)
    expect((await farm.client.delete(`/v1/sessions/${paused}`)).status).toBe(204)
    expect((await farm.client.get(`/v1/sessions?parent=${paused}`)).json.sessions).toEqual([])
    expect(await farm.pictures(await farm.submit({ steps: 2 }))).toHaveLength(1)
  })

  it('retention empties every shard', async () => {
    const config = { ...readConfig({}), shards: 3, keepS: 1 }
    const redis = connect(farm.redis.url, { patience: 'wait' })
    const engine = new Engine({ redis, subscriber: redis, config, log: createLog('silent', 'test'), sweeps: false })
    const held = (): Promise<string[]> => farm.members((shard) => keys.index(shard, 'all'))
    expect((await held()).length).toBeGreaterThan(10)
    await eventually('all of them gone', async () => {
      await engine.retention.sweep()
      return (await held()).length === 0
    })
    await engine.close()
    redis.disconnect()
    const left = (await farm.eye.keys('darkroom:{s[0-9]*')).filter((key) => !/:(reserved|clock|turns|totals|use:\w+)$/.test(key))
    expect(left).toEqual([])
  })

  it('no command, script or transaction of all this crosses hash tags', () => {
    const { scripts, tags, crossings } = monitor.report()
    expect(crossings).toEqual([])
    expect(scripts).toBeGreaterThan(300)
    for (const tag of ['{s0}', '{s1}', '{s2}', '{workers}', '{store}', '{q.host}']) expect(tags).toContain(tag)
  })
})
