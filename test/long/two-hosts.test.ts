/** A farm whose workers have different model folders: who has a model draws it, and what changes there is seen. */
import { mkdir, open, rename, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Model } from '../../src/client/index.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { writeModel } from '../support/model.ts'
import { eventually } from '../support/wait.ts'

let farm: Farm
const folder = (who: 'a' | 'b'): string => join(farm.folder, `models-${who}`)
beforeAll(async () => {
  farm = await startFarm({ workers: 0, settings: { DARKROOM_IDLE_HASH: '0' } })
  for (const who of ['a', 'b'] as const) await writeModel(folder(who), `only-${who}`, who)
  for (const who of ['a', 'b'] as const) {
    await writeModel(folder(who), 'both', 'the same')
    await writeModel(folder(who), 'other', who)
    await farm.addWorker({ env: { DARKROOM_MODELS: folder(who) } })
  }
})
afterAll(() => farm[Symbol.asyncDispose]())

const worker = (who: 'a' | 'b'): string => farm.workers[who === 'a' ? 0 : 1]?.ready ?? ''
const model = async (id: string): Promise<Model | undefined> => {
  const { status, json } = await farm.client.get(`/v1/models/${encodeURIComponent(id)}`)
  return status === 200 ? (json as Model) : undefined
}
const hasIt = (id: string, ...who: ('a' | 'b')[]): Promise<unknown> =>
  eventually(`${id} is on ${who.join(' and ')}`, async () => {
    const workers = (await model(id))?.where.flatMap((each) => each.workers).toSorted()
    return workers?.join() === who.map(worker).toSorted().join() ? workers : undefined
  })
const workersOf = async (id: string): Promise<Set<string | undefined>> =>
  new Set(
    (await farm.history(id))
      .filter(({ type, step }) => type === 'step.started' && step !== 'postprocessing.save')
      .map((event) => event.worker),
  )
/** Waits until a session waits for this. */
const waits = (id: string, why: RegExp): Promise<unknown> =>
  eventually(`${id} waits for ${String(why)}`, async () => why.test((await farm.get(id)).waiting ?? ''))

describe('a model that one of two workers has', () => {
  it('never fails for the other one', async () => {
    await hasIt('only-a', 'a')
    await hasIt('only-b', 'b')
    const ids = await Promise.all(Array.from({ length: 12 }, (_, i) => farm.submit({ model: i % 2 === 0 ? 'only-a' : 'only-b', seed: i })))
    for (const [i, id] of ids.entries()) {
      expect(await farm.pictures(id)).toHaveLength(1)
      expect(await workersOf(id)).toEqual(new Set([worker(i % 2 === 0 ? 'a' : 'b')]))
    }
  })

  it('and that the API’s own host does not have is listed with who has it', async () => {
    expect(await model('only-b')).toMatchObject({
      status: 'usable',
      where: [{ path: join(folder('b'), 'only-b'), workers: [worker('b')] }],
    })
    await hasIt('both', 'a', 'b')
  })
})

it('models of one name and other bytes are told apart by their hashes', async () => {
  const found = await eventually('both are hashed', async () => {
    const { json } = await farm.client.get('/v1/models?text=other')
    const { models } = json as { models: Model[] }
    return models.length === 2 && models.every(({ bodyHash }) => bodyHash !== null) ? models : undefined
  })
  const [first, second] = found
  expect(first?.id).toBe('other')
  expect(second?.id).toBe(`other [${second?.bodyHash?.slice(0, 10)}]`)
  for (const each of found) {
    const id = await farm.submit({ model: each.id })
    expect(await farm.pictures(id)).toHaveLength(1)
    expect([...(await workersOf(id))]).toEqual(each.where.flatMap(({ workers }) => workers))
  }
})

