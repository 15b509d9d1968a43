/** Logs that cannot be written: the work goes on, and their lines are counted. */
import { closeSync, openSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { LogFile } from '../src/log.ts'
import { startFarm } from './support/farm.ts'
import { eventually } from './support/wait.ts'

describe.skipIf(process.platform !== 'linux')('a log on a full disk', () => {
  it('loses lines and counts them, and throws for none', () => {
    const fd = openSync('/dev/full', 'w')
    const log = new LogFile(fd)
    for (let i = 0; i < 3; i++) log.write('a line\n')
    closeSync(fd)
    log.write('after its end\n')
    expect(log.dropped).toBe(4)
  })

  it('keeps neither API nor worker from their work', async () => {
    await using farm = await startFarm({ ownLog: '/dev/full', settings: { DARKROOM_LOG: 'debug' } })
    expect(await farm.pictures(await farm.submit({ seed: 1 }))).toHaveLength(1)
    expect((await farm.client.get('/v1/health')).json).toMatchObject({ status: 'ok', logLinesDropped: expect.any(Number) })
    expect((await farm.client.get('/v1/health')).json.logLinesDropped).toBeGreaterThan(0)
    await eventually('the worker says so', async () => ((await farm.client.get('/v1/workers')).json.workers[0]?.logLinesDropped ?? 0) > 0)
    expect([...farm.apis, ...farm.workers].map(({ starts, isAlive }) => [starts, isAlive])).toEqual([
      [1, true],
      [1, true],
    ])
  })
})
