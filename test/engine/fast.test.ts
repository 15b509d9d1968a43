/** Pictures of the class fast over HTTP: what is asked, what is said of it, who is refused, and what a kill leaves. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readPngTexts } from '../../src/domains/postprocessing/png.ts'
import { startFarm, type Farm } from '../support/farm.ts'

const why = 'there is no C++ compiler: g++ is not on the PATH of the worker'
const notPromised = 'the picture is drawn in the class fast: its bytes are not promised'

describe('a picture of the class fast', () => {
  let farm: Farm
  beforeAll(async () => {
    farm = await startFarm({ workers: [{}, { fake: ['--cannot-compile', why] }], fake: ['--call-ms', '2'] })
  })
  afterAll(() => farm[Symbol.asyncDispose]())

  const submit = (input: Record<string, unknown>, more: Record<string, unknown> = {}) =>
    farm.client.post('/v1/sessions', { workflow: 'image-generation', input: { prompt: 'a red circle', ...input }, ...more })
  const deviceOf = async (worker: number): Promise<string> => {
    const { devices } = (await farm.client.get('/v1/devices')).json
    return devices.find((device: { worker: string }) => device.worker === farm.workers[worker]?.ready).id
  }
  async function drawn(input: Record<string, unknown>, more: Record<string, unknown> = {}) {
    const { status, json, text } = await submit({ seed: 7, steps: 6, ...input }, more)
    if (status !== 202) throw new Error(`submit → ${status} ${text}`)
    const [sha256 = ''] = await farm.pictures(json.id)
    const { bytes } = await farm.client.get(`/v1/artifacts/${sha256}`)
    const file = JSON.parse(readPngTexts(bytes)['darkroom'] ?? '')
    const receipt = await farm.receipt(json.id)
    const denoise = receipt.steps.find(({ step }) => step === 'inference.denoise')
    return { id: json.id, sha256, file, receipt, stats: denoise?.attempts.at(-1)?.stats, notes: receipt.notes.map(({ note }) => note) }
  }

  it('has another exactness key, and says what it used; one of the class exact is as ever', async () => {
    const on = { device: await deviceOf(0) }
    const exact = await drawn({}, on)
    const said = await drawn({ class: 'exact' }, on)
    expect([said.sha256, said.file]).toEqual([exact.sha256, exact.file])
    expect(exact.file.input).not.toHaveProperty('class')
    expect(exact.stats).not.toHaveProperty('fast')
    const fast = await drawn({ class: 'fast' }, on)
    expect(fast.file.input).toMatchObject({ class: 'fast' })
    expect(fast.file.input).not.toHaveProperty('stepCache')
    expect(fast.file.exactness.key).not.toBe(exact.file.exactness.key)
    expect(fast.file.exactness.facts.settings).toEqual({ ...exact.file.exactness.facts.settings, class: 'fast' })
    expect(fast.stats).toMatchObject({ fast: { used: ['compile'], notUsed: [], compile: { functions: 0 }, rows: 1 } })
    expect(fast.notes).toContain(notPromised)
    expect(exact.notes).not.toContain(notPromised)
  })

  it('tells by device what it means there', async () => {
    const [able, unable] = await Promise.all(
      [0, 1].map(async (worker) => (await farm.client.get(`/v1/devices/${await deviceOf(worker)}`)).json.capabilities.fast),
    )
    expect(able).toEqual({ compiles: true, why: null, uncached: null, stepCache: [] })
    expect(unable).toEqual({ compiles: false, why, uncached: null, stepCache: [] })
  })

  it('is refused by name where no device that may take it compiles, and drawn where one does', async () => {
    const { status, json } = await submit({ class: 'fast' }, { device: await deviceOf(1) })
    expect([status, json.code]).toEqual([422, 'api.invalid'])
    expect(JSON.stringify(json)).toContain('input.class')
    expect(JSON.stringify(json)).toContain(why)
    expect((await submit({ class: 'fast', seed: 1, steps: 1 })).status).toBe(202)
    const exact = await drawn({}, { device: await deviceOf(1) })
    expect(exact.file.input).not.toHaveProperty('class')
  })

  it.each([
    [{ class: 'quick' }, 'input.class', /exact.*fast/],
    [{ stepCache: 0.1 }, 'input.stepCache', /class fast/],
    [{ class: 'fast', stepCache: 0.1 }, 'input.stepCache', /families with a step cache are flux1/],
    [{ class: 'fast', stepCache: 2 }, 'input.stepCache', /1/],
  ])('refuses %j by its field', async (input, field, said) => {
    const { status, json } = await submit(input)
    expect([status, json.code]).toEqual([422, 'api.invalid'])
    expect(JSON.stringify(json)).toContain(field)
    expect(JSON.stringify(json)).toMatch(said)
  })

  it('that is killed goes on fast, from its checkpoint, and says again that no bytes are promised', async () => {
    const open = await farm.gate(77, 3)
    const { json } = await submit({ class: 'fast', seed: 77, steps: 6 }, {})
    const { worker } = await farm.untilCall(json.id, 2)
    await worker.kill()
    await farm.addWorker()
    await open()
    await farm.pictures(json.id)
    const attempts = await farm.attempts(json.id, 'inference.denoise')
    expect(attempts.map(({ end }) => end)).toEqual(['lost', 'completed'])
    expect(attempts[1]?.resumedFrom?.call).toBeGreaterThanOrEqual(2)
    expect(attempts[1]?.stats).toMatchObject({ checkpointRefused: null, fast: { rows: 1 } })
    const { notes } = await farm.receipt(json.id)
    expect(notes.filter(({ note }) => note === notPromised)).toHaveLength(2)
  })
})
