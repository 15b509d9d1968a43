import { describe, expect, it } from 'vitest'
import { startFarm } from '../support/farm.ts'

describe.concurrent('a worker that dies or freezes', () => {
  it('SIGKILL in the middle of a denoise step: another worker goes on from the last checkpoint, the bytes are the same', async () => {
    await using farm = await startFarm({ workers: 2, fake: ['--call-ms', '100'] })
    const id = await farm.submit()
    const { call, worker } = await farm.untilCall(id, 6)
    const other = farm.other(worker)
    await worker.kill()
    const pictures = await farm.pictures(id)
    const [lost, finished] = await farm.attempts(id, 'inference.denoise')
    expect(lost).toMatchObject({ worker: worker.ready, end: 'lost' })
    expect(finished).toMatchObject({ worker: other.ready, end: 'completed' })
    expect(finished?.resumedFrom?.call).toBeGreaterThanOrEqual(call)
    expect(finished?.stats).toMatchObject({ resumed_from: finished?.resumedFrom?.call })
    expect((await farm.receipt(id)).notes.map(({ note }) => note)).toContainEqual(
      expect.stringContaining(`${worker.ready} was lost while it ran inference.denoise`),
    )
    expect(pictures).toEqual(await farm.undisturbed())
  })
})
