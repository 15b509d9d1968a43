/** Forks through the doors: each recorded state gives the result that can be said beforehand. */
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { root } from '../../src/config.ts'
import type { Fork, Session, SessionState } from '../../src/client/index.ts'
import { keys } from '../../src/keys.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { eventually } from '../support/wait.ts'

describe('a fork', () => {
  let farm: Farm
  const fork = (id: string, body: Fork = {}, headers: Record<string, string> = {}) =>
    farm.client.post(`/v1/sessions/${id}/fork`, body, headers)
  const forked = async (id: string, body: Fork = {}): Promise<Session> => {
    const { status, json, text } = await fork(id, body)
    if (status !== 202) throw new Error(`fork → ${status} ${text}`)
    return json as Session
  }
  const states = async (id: string): Promise<SessionState[]> => (await farm.client.get(`/v1/sessions/${id}/states`)).json.states
  const steps = async (id: string): Promise<string[]> => (await farm.receipt(id)).steps.map(({ step }) => step)
  const begin = async (workflow: string, input: Record<string, unknown>): Promise<string> =>
    (await farm.client.post('/v1/sessions', { workflow, input })).json.id
  const waits = (id: string, what: string): Promise<unknown> =>
    eventually(`${id} waits for ${what}`, async () => (await farm.get(id)).waiting === what)
  const signal = (id: string, type: string) => farm.client.post(`/v1/sessions/${id}/signal`, { type })

  beforeAll(async () => {
    farm = await startFarm({ settings: { DARKROOM_WORKFLOWS: join(root, 'examples') }, fake: ['--call-ms', '1'] })
  })
  afterAll(() => farm[Symbol.asyncDispose]())

  it('from any state of a picture, with the same input, gives the same bytes, and runs only what came after', async () => {
    const id = await farm.submit({ seed: 7, count: 2 })
    const before = await farm.pictures(id)
    const all = await states(id)
    expect(all.map(({ open }) => open.join(' '))).toEqual([
      'inference.encode',
      'inference.denoise',
      'inference.decode',
      'postprocessing.save inference.denoise',
      expect.any(String),
      expect.any(String),
      expect.any(String),
      '',
    ])
    const ran = await steps(id)
    for (const [i, { entry, open }] of all.slice(0, -1).entries()) {
      const child = await forked(id, { from: { entry } })
      expect(child.forkOf).toEqual({ session: id, entry, call: null, step: open[0] })
      expect(await farm.pictures(child.id)).toEqual(before)
      expect(await steps(child.id)).toHaveLength(ran.length - i)
    }
  })

  it('with a changed input parts at the first step that is asked for something else', async () => {
    const id = await farm.submit({ seed: 7, steps: 8 })
    const [before] = await farm.pictures(id)
    const [, encoded, denoised] = await states(id)
    const longer = await forked(id, { input: { steps: 12 } })
    expect(longer.input['steps']).toBe(12)
    expect(longer.forkOf).toMatchObject({ session: id, step: 'inference.denoise', entry: encoded?.entry })
    const pictures = await farm.pictures(longer.id)
    expect(await steps(longer.id)).toEqual(['inference.denoise', 'inference.decode', 'postprocessing.save'])
    expect(pictures).not.toEqual([before])
    expect(pictures).toEqual(await farm.undisturbed({ seed: 7, steps: 12 }))
    const other = await forked(id, { input: { prompt: 'a blue square' } })
    expect(other.forkOf?.step).toBe('inference.encode')
    expect(await farm.pictures(other.id)).toEqual(await farm.undisturbed({ prompt: 'a blue square', seed: 7, steps: 8 }))
    // Before what differs, the state that was asked for is the one.
    const same = await forked(id, { from: { entry: denoised?.entry ?? 0 }, input: { steps: 8 } })
    expect(same.forkOf).toMatchObject({ step: 'inference.decode', entry: denoised?.entry })
    expect(await farm.pictures(same.id)).toEqual([before])
    const again = await forked(longer.id, { input: { steps: 8 } })
    expect(await farm.pictures(again.id)).toEqual([before])
  })

  it('from a denoise call goes on there, to the same bytes, while the picture it comes from goes on too', async () => {
    const open = await farm.gate(21, 12)
    const id = await farm.submit({ seed: 21, steps: 30 })
    const { call } = await farm.untilCall(id, 12)
    await farm.control(id, 'pause')
    await farm.until(id, 'paused')
    const [kept] = (await states(id)).at(-1)?.calls ?? []
    expect(kept).toBeGreaterThanOrEqual(call)
    expect((await fork(id, { from: { call: 1 } })).json).toMatchObject({ code: 'session.checkpoint_gone', field: 'from.call', status: 409 })
    expect((await fork(id, { from: { call: kept ?? 0 }, input: { steps: 29 } })).json).toMatchObject({
      code: 'session.not_forkable',
      field: 'input',
    })
    const child = await forked(id, { from: { call: kept ?? 0 } })
    await open()
    const pictures = await farm.pictures(child.id)
    expect((await farm.attempts(child.id, 'inference.denoise'))[0]?.resumedFrom?.call).toBe(kept)
    expect(child.forkOf).toMatchObject({ call: kept, step: 'inference.denoise' })
    await farm.control(id, 'resume')
    expect(await farm.pictures(id)).toEqual(pictures)
    expect(await farm.undisturbed({ seed: 21, steps: 30 })).toEqual(pictures)
    expect((await fork(id, { from: { call: kept ?? 0 } })).json).toMatchObject({ code: 'session.checkpoint_gone' })
  })

  it('of each state of the examples waits, draws and ends as its session did from there', async () => {
    const id = await begin('judged-picture', { prompt: 'a red circle', seed: 7 })
    await waits(id, 'a timer')
    await signal(id, 'again')
    await eventually('the second picture', async () => (await states(id)).length === 4)
    await signal(id, 'good')
    const { output } = await farm.until(id, 'succeeded')
    expect(output).toMatchObject({ seed: 8, isGood: true })
    const all = await states(id)
    expect(all.map(({ value, open }) => [value, ...open])).toEqual([
      ['drawing', 'image-generation@1'],
      ['judging'],
      ['drawing', 'image-generation@1'],
      ['judging'],
      ['done'],
    ])
    for (const [i, { entry }] of all.slice(0, -1).entries()) {
      const { id: child } = await forked(id, { from: { entry } })
      await waits(child, 'a timer')
      await signal(child, 'good')
      const now = (await farm.until(child, 'succeeded')).output
      expect(now).toMatchObject({ seed: i < 2 ? 7 : 8, isGood: true })
      if (i >= 2) expect(now).toEqual(output)
    }
    const night = await begin('nightly-pictures', { prompts: ['a', 'b'], seed: 3 })
    const result = (await farm.until(night, 'succeeded')).output
    for (const { entry } of (await states(night)).slice(0, -1))
      expect((await farm.until((await forked(night, { from: { entry } })).id, 'succeeded')).output).toEqual(result)
    // The first picture is the same in both, the second is another.
    const changed = await forked(night, { input: { prompts: ['a', 'c'] } })
    expect(changed.forkOf?.step).toBe('image-generation@1')
    expect((await farm.until(changed.id, 'succeeded')).output?.images).toMatchObject([{ seed: 3 }, { seed: 4 }])
  })

  it('keeps the pictures that it has taken over when its parent goes, and only those', async () => {
    const id = await begin('nightly-pictures', { prompts: ['d', 'e'], seed: 40 })
    const [first, second] = ((await farm.until(id, 'succeeded')).output?.images ?? []).map(({ sha256 }) => sha256)
    const [, drawn] = await states(id)
    const child = await forked(id, { from: { entry: drawn?.entry ?? 0 } })
    expect(await farm.eye.smembers(keys.references(child.id))).toContain(first)
    await farm.until(child.id, 'succeeded')
    expect((await farm.client.request('DELETE', `/v1/sessions/${id}`)).status).toBe(204)
    expect((await farm.client.get(`/v1/artifacts/${first}`)).status).toBe(200)
    expect((await farm.client.get(`/v1/artifacts/${second}`)).status).toBe(200)
    expect((await fork(id)).json).toMatchObject({ code: 'session.unknown' })
    expect((await states(child.id)).length).toBeGreaterThan(1)
  })

  it('is made once under an idempotency key, and so is a retry', async () => {
    const id = await farm.submit({ seed: 9 })
    await farm.pictures(id)
    const key = { 'Idempotency-Key': 'the-same' }
    const all = await Promise.all(Array.from({ length: 10 }, () => fork(id, { input: { steps: 4 } }, key)))
    expect(new Set(all.map(({ json }) => json.id)).size).toBe(1)
    expect((await fork(id, { input: { steps: 5 } }, key)).json).toMatchObject({ status: 422, code: 'session.idempotency_mismatch' })
    await farm.until(all[0]?.json.id, 'succeeded')
    const open = await farm.gate(10, 2)
    const lost = await farm.submit({ seed: 10 })
    await farm.untilCall(lost, 2)
    await farm.control(lost, 'cancel')
    await open()
    const retries = await Promise.all(
      Array.from({ length: 5 }, () => farm.client.request('POST', `/v1/sessions/${lost}/retry`, { headers: key })),
    )
    expect(new Set(retries.map(({ json }) => json.id)).size).toBe(1)
    const [again] = retries
    expect(await farm.pictures(again?.json.id)).toEqual(await farm.undisturbed({ seed: 10 }))
    const child = await forked(again?.json.id, { from: { entry: 1 } })
    expect(await farm.pictures(child.id)).toEqual(await farm.pictures(again?.json.id))
  })

  let picture: Promise<string> | undefined
  it.each([
    ['a state after the end', { from: { entry: 10_000 } }, 409, 'session.not_forkable', undefined],
    ['no entry', { from: { entry: 0 } }, 422, 'api.invalid', 'from.entry'],
    ['an unknown field', { at: 1 }, 422, 'api.invalid', 'at'],
    ['an unknown field of the input', { input: { stepz: 3 } }, 422, 'api.invalid', 'input.stepz'],
    ['a size that is none', { input: { width: 63 } }, 422, 'api.invalid', 'input.width'],
    ['a model that there is not', { input: { model: 'nowhere' } }, 422, 'model.unknown', undefined],
  ])('is refused for %s', async (_, body, status, code, field) => {
    picture ??= farm.submit({ seed: 7 })
    await farm.pictures(await picture)
    const { json } = await fork(await picture, body as Fork)
    expect(json).toMatchObject({ status, code, ...(field !== undefined && { field }) })
  })
})
