/** A worker ends in the middle of a step. At the product's times: what a user waits for when a worker is lost. */
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startFarm, type Farm } from '../support/farm.ts'
import { productTimes } from '../../src/engine/times.ts'
import { keys } from '../../src/keys.ts'

describe('a worker that dies, freezes or is asked to end', () => {
  let farm: Farm
  let undisturbed: string[]
  beforeAll(async () => {
    farm = await startFarm({ workers: 2, times: productTimes, fake: ['--call-ms', '10'] })
    undisturbed = await farm.pictures(await farm.submit())
  })
  afterAll(() => farm[Symbol.asyncDispose]())

  it('SIGKILL in the middle of a denoise step: another worker goes on from the last checkpoint, the bytes are the same', async () => {
    const open = await farm.gate(7, 6)
    const id = await farm.submit()
    const { call, worker } = await farm.untilCall(id, 6)
    const other = farm.other(worker)
    const dead = worker.ready
    await worker.kill()
    await open()
    const pictures = await farm.pictures(id)
    const [lost, finished] = await farm.attempts(id, 'inference.denoise')
    expect(lost).toMatchObject({ worker: dead, end: 'lost' })
    expect(finished).toMatchObject({ worker: other.ready, end: 'completed' })
    expect(finished?.resumedFrom?.call).toBeGreaterThanOrEqual(call)
    expect(finished?.stats).toMatchObject({ resumedFrom: finished?.resumedFrom?.call })
    expect((await farm.receipt(id)).notes.map(({ note }) => note)).toContainEqual(
      expect.stringContaining(`${dead} was lost while it ran inference.denoise`),
    )
    expect(pictures).toEqual(undisturbed)
    // The one that was killed could not remove its files; its successor does.
    const folders = async (): Promise<string[]> =>
      (await readdir(join(farm.folder, 'attempts', worker.name))).filter((name) => !name.endsWith('.lock'))
    const left = await folders()
    expect(left).toHaveLength(1)
    await worker.start()
    expect(await folders()).toHaveLength(1)
    expect(await folders()).not.toEqual(left)
  })

  it('SIGTERM at call 5: the step is released, the other worker goes on at once, nothing is counted against the session', async () => {
    const open = await farm.gate(7, 5)
    const id = await farm.submit()
    const { worker } = await farm.untilCall(id, 5)
    const other = farm.other(worker)
    await worker.stop(10_000)
    const released = await farm.event(id, 'step.released', 'inference.denoise')
    expect(released).toMatchObject({ worker: worker.ready, reason: 'drain', checkpoint: { call: expect.any(Number) } })
    const again = await farm.event(id, 'step.started', 'inference.denoise', 2)
    expect(again.worker).toBe(other.ready)
    expect(again.at - released.at).toBeLessThan(2000)
    // A take counts the leases that expired and the failures on the step itself.
    const counters = await farm.eye.hmget(keys.step(again.key ?? ''), 'expiries', 'tries', 'resourceTries')
    expect(counters.filter((count) => Number(count ?? 0) > 0)).toEqual([])
    await open()
    expect(await farm.pictures(id)).toEqual(undisturbed)
    const attempts = await farm.attempts(id, 'inference.denoise')
    expect(attempts.map(({ end }) => end)).toEqual(['released', 'completed'])
    expect(attempts[1]?.resumedFrom?.call).toBeGreaterThanOrEqual(5)
    expect((await farm.records()).map((record) => record.id)).toEqual([other.ready])
    await worker.start()
  })

  it('SIGSTOP beyond its lease: another worker finishes, and the one that thaws changes nothing', async () => {
    const open = await farm.gate(7, 4)
    const id = await farm.submit()
    const { worker } = await farm.untilCall(id, 4)
    worker.signalGroup('SIGSTOP')
    await open()
    const pictures = await farm.pictures(id)
    const before = await farm.history(id)
    worker.signalGroup('SIGCONT')
    // It notices, lets go and takes the next session like any other.
    expect(await farm.pictures(await farm.submit({ seed: 8 }))).not.toEqual(undisturbed)
    expect(await farm.history(id)).toEqual(before)
    expect(pictures).toEqual(undisturbed)
    expect((await farm.vitals(worker)).sessions).not.toHaveProperty(id)
  })
})
