import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Session } from '../../src/client/index.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { eventually, sleep } from '../support/wait.ts'

describe('pause, resume, cancel, deadline, retry', () => {
  let farm: Farm
  let undisturbed: string[]
  beforeAll(async () => {
    farm = await startFarm({ workers: 2, fake: ['--call-ms', '10'] })
    undisturbed = await farm.pictures(await farm.submit())
  })
  afterAll(() => farm[Symbol.asyncDispose]())

  const holds = async (id: string): Promise<boolean> => {
    const vitals = await Promise.all(farm.workersAlive().map((worker) => farm.vitals(worker)))
    return vitals.some(({ sessions }) => id in sessions)
  }

  it('paused means that no child holds a tensor of the session, by its own word; resumed, the bytes are the same', async () => {
    const open = await farm.gate(7, 4)
    const id = await farm.submit()
    await farm.untilCall(id, 4)
    expect(await holds(id)).toBe(true)
    expect((await farm.control(id, 'pause')).json.status).toBe('pausing')
    await farm.until(id, 'paused')
    expect(await holds(id)).toBe(false)
    const at = await farm.history(id)
    await sleep(1500)
    expect(await farm.history(id)).toEqual(at)
    await open()
    expect((await farm.control(id, 'resume')).json.status).toBe('running')
    expect(await farm.pictures(id)).toEqual(undisturbed)
    expect((await farm.attempts(id, 'inference.denoise')).map(({ end }) => end)).toEqual(['released', 'completed'])
  })

  it('pause and resume at once, over and over: nothing is stuck, nothing runs twice at a time', async () => {
    const open = await farm.gate(7, 2)
    const id = await farm.submit()
    await farm.untilCall(id, 2)
    for (let i = 0; i < 8; i++) {
      await farm.control(id, 'pause')
      await farm.control(id, 'resume')
    }
    await open()
    expect(await farm.pictures(id)).toEqual(undisturbed)
  })

  it('pausing twice is once; a paused session can be cancelled', async () => {
    const open = await farm.gate(7, 2)
    const id = await farm.submit()
    await farm.untilCall(id, 2)
    await farm.control(id, 'pause')
    await open()
    expect((await farm.control(id, 'pause')).status).toBe(200)
    await farm.until(id, 'paused')
    expect((await farm.control(id, 'pause')).json.status).toBe('paused')
    expect((await farm.history(id)).filter((event) => event.type === 'session.paused')).toHaveLength(1)
    expect((await farm.control(id, 'cancel')).json.status).toBe('cancelled')
    expect((await farm.control(id, 'resume')).json).toMatchObject({ code: 'session.ended' })
  })

  it('cancel before the last result: the session has ended when the answer comes, the device is free within a call, the result is too late', async () => {
    const open = await farm.gate(7, 4)
    const id = await farm.submit()
    await farm.untilCall(id, 4)
    const { status, json } = await farm.control(id, 'cancel')
    await open()
    expect([status, json.status]).toEqual([200, 'cancelled'])
    await eventually('the device is free', async () => !(await holds(id)), 3000)
    const history = await farm.history(id)
    expect(history.at(-1)?.type).toBe('session.cancelled')
    expect((await farm.control(id, 'cancel')).status).toBe(200)
    await sleep(300)
    expect(await farm.history(id)).toEqual(history)
    expect((await farm.receipt(id)).steps.at(-1)?.attempts.at(-1)?.end).toBe('cancelled')
  })

  it('cancel after the last result: 409 and the truth, the pictures stay', async () => {
    const id = await farm.submit()
    const pictures = await farm.pictures(id)
    const { status, json } = await farm.control(id, 'cancel')
    expect([status, json.code]).toEqual([409, 'session.ended'])
    expect(await farm.pictures(id)).toEqual(pictures)
  })

  it('cancel and the last result at the same time: one of them wins, and both answers say which', async () => {
    for (let i = 0; i < 12; i++) {
      const id = await farm.submit({ steps: 1, seed: i })
      const last = await farm.event(id, 'step.started', 'inference.decode')
      expect(last.worker).toBeDefined()
      await sleep(3 * i)
      const { status, json } = await farm.control(id, 'cancel')
      const { status: truth, output } = await farm.get(id)
      expect([status, json.code ?? json.status, truth, output === null]).toEqual(
        status === 200 ? [200, 'cancelled', 'cancelled', true] : [409, 'session.ended', 'succeeded', false],
      )
    }
  })

  it('a deadline ends the session, also in the middle of a step, and pausing keeps what was left of it', async () => {
    const open = await farm.gate(7, 1)
    const id = await farm.submit({}, { deadlineS: 1.5 })
    const { error } = await farm.until(id, 'failed')
    expect(error?.code).toBe('session.deadline_exceeded')
    await eventually('the device is free', async () => !(await holds(id)), 3000)

    const paused = await farm.submit({}, { deadlineS: 4 })
    await farm.untilCall(paused, 1)
    await farm.control(paused, 'pause')
    await farm.until(paused, 'paused')
    await open()
    await sleep(4200)
    expect((await farm.get(paused)).status).toBe('paused')
    await farm.control(paused, 'resume')
    expect(await farm.pictures(paused)).toHaveLength(1)
  })

  it('retry makes a new session from the last recorded state; the old one never changes', async () => {
    const id = await farm.submit({ count: 2 })
    await farm.event(id, 'step.completed', 'postprocessing.save')
    await farm.control(id, 'cancel')
    const before = await farm.get(id)
    const { status, json } = await farm.control(id, 'retry')
    expect(status).toBe(202)
    expect(json).toMatchObject({ retryOf: id, input: before.input })
    const pictures = await farm.pictures(json.id)
    expect(pictures).toEqual(await farm.undisturbed({ count: 2 }))
    // It went on: what was recorded is not done again.
    expect((await farm.receipt(json.id)).steps.map(({ step }) => step)).not.toContain('inference.encode')
    expect(await farm.get(id)).toEqual(before)
    expect((await farm.control(json.id, 'retry')).json).toMatchObject({ code: 'session.not_retryable' })
  })

  it('seed 8 out of four from seed 7 is byte for byte the file of a request for one with seed 8', async () => {
    const four = await farm.pictures(await farm.submit({ count: 4, steps: 4 }))
    expect(new Set(four)).toHaveProperty('size', 4)
    const alone = await farm.pictures(await farm.submit({ seed: 8, steps: 4 }))
    expect(alone).toEqual([four[1]])
    const session = (await farm.client.get(`/v1/sessions?limit=1`)).json as { sessions: Session[] }
    const bytes = (await farm.client.get(session.sessions[0]?.output?.images?.[0]?.url ?? '')).bytes
    expect(bytes.subarray(1, 4).toString()).toBe('PNG')
  })
})
