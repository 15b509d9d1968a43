import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startFarm } from '../support/farm.ts'
import { eventually } from '../support/wait.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'darkroom-faults-'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

describe.concurrent('a Python child that fails under a running step', { timeout: 120_000 }, () => {
  it('hangs with a heartbeat: it is replaced and the step goes on; a retry that a failing attempt asks for is not lost', async () => {
    const fake = ['--call-ms', '20', '--heartbeat-ms', '200', '--once', join(folder, 'hang')]
    await using farm = await startFarm({
      fake: [...fake, '--fault', 'hang@6', '--fault', 'error:worker.busy@9'],
      stall: { stepMs: 1000 },
    })
    const before = (await farm.records())[0]?.childPid
    const id = await farm.submit()
    const pictures = await farm.pictures(id)
    const attempts = await farm.attempts(id, 'inference.denoise')
    expect(attempts.map(({ end, error }) => [end, error?.code ?? null])).toEqual([
      ['failed', 'worker.child_hung'],
      ['failed', 'worker.busy'],
      ['completed', null],
    ])
    expect(attempts[1]?.resumedFrom?.call).toBe(6)
    expect(attempts[2]?.resumedFrom?.call).toBe(9)
    // All three on the only worker there is, whose child is another process now.
    expect(new Set(attempts.map(({ worker }) => worker))).toEqual(new Set([farm.workers[0]?.ready]))
    await eventually('the new child published', async () => {
      const pid = (await farm.records())[0]?.childPid
      return typeof pid === 'number' && pid !== before
    })
    expect(pictures).toEqual(await farm.undisturbed())
  })

  it('sends its result and dies before anybody has heard it: the result is recorded once, the next step runs in another child', async () => {
    await using farm = await startFarm({ fake: ['--once', join(folder, 'after'), '--fault', 'die-after:inference.denoise'] })
    const before = (await farm.records())[0]?.childPid
    const id = await farm.submit()
    const pictures = await farm.pictures(id)
    const attempts = (await farm.receipt(id)).steps.flatMap((step) => step.attempts)
    // The next one may have begun ahead: it was given back, which is no try.
    const ends = attempts.map(({ end }) => end).filter((end) => end !== 'released')
    expect(ends).toEqual(Array.from({ length: 4 }, () => 'completed'))
    const after = await eventually('the new child published', async () => {
      const pid = (await farm.records())[0]?.childPid
      return typeof pid === 'number' && pid !== before && pid
    })
    expect(after).toBeGreaterThan(0)
    expect(pictures).toEqual(await farm.undisturbed())
  })

  it('cannot be started any more: its worker leaves, and the sessions go on elsewhere', async () => {
    const broken = join(folder, 'broken')
    await using farm = await startFarm({
      workers: [{ fake: ['--die-when', broken] }, {}],
    })
    const [bad, good] = farm.workers
    const seeds = [7, 8, 9, 10]
    const gates = await Promise.all(seeds.map((seed) => farm.gate(seed, 3)))
    const ids = await Promise.all(seeds.map((seed) => farm.submit({ seed })))
    await eventually('both at work', async () => (await farm.records()).every((record) => record.running.length > 0))
    await writeFile(broken, '')
    const { childPid } = (await farm.records()).find((record) => record.id === bad?.ready) ?? {}
    process.kill(childPid ?? 0, 'SIGKILL')
    expect(await bad?.exited).toMatchObject({ code: 1 })
    await Promise.all(gates.map((open) => open()))
    for (const id of ids) {
      expect(await farm.pictures(id)).toHaveLength(1)
      expect((await farm.attempts(id, 'inference.denoise')).at(-1)?.worker).toBe(good?.ready)
    }
  })
})