describe('while the farm runs', () => {
  it('a model that is added draws, within seconds', async () => {
    await writeModel(join(folder('b'), 'new'), 'late', 'late')
    const at = performance.now()
    await hasIt('new/late', 'b')
    expect(performance.now() - at).toBeLessThan(10_000)
    expect(await farm.pictures(await farm.submit({ model: 'new/late' }))).toHaveLength(1)
  })

  it('one in a folder that was not there draws too, and is seen to change in place', async () => {
    await writeModel(join(folder('a'), 'fresh'), 'first', 'one')
    await hasIt('fresh/first', 'a')
    const another = (before: string): Promise<string> =>
      eventually(`its hash is not ${before}`, async () => {
        const { bodyHash = null } = (await model('fresh/first')) ?? {}
        return bodyHash !== null && bodyHash !== before ? bodyHash : undefined
      })
    const one = await another('')
    await rm(join(folder('a'), 'fresh'), { recursive: true })
    await writeModel(join(folder('a'), 'fresh'), 'first', 'two')
    const two = await another(one)
    const at = performance.now()
    await writeFile(join(folder('a'), 'fresh/first/scheduler/scheduler_config.json'), '{"body":"three"}')
    await another(two)
    expect(performance.now() - at).toBeLessThan(10_000)
    expect(await farm.pictures(await farm.submit({ model: 'fresh/first' }))).toHaveLength(1)
  })

  it('one that is removed is waited for, and the session goes on when it is back', async () => {
    await writeModel(folder('a'), 'going', 'going')
    await hasIt('going', 'a')
    const release = await farm.gate(31, 1)
    const id = await farm.submit({ model: 'going', seed: 31, steps: 4 })
    await farm.untilCall(id, 1)
    await farm.control(id, 'pause')
    await farm.until(id, 'paused')
    await release()
    await rename(join(folder('a'), 'going'), join(farm.folder, 'gone'))
    await eventually('it is not listed any more', async () => (await model('going')) === undefined)
    await farm.control(id, 'resume')
    await waits(id, /no worker has model going/)
    await rename(join(farm.folder, 'gone'), join(folder('a'), 'going'))
    expect(await farm.pictures(id)).toHaveLength(1)
  })

  it('one that is replaced fails its session with `model.changed`', async () => {
    await writeModel(folder('a'), 'changing', 'before')
    await hasIt('changing', 'a')
    const release = await farm.gate(32, 1)
    const id = await farm.submit({ model: 'changing', seed: 32, steps: 4 })
    await farm.untilCall(id, 1)
    await farm.control(id, 'pause')
    await farm.until(id, 'paused')
    await release()
    const before = (await model('changing'))?.bodyHash
    await rm(join(folder('a'), 'changing'), { recursive: true })
    await writeModel(folder('a'), 'changing', 'after')
    await eventually('it is another', async () => {
      const now = (await model('changing'))?.bodyHash
      return now !== null && now !== undefined && now !== before
    })
    await farm.control(id, 'resume')
    expect((await farm.until(id, 'failed')).error).toMatchObject({ code: 'model.changed', field: 'input.model' })
    expect(await farm.pictures(await farm.submit({ model: 'changing' }))).toHaveLength(1)
  })

  it('one that is too large to be hashed unasked is hashed by a step, once, and pins the session', async () => {
    const part = join(folder('b'), 'large/unet/diffusion_pytorch_model.safetensors')
    await writeModel(folder('b'), 'large', 'large')
    await writeSparse(part, 48 * 2 ** 20)
    await hasIt('large', 'b')
    expect(await model('large')).toMatchObject({ status: 'usable', bodyHash: null })
    const ids = await Promise.all([farm.submit({ model: 'large', seed: 1 }), farm.submit({ model: 'large', seed: 2 })])
    expect((await farm.get(ids[0] ?? '')).input['modelHash']).toBe(null)
    for (const id of ids) expect(await farm.pictures(id)).toHaveLength(1)
    const steps = (await farm.receipt(ids[0] ?? '')).steps.map(({ step }) => step)
    expect(steps[0]).toBe('model.hash')
    // Of another host the API reads what has changed, once in a while.
    const bodyHash = await eventually('its hash is known', async () => (await model('large'))?.bodyHash ?? undefined)
    expect(bodyHash).toMatch(/^[0-9a-f]{64}$/)
    const pinned = await farm.submit({ model: 'large', seed: 3 })
    expect((await farm.get(pinned)).input['modelHash']).toBe(bodyHash)
    await farm.pictures(pinned)
  })
})

describe('what is no part of a model', () => {
  it('does not change its hash', async () => {
    const before = (await model('both'))?.bodyHash
    for (const file of ['unet/.DS_Store', 'unet/._config.json', 'README.md', 'unet/Thumbs.db', 'vae/.gitattributes']) {
      await mkdir(dirname(join(folder('a'), 'both', file)), { recursive: true })
      await writeFile(join(folder('a'), 'both', file), 'left behind')
    }
    await writeModel(folder('a'), 'a-mark', 'mark')
    await hasIt('a-mark', 'a')
    await hasIt('both', 'a', 'b')
    expect((await model('both'))?.bodyHash).toBe(before)
  })
})

/** A safetensors file of one tensor of zeros, which takes no room on the disk. */
async function writeSparse(path: string, bytes: number): Promise<void> {
  const header = Buffer.from(JSON.stringify({ unet: { dtype: 'U8', shape: [bytes], data_offsets: [0, bytes] } }))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(header.byteLength))
  const file = await open(path, 'w')
  await file.write(Buffer.concat([length, header]))
  await file.truncate(8 + header.byteLength + bytes)
  await file.close()
}
