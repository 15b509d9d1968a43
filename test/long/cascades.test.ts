/** One fault and all that follows from it, over every domain: what is written off, what moves, what is refused. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startFarm, type Farm } from '../support/farm.ts'
import { eventually } from '../support/wait.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'darkroom-cascades-'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

/** A picture that is drawn on the first worker, the second being away, until that one fails. */
const pausedBut = async (farm: Farm, worker: string | undefined): Promise<string> => {
  const other = (await farm.records()).find(({ id }) => id !== worker)?.device.id ?? ''
  await farm.client.post('/v1/queue/pause', { device: other })
  return other
}
const ends = async (farm: Farm, id: string): Promise<unknown[]> =>
  (await farm.attempts(id, 'inference.denoise')).map(({ worker, end, error }) => [
    farm.workers.findIndex(({ ready }) => ready === worker),
    end,
    error?.code ?? null,
  ])

describe.concurrent('a cascade', { timeout: 180_000 }, () => {
  it('from memory that runs out: another device goes on from the checkpoint; where all run out it fails with its own code', async () => {
    const out = ['--call-ms', '20', '--fault', 'error:memory.exhausted@5']
    await using farm = await startFarm({ workers: [{ fake: out }, { fake: ['--call-ms', '20'] }] })
    const [poor, rich] = farm.workers
    const elsewhere = await pausedBut(farm, poor?.ready)
    const id = await farm.submit()
    await eventually('it has run out', async () => (await farm.history(id)).some(({ type }) => type === 'step.retrying'))
    await farm.client.post('/v1/queue/resume', { device: elsewhere })
    const pictures = await farm.pictures(id)
    const all = (await ends(farm, id)) as [number, string, string | null][]
    expect(all[0]).toEqual([0, 'failed', 'memory.exhausted'])
    expect(all.at(-1)).toEqual([1, 'completed', null])
    expect((await farm.attempts(id, 'inference.denoise')).at(-1)?.resumedFrom?.call).toBeGreaterThanOrEqual(4)
    const { use } = await farm.get(id)
    expect(use.deviceS).toBeGreaterThan(0)
    expect(pictures).toEqual(await farm.undisturbed())
    await rich?.stop(12_000)
    const failing = await farm.submit({ seed: 11 })
    const failed = await farm.until(failing, 'failed')
    expect(failed.error).toMatchObject({ code: 'memory.exhausted', class: 'resource' })
    expect((await ends(farm, failing)).length).toBe(4)
    // The worker lives, and holds nothing of it.
    expect((await farm.vitals(poor as NonNullable<typeof poor>)).sessions).toEqual({})
  })

  it('from a lost device: its steps move, its models and its memory are written off, its commands fail', async () => {
    const gone = join(folder, 'device-gone')
    const loses = ['--call-ms', '20', '--fault', 'exit:69@5', '--die-when', gone]
    await using farm = await startFarm({ workers: [{ fake: loses }, { fake: ['--call-ms', '20'] }] })
    const [losing, other] = farm.workers
    const elsewhere = await pausedBut(farm, losing?.ready)
    const device = (await farm.records()).find(({ id }) => id === losing?.ready)?.device.id
    const wait = { Prefer: 'wait=30' }
    const allocation = await farm.client.post('/v1/memory/allocations', { device, bytes: 1 << 20 }, wait)
    expect(allocation.status).toBe(200)
    const resident = async (): Promise<string[]> => {
      const { devices } = (await farm.client.get('/v1/memory/models')).json as { devices: { device: string; models: unknown[] }[] }
      return devices.filter(({ models }) => models.length > 0).map((each) => each.device)
    }
    const open = await farm.gate(7, 3)
    const id = await farm.submit()
    await eventually('its model is resident', async () => (await resident()).includes(device ?? ''))
    // The driver is gone for good: no child comes up on that device again.
    await writeFile(gone, '')
    await open()
    expect(await losing?.exited).toMatchObject({ code: 1 })
    await farm.client.post('/v1/queue/resume', { device: elsewhere })
    const pictures = await farm.pictures(id)
    const all = (await ends(farm, id)) as [number, string, string | null][]
    expect(all[0]).toEqual([0, 'failed', 'device.lost'])
    expect(all.at(-1)).toEqual([1, 'completed', null])
    expect((await farm.attempts(id, 'inference.denoise')).at(-1)?.resumedFrom?.call).toBeGreaterThanOrEqual(4)
    await eventually('the device is forgotten', async () => (await farm.client.get(`/v1/devices/${device}`)).status === 404)
    expect(await resident()).not.toContain(device)
    expect((await farm.client.get(`/v1/memory/allocations/${allocation.json.id}`)).json.code).toBe('memory.unknown')
    const command = await farm.client.post('/v1/memory/allocations', { device, bytes: 1 }, wait)
    expect(command).toMatchObject({ status: 422, json: { code: 'device.unknown', field: 'device' } })
    expect((await farm.vitals(other as NonNullable<typeof other>)).sessions).toEqual({})
    expect(pictures).toEqual(await farm.undisturbed())
  })

  it('from a broken model: the session fails at once and in words, the model is quarantined, and a validation lets it out', async () => {
    await using farm = await startFarm({ fake: ['--call-ms', '5', '--once', join(folder, 'corrupt'), '--fault', 'error:model.corrupt@1'] })
    const id = await farm.submit()
    const failed = await farm.until(id, 'failed')
    expect(failed.error).toMatchObject({
      code: 'model.corrupt',
      class: 'permanent',
      remedy: expect.stringMatching(/Fetch the model/) as string,
    })
    expect(await ends(farm, id)).toEqual([[0, 'failed', 'model.corrupt']])
    const submission = { workflow: 'image-generation', input: { prompt: 'a red circle', seed: 7 } }
    const refused = await farm.client.post('/v1/sessions', submission)
    expect(refused).toMatchObject({ status: 422, json: { code: 'model.unusable', field: 'input.model' } })
    expect(refused.json.detail).toMatch(/quarantined, because a worker found it broken: inference\.denoise: .*fault/)
    expect((await farm.client.post('/v1/sessions?dryRun=true', submission)).json.code).toBe('model.unusable')
    const batch = { workflow: 'batch', input: { input: { prompt: 'x' }, seeds: { count: 2 } } }
    expect((await farm.client.post('/v1/sessions', batch)).json.code).toBe('model.unusable')
    const found = await farm.client.post('/v1/models/darkroom-tiny/validate', {}, { Prefer: 'wait=30' })
    expect(found).toMatchObject({ status: 200, json: { isValid: true } })
    expect(await farm.pictures(await farm.submit())).toHaveLength(1)
  })

  it('from an inference that fails: no postprocessing begins, all that it held is free, and the next session runs', async () => {
    await using farm = await startFarm({
      fake: ['--call-ms', '5', '--once', join(folder, 'diverged'), '--fault', 'error:inference.diverged@5'],
    })
    const id = await farm.submit({ postprocess: [{ enhance: { sharpen: 0.5 } }, { convert: { format: 'webp' } }] })
    const failed = await farm.until(id, 'failed')
    expect(failed.error).toMatchObject({ code: 'inference.diverged', class: 'permanent' })
    const steps = (await farm.receipt(id)).steps.map(({ step }) => step)
    expect(steps.filter((step) => step.startsWith('postprocessing.'))).toEqual([])
    expect((await ends(farm, id)).length).toBe(1)
    const [worker] = farm.workers
    expect((await farm.vitals(worker as NonNullable<typeof worker>)).sessions).toEqual({})
    expect(await farm.leftovers()).toEqual([])
    expect(await farm.pictures(await farm.submit({ postprocess: [{ enhance: { sharpen: 0.5 } }] }))).toHaveLength(1)
    // What was lost of it is counted.
    expect(failed.use.lostS).toBeGreaterThan(0)
    expect(failed.use.lostS).toBeLessThanOrEqual(failed.use.deviceS)
  })

  it('from a postprocessing that fails: what was drawn is kept, and a retry draws nothing again', async () => {
    await using farm = await startFarm({ fake: ['--call-ms', '5'] })
    const id = await farm.submit({ postprocess: [{ convert: { format: 'jpeg', maxBytes: 64 } }] })
    const failed = await farm.until(id, 'failed')
    expect(failed.error).toMatchObject({ code: 'postprocessing.over_limit', class: 'permanent' })
    const saved = (await farm.history(id)).find(({ type, step }) => type === 'step.completed' && step === 'postprocessing.save')
    const kept = saved?.['output'] as { sha256: string } | undefined
    expect((await farm.client.get(`/v1/artifacts/${kept?.sha256}`)).status).toBe(200)
    const again = (await farm.control(id, 'retry')).json.id
    expect((await farm.until(again, 'failed')).error?.code).toBe('postprocessing.over_limit')
    const steps = (await farm.receipt(again)).steps.map(({ step }) => step)
    expect(steps).toEqual(['postprocessing.convert'])
    expect(await farm.leftovers()).toEqual([])
  })
})
