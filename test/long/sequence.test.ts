/** Many sessions one after another, while Redis is killed over and over. `SEQUENCE_SEED` repeats the moments. */
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { productTimes } from '../../src/engine/times.ts'
import { ended } from '../../src/engine/session.ts'
import { startFarm } from '../support/farm.ts'
import { sleep } from '../support/wait.ts'
import { chance } from '../support/proxy.ts'
import { inputOf, module, runsIn, script } from '../support/scripted.ts'

const seed = Number(process.env['SEQUENCE_SEED'] ?? Math.floor(Math.random() * 1e9))
const count = 2000
const names = ['one', 'two', 'three']

describe('Redis', { timeout: 900_000 }, () => {
  it('gone every 5 to 10 s, for up to 2 s, under two thousand sessions one after another: each ends once, each step has one result', async () => {
    await using farm = await startFarm({ workers: 2, times: productTimes, module })
    const draw = chance(seed)
    let isOver = false
    const outages = (async () => {
      let outage = 0
      while (!isOver) {
        await sleep(5000 + 5000 * draw())
        await farm.redis.kill()
        outage++
        await sleep(2000 * draw())
        await farm.redis.restart()
      }
      return outage
    })()
    outages.catch(() => undefined)

    const sessions: { id: string; folder: string }[] = []
    for (let i = 0; i < count; i++) {
      const input = inputOf(farm, script(names.map((say) => ({ say }))))
      const id = await farm.submitSurely(`sequence-${i}`, {}, { workflow: 'program', input })
      expect((await farm.until(id, 'succeeded', 120_000)).output).toMatchObject({ said: names })
      sessions.push({ id, folder: join(input.ledger, input.key) })
    }
    isOver = true
    const outage = await outages
    expect(outage, 'void: Redis was hardly gone').toBeGreaterThanOrEqual(5)
    expect(new Set(sessions.map(({ id }) => id))).toHaveProperty('size', count)

    let again = 0
    for (const { id, folder } of sessions) {
      const history = await farm.history(id)
      const runs = runsIn(folder)
      expect(history.filter(({ type }) => ended.has(type.replace('session.', '') as 'failed'))).toHaveLength(1)
      expect(history.filter(({ type }) => type === 'step.completed')).toHaveLength(names.length)
      for (const name of names) {
        expect(runs[name]?.length, `${name} of ${id}`).toBeGreaterThanOrEqual(1)
        again += (runs[name]?.length ?? 0) - 1
      }
      // A step runs only when it was taken; an answer that was lost may leave it taken and not run.
      const started = history.filter(({ type }) => type === 'step.started').length
      expect(started, id).toBeGreaterThanOrEqual(Object.values(runs).flat().length)
    }
    process.stdout.write(`sequence with SEQUENCE_SEED=${seed}: ${outage} outages under ${count} sessions, ${again} steps run again\n`)
    // At most the few that run in the moment of an outage.
    expect(again).toBeLessThanOrEqual(2 * outage)
  })
})
