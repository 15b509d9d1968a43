/** A step that does not stop when it is asked to, on a farm: its Python child goes, and nothing is held against it. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { run } from '../support/command.ts'
import { startFarm } from '../support/farm.ts'
import { eventually } from '../support/wait.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'darkroom-overrun-'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

const hung = (name: string) => ({
  // It hangs in its sixth call, and longer than any test waits.
  fake: ['--heartbeat-ms', '200', '--once', join(folder, name), '--fault', 'hang@6'],
  stall: { overrunMs: 1000, stepMs: 600_000 },
})

describe.concurrent('a call that overruns', { timeout: 60_000 }, () => {
  it('after a pause: the session rests, and its resume goes on from the last checkpoint', async () => {
    await using farm = await startFarm(hung('pause'))
    const before = (await farm.records())[0]?.childPid
    const id = await farm.submit()
    await farm.untilCall(id, 6)
    const since = performance.now()
    expect((await farm.control(id, 'pause')).json.status).toBe('pausing')
    await farm.until(id, 'paused')
    expect(performance.now() - since).toBeGreaterThan(900)
    await farm.control(id, 'resume')
    const pictures = await farm.pictures(id)
    const attempts = await farm.attempts(id, 'inference.denoise')
    expect(attempts.map(({ end, error, resumedFrom }) => [end, error, resumedFrom?.call])).toEqual([
      ['released', null, undefined],
      ['completed', null, 6],
    ])
    // What a worker says of itself is up to a second old.
    await eventually('the worker is ready with another child', async () => {
      const records = await farm.records()
      return records.length === 1 && records.every(({ childPid, status }) => childPid !== before && status === 'ready')
    })
    const recovered = (await farm.history(id)).filter(({ type }) => type === 'step.recovered' || type === 'step.retrying')
    expect(recovered).toEqual([])
    expect(pictures).toEqual(await farm.undisturbed())
  })

  it('after a cancel, which has ended at once: the worker draws the next session, three times in a row', async () => {
    const { fake, stall } = hung('cancel')
    await using farm = await startFarm({ fake: fake.filter((word) => word !== '--once' && !word.startsWith(folder)), stall })
    const worker = farm.workers[0]?.ready
    for (let i = 0; i < 3; i++) {
      const id = await farm.submit({ seed: i })
      await farm.untilCall(id, 6)
      expect((await farm.control(id, 'cancel')).json.status).toBe('cancelled')
    }
    expect(await farm.pictures(await farm.submit({ steps: 3 }))).toHaveLength(1)
    // Neither suspect nor drained: such a worker would have lost attempts of three sessions.
    expect((await farm.records()).map(({ id, status }) => [id, status])).toEqual([[worker, 'ready']])
  })

  it('the spare child replaces it, is shown, and dies with a worker that is killed', async () => {
    const { fake, stall } = hung('spare')
    await using farm = await startFarm({ fake: [...fake, '--import-ms', '1000'], stall, settings: { DARKROOM_SPARE_MB: '1' } })
    const [worker] = farm.workers
    const spare = () => eventually('a spare', async () => (await farm.records())[0]?.sparePid ?? undefined)
    const first = await spare()
    const { stdout } = await run(['doctor'], { DARKROOM_URL: farm.client.url, DARKROOM_DATA: folder })
    expect(stdout).toContain(`${worker?.ready} (cpu, ready, spare child ${first}`)
    const id = await farm.submit()
    await farm.untilCall(id, 6)
    await farm.control(id, 'cancel')
    await eventually('the spare in its place', async () => (await farm.records())[0]?.childPid === first)
    expect(await farm.pictures(await farm.submit())).toHaveLength(1)
    expect(await spare()).not.toBe(first)
    // It waits until nothing of its group runs, and fails when something is left.
    await worker?.kill()
  })

  it('no spare is kept where RAM does not allow it', async () => {
    await using farm = await startFarm({ settings: { DARKROOM_SPARE_MB: '1048576' } })
    expect(await farm.pictures(await farm.submit())).toHaveLength(1)
    expect((await farm.records()).map(({ sparePid }) => sparePid)).toEqual([null])
  })
})
