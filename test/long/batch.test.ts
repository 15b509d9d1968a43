import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { keys } from '../../src/keys.ts'
import { faultsOf, submitBatch, succeeded } from '../support/batches.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { step } from '../support/program.ts'
import { inputOf, module } from '../support/scripted.ts'
import { eventually } from '../support/wait.ts'

const count = 10_000

describe('a batch of 10,000', { timeout: 900_000 }, () => {
  let farm: Farm
  beforeAll(async () => {
    farm = await startFarm({ workers: 3, module, settings: { DARKROOM_HOST_LANE: '8' } })
  })
  afterAll(() => farm[Symbol.asyncDispose]())
  const used = async (): Promise<number> => Number(/used_memory:(\d+)/.exec(await farm.eye.info('memory'))?.[1])
  /** Steps that count a number, on the host: what they cost is all of the engine's. */
  const submit = async (ms: number): Promise<string> => {
    const { ledger, key } = inputOf(farm, step())
    const items = Array.from({ length: count }, (_, n) => ({ program: { do: 'step', n, ms, lane: 'host', isDeaf: false, flaky: null } }))
    return (await submitBatch(farm, { workflow: 'program', input: { ledger, key }, items, window: 64 })).id
  }

  /** Redis frees large values after their key is gone, and has buffers of what was asked last. */
  const remove = async (id: string, before: number, leaves: number): Promise<void> => {
    expect((await farm.client.request('DELETE', `/v1/sessions/${id}`)).status).toBe(204)
    await eventually('all of it is gone', async () => (await farm.eye.keys(`*${id}*`)).length === 0, 60_000)
    await eventually(`Redis has no more than ${leaves} bytes more than before`, async () => (await used()) - before < leaves, 20_000)
  }

  it('waits in little memory, is cancelled at once, and leaves nothing when it is removed', async () => {
    const before = await used()
    const from = performance.now()
    const id = await submit(60_000)
    const tookMs = performance.now() - from
    const waiting = ((await used()) - before) / count
    process.stdout.write(`submitted in ${Math.round(tookMs)} ms; ${Math.round(waiting)} bytes of Redis an item while it waits\n`)
    expect(waiting).toBeLessThan(4096)
    const record = await farm.eye.hgetall(keys.session(id))
    expect(Object.values(record).join('').length).toBeLessThan(8192)
    expect((await farm.control(id, 'cancel')).json.status).toBe('cancelled')
    await remove(id, before, 2 ** 20)
  })

  it('is drawn whole by three workers that are killed: each item once, none lost', async () => {
    const before = await used()
    const id = await submit(0)
    const from = performance.now()
    for (let kill = 0; kill < 6; kill++) {
      await succeeded(farm, id, (count / 10) * (kill + 1), 300_000)
      const worker = farm.workers[kill % farm.workers.length]
      await worker?.kill()
      await worker?.start()
    }
    await farm.until(id, 'succeeded', 600_000)
    process.stdout.write(`${Math.round((count / (performance.now() - from)) * 1000)} items a second\n`)
    expect(await faultsOf(farm, id, count)).toEqual([])
    await remove(id, before, 4 * 2 ** 20)
  })
})
