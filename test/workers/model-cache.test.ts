/** Models in the RAM of a worker, by HTTP: cached, evicted, read ahead, there for a child that follows a dead one. */
import { mkdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startFarm, type Farm } from '../support/farm.ts'
import { writeModel } from '../support/model.ts'
import { writeSparse } from '../support/model-tree.ts'
import { eventually } from '../support/wait.ts'

const wait = { Prefer: 'wait=30' }
/** An upscaler of the architecture that has the fewest tensors. */
const compact = { 'body.0.weight': [16, 3, 3, 3], 'body.1.weight': [16], 'body.2.weight': [12, 16, 3, 3] }

let farm: Farm
beforeAll(async () => {
  farm = await startFarm({ workers: 1 })
  await writeModel(join(farm.folder, 'models'), 'other', 'another body')
  await eventually('both models are listed', async () => (await farm.client.get('/v1/models')).json.models.length === 2)
  // On the worker's host, which may hear of it a moment later.
  await eventually('the other one is hashed', async () => (await post('other', 'hash')).status === 200)
})
afterAll(() => farm[Symbol.asyncDispose]())

interface Cache {
  hits: number
  misses: number
  evicted: number
  models: { id: string; uses: number; bytes: number }[]
}
const cache = async (): Promise<Cache> => (await farm.client.get('/v1/memory/models')).json.devices[0].cache
const post = (model: string, verb: string, body: object = {}) => farm.client.post(`/v1/models/${model}/${verb}`, body, wait)

describe('a model', () => {
  it('is cached and evicted in one call each, and told of where memory is', async () => {
    const made = await post('other', 'cache')
    expect(made.status, made.text).toBe(200)
    expect(made.json).toMatchObject({ id: 'other', uses: 0 })
    expect(made.json.bytes).toBeGreaterThan(0)
    const [told] = await eventually('it is told', async () => (await cache()).models.length === 1 && (await cache()).models)
    expect(told).toMatchObject({ id: 'other', bytes: made.json.bytes })
    const again = await post('other', 'cache')
    expect(again.json.cachedAt).toBe(made.json.cachedAt)
    const gone = await post('other', 'evict')
    expect(gone.json).toMatchObject({ evicted: [{ id: 'other' }], bytes: made.json.bytes })
    await eventually('it is told', async () => (await cache()).models.length === 0)
    expect((await post('other', 'evict')).json).toMatchObject({ evicted: [], bytes: 0 })
  })

  it('that is used beside one that draws is cached likewise', async () => {
    const path = join(farm.folder, 'models/upscale_models/twice.safetensors')
    await mkdir(join(farm.folder, 'models/upscale_models'))
    await writeSparse(path, compact)
    await eventually('it is listed', async () => (await farm.client.get('/v1/models/twice')).status === 200)
    const { size } = await stat(path)
    const made = await eventually('the worker’s host has it', async () => {
      const answer = await post('twice', 'cache')
      return answer.status === 200 && answer.json
    })
    expect(made).toMatchObject({ id: 'twice', bytes: size })
    expect((await post('twice', 'evict')).json).toMatchObject({ evicted: [{ id: 'twice' }] })
  })

  it('is refused by its name, and by that of its device', async () => {
    const problem = ({ status, json }: { status: number; json: { code: string; field?: string } }) => [status, json.code, json.field]
    expect(problem(await post('nowhere', 'cache'))).toEqual([422, 'model.unknown', undefined])
    expect(problem(await post('other', 'cache', { device: 'nowhere' }))).toEqual([422, 'device.unknown', 'device'])
    expect(problem(await post('other', 'evict', { device: 'nowhere' }))).toEqual([422, 'device.unknown', 'device'])
    expect(problem(await post('other', 'evict', { bytes: 3 }))).toEqual([422, 'api.invalid', 'bytes'])
  })

  it('is cached by its first load, and comes from RAM for a child that was killed', async () => {
    await farm.until(await farm.submit(), 'succeeded')
    await eventually('it is cached', async () => (await cache()).models.some(({ id }) => id === 'darkroom-tiny'))
    const before = await cache()
    const [worker] = await farm.records()
    process.kill(worker?.childPid ?? 0, 'SIGKILL')
    await farm.until(await farm.submit({ seed: 2 }), 'succeeded')
    const after = await eventually('the load is told', async () => {
      const now = await cache()
      return now.hits > before.hits && now
    })
    expect([after.hits - before.hits, after.misses - before.misses]).toEqual([1, 0])
    expect(after.models.find(({ id }) => id === 'darkroom-tiny')?.uses).toBe(1)
  })

  it('of a session that waits is read while the worker draws another', async () => {
    await post('other', 'evict')
    const open = await farm.gate(71, 1)
    const first = await farm.submit({ seed: 71 })
    await farm.untilCall(first, 1)
    const second = await farm.submit({ model: 'other', seed: 72 })
    await eventually('the other model is cached', async () => (await cache()).models.some(({ id }) => id === 'other'))
    expect((await farm.get(first)).status).toBe('running')
    const { misses } = await cache()
    await open()
    await farm.until(second, 'succeeded')
    expect((await cache()).misses).toBe(misses)
  })
})
