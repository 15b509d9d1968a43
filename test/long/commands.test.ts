/** Device memory goes with its session, however that ends, and a command with its device epoch. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { readWorkers } from '../../src/farm/presence.ts'
import type { AllocationView } from '../../src/domains/memory/figures/report.ts'
import type { DeviceReport } from '../../src/farm/record.ts'
import { nativeStatus } from '../../src/workers/device/native.ts'
import { productTimes } from '../../src/engine/times.ts'
import { ended } from '../../src/engine/session.ts'
import { type WorkerRecord } from '../../src/farm/record.ts'
import type { Session } from '../../src/client/index.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import type { Node } from '../support/program.ts'
import { inputOf, module } from '../support/scripted.ts'
import { eventually, sleep } from '../support/wait.ts'
import type { GroupProcess } from '../support/process.ts'

const MiB = 2 ** 20
/** A worker's record and the lease of its device last as long as a lease of the product. */
const times = productTimes
/** Longer than a lease, and than a worker is believed to be there without a word. */
const blockMs = 8000
type Next = 'succeed' | 'fail' | 'wait' | 'copy' | 'linger' | 'block'

/**
 * Allocates memory of a device, and holds it while it does what is next. `succeed`, `fail`: ends so at once. `wait`:
 * until it is signalled. `copy`: copies half of what it holds onto the other half, for ever. `linger`: allocates more,
 * for the caller's key, and never comes to an end with it. `block`: the same, after a call that lets its process do
 * nothing else.
 */
function holding(device: string, bytes: number, next: Next): Node {
  const made = { kind: 'device', placement: 'automatic', ownedBy: 'session', timeToLiveMs: null }
  const then: Record<Next, Node[]> = {
    succeed: [],
    fail: [{ do: 'fail', ms: 0, how: 'permanent' }],
    wait: [{ do: 'signal' }],
    copy: [{ do: 'run', operation: 'test.copy', input: { device } }],
    linger: [{ do: 'run', operation: 'test.linger', input: { device, bytes, blockMs: 0 } }],
    block: [{ do: 'run', operation: 'test.linger', input: { device, bytes, blockMs } }],
  }
  return { do: 'sequence', of: [{ do: 'run', operation: 'memory.allocate', input: { device, bytes, ...made } }, ...then[next]] }
}

const implementations = nativeStatus().addon === null ? (['typescript'] as const) : (['addon', 'typescript'] as const)

describe.each(implementations)('device memory (%s)', (implementation) => {
  let farm: Farm
  let worker: GroupProcess
  let device = ''
  beforeAll(async () => {
    farm = await startFarm({ module, times, plain: implementation === 'typescript', workers: 1 })
  })
  afterAll(() => farm[Symbol.asyncDispose]())
  beforeEach(async () => {
    const [first] = farm.workers
    if (!first) throw new Error('this farm has no worker')
    worker = first
    if (!worker.isAlive) await worker.start()
    device = (await record()).device.id
  })

  const record = (): Promise<WorkerRecord> =>
    eventually('the record of the worker', async () => (await readWorkers(farm.eye)).find(({ id }) => id === worker.ready))
  const report = async (): Promise<DeviceReport> => (await record()).report
  const submit = async (workflow: string, input: object, more: object = {}): Promise<string> => {
    const { status, json, text } = await farm.client.post('/v1/sessions', { workflow, input, ...more })
    if (status !== 202) throw new Error(`${workflow} → ${status} ${text}`)
    return (json as Session).id
  }
  const hold = (next: Next, more: object = {}, bytes = 128 * MiB): Promise<string> =>
    submit('program', inputOf(farm, holding(device, bytes, next)), more)
  const endOf = (id: string, ms = 30_000): Promise<Session> =>
    eventually(
      `${id} ended`,
      async () => {
        const session = await farm.get(id)
        return ended.has(session.status) && session
      },
      ms,
    )
  /** Waits until the session holds what it allocated, by the worker's own figures. */
  const held = (id: string, count = 1): Promise<unknown> =>
    eventually(`${id} holds memory`, async () => {
      const { allocations } = await report()
      return allocations.filter(({ owner }) => owner === id).length === count
    })
  const copying = (id: string): Promise<unknown> =>
    eventually(`${id} copies`, async () => {
      const { running, report: now } = await record()
      return (
        running.some(({ step, session }) => step === 'test.copy' && session === id) && now.allocations.some(({ owner }) => owner === id)
      )
    })
  const nothingHeld = (): Promise<DeviceReport> => {
    const since = Date.now()
    return eventually('nothing is held', async () => {
      const now = await report()
      const { live, tracked, pinned } = now.usage
      return now.sampledAt > since && live === 0 && tracked === 0 && pinned === 0 && now.allocationCount === 0 && now
    })
  }
  const works = async (): Promise<void> => {
    const id = await submit('memory-allocate', { device, bytes: 1 })
    const made = await endOf(id)
    expect(made.status, JSON.stringify(made.error)).toBe('succeeded')
    await endOf(await submit('memory-release', { id: (made.output as unknown as AllocationView).id }))
  }

  it('goes when its session succeeds, and when it fails', async () => {
    expect((await endOf(await hold('succeed'))).status).toBe('succeeded')
    await nothingHeld()
    expect(await endOf(await hold('fail'))).toMatchObject({ status: 'failed', error: { code: 'test.refused' } })
    const { leaks, usage } = await nothingHeld()
    expect(usage.created).toBeGreaterThanOrEqual(2)
    // A message told of each end: nothing had to be found later.
    expect(leaks.byReason.orphaned.count).toBe(0)
  })

  it('goes when its session is cancelled in the middle of a copy, which ends at once', async () => {
    const id = await hold('copy')
    await copying(id)
    expect((await farm.control(id, 'cancel')).json.status).toBe('cancelled')
    await nothingHeld()
    await eventually('the command is over', async () => (await record()).running.length === 0)
    await works()
  })

  it('goes when its session passes its deadline in the middle of a copy', async () => {
    const id = await hold('copy', { deadlineS: 3 })
    await copying(id)
    expect(await endOf(id)).toMatchObject({ status: 'failed', error: { code: 'session.deadline_exceeded' } })
    await nothingHeld()
  })

  it('goes when the message of the end is lost', async () => {
    const id = await hold('wait')
    await held(id)
    expect(Number(await farm.eye.call('CLIENT', 'KILL', 'TYPE', 'pubsub'))).toBeGreaterThan(0)
    await farm.control(id, 'cancel')
    await nothingHeld()
  })

  it('that a result would have named goes when nobody hears of the result any more', async () => {
    const id = await hold('linger')
    await eventually('it holds more for its key', async () => {
      const { allocations } = await report()
      return allocations.length === 2 && allocations.some(({ owner }) => owner === 'key:local')
    })
    await farm.control(id, 'cancel')
    expect((await nothingHeld()).leaks.byReason.orphaned.count).toBe(0)
  })

  it('goes when a call of a command blocks its worker for longer than its lease: aborted on return, its result discarded', async () => {
    const id = await hold('block')
    expect(await endOf(id)).toMatchObject({ status: 'failed', error: { code: 'device.lost' } })
    expect(await farm.attempts(id, 'test.linger')).toMatchObject([{ end: 'failed', error: { code: 'device.lost' } }])
    await nothingHeld()
    await eventually('the command is over', async () => (await record()).running.length === 0)
    await works()
  })

  it('is held while its session waits, pauses and goes on, and goes at its end', async () => {
    const id = await hold('wait')
    await held(id)
    await farm.control(id, 'pause')
    await farm.until(id, 'paused')
    await sleep(1500)
    await held(id)
    await farm.control(id, 'resume')
    await farm.client.post(`/v1/sessions/${id}/signal`, { type: 'go' })
    expect((await endOf(id)).status).toBe('succeeded')
    await nothingHeld()
  })

  it('stays over an outage of Redis longer than the lease of the command that uses it: its worker lives', async () => {
    const id = await hold('copy')
    await copying(id)
    const thaw = farm.redis.freeze()
    await sleep(times.leaseMs + 2000)
    thaw()
    // Every process has judged the lease by then: the grace after an outage is one lease time.
    await sleep(times.leaseMs + 3000)
    expect(await farm.get(id)).toMatchObject({ status: 'running' })
    expect(await farm.attempts(id, 'test.copy')).toMatchObject([{ end: null }])
    await held(id)
    await farm.control(id, 'cancel')
    await nothingHeld()
  })

  it('goes with its worker: a session in the middle of a command fails with device.lost, once, and is not taken over', async () => {
    const id = await hold('copy')
    await copying(id)
    const [allocation] = (await report()).allocations
    await worker.kill()
    await worker.start()
    const session = await endOf(id)
    expect(session).toMatchObject({ status: 'failed', error: { code: 'device.lost' } })
    const attempts = await farm.attempts(id, 'test.copy')
    expect(attempts).toMatchObject([{ end: 'failed', error: { code: 'device.lost' } }])
    const { usage } = await nothingHeld()
    expect(usage.created).toBe(0)
    // What the killed worker published last may still be there for a moment; a command to it is lost, too.
    const { json } = await eventually('the worker is forgotten', async () => {
      const answer = await farm.client.post('/v1/sessions', { workflow: 'memory-release', input: { id: allocation?.id } })
      if (answer.status !== 202) return answer
      expect(await endOf((answer.json as Session).id)).toMatchObject({ status: 'failed', error: { code: 'device.lost' } })
      return undefined
    })
    expect(json).toMatchObject({ code: 'memory.unknown' })
    device = (await record()).device.id
    await works()
  })

  it('is drained with its worker: a command in the middle of its work fails with device.lost at once', async () => {
    const id = await hold('copy')
    await copying(id)
    await worker.stop(12_000)
    expect(await endOf(id)).toMatchObject({ status: 'failed', error: { code: 'device.lost' } })
    await worker.start()
  })

  it('of a worker that is gone takes no commands: device.lost for one that was accepted before, device.unknown later', async () => {
    await worker.kill()
    const id = await submit('device-refresh', { device })
    expect(await endOf(id)).toMatchObject({ status: 'failed', error: { code: 'device.lost' } })
    const { status, json } = await eventually('the worker is forgotten', async () => {
      const answer = await farm.client.post('/v1/sessions', { workflow: 'device-refresh', input: { device } })
      return answer.status !== 202 && answer
    })
    expect([status, json]).toMatchObject([expect.any(Number), { code: 'device.unknown' }])
    await worker.start()
  })

  it('takes commands while a picture is drawn', async () => {
    const open = await farm.gate(77, 2)
    const picture = await farm.submit({ seed: 77 })
    await farm.untilCall(picture, 2)
    await works()
    await eventually('it says that it is busy', async () => (await report()).state === 'busy')
    await open()
    expect(await farm.pictures(picture)).toHaveLength(1)
  })

  it('refuses a command that is not taken within ten seconds', async () => {
    const busy = await Promise.all(Array.from({ length: 8 }, () => hold('linger', {}, 2)))
    await eventually('all places are taken', async () => (await record()).running.filter(({ step }) => step === 'test.linger').length === 8)
    const id = await submit('device-refresh', { device })
    expect(await endOf(id)).toMatchObject({ status: 'failed', error: { code: 'device.not_ready' } })
    await Promise.all(busy.map((each) => farm.control(each, 'cancel')))
    await nothingHeld()
    await works()
  })
})
