import { writeSync } from 'node:fs'
import { mkdir, readdir, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { checkStore } from '../../src/artifacts/index-mark.ts'
import { FileArtifactStore, sha256Of, type Writing } from '../../src/artifacts/store.ts'
import { DarkroomError } from '../../src/errors.ts'
import { collectArtifacts, type Names } from '../../src/artifacts/collector.ts'
import type { Cause } from '../../src/engine/store.ts'
import { keys } from '../../src/keys.ts'
import { startEngine, type TestEngine } from '../support/engine.ts'

const hourMs = 3_600_000

describe('artifacts and the sessions that name them', () => {
  let t: TestEngine
  let store: FileArtifactStore
  beforeAll(async () => {
    t = await startEngine()
    store = new FileArtifactStore(join(t.folder, 'artifacts'))
    await checkStore(t.redis, store)
  })
  afterAll(() => t[Symbol.asyncDispose]())

  let count = 0
  const put = (): Promise<string> => store.put(Buffer.from(`bytes ${count++}`), 'image')
  const grow = async (sha256: string, ageMs: number): Promise<void> => {
    const then = new Date(Date.now() - ageMs)
    await utimes(join(t.folder, 'artifacts', sha256.slice(0, 2), sha256), then, then)
  }
  const encoded = { output: { conditioning: 'c'.repeat(64) }, stats: {} }
  /** A session whose first step has named these. */
  const naming = async (...artifacts: Cause['artifacts']): Promise<string> => {
    const id = await t.submit()
    expect((await t.port.deliver(await t.take(id, '1.0'), { ...encoded, artifacts })).isRecorded).toBe(true)
    return id
  }

  it('what nobody names goes when it is older than an hour, not before', async () => {
    const [old, young] = [await put(), await put()]
    await grow(old, hourMs + 10_000)
    await grow(young, hourMs - 10_000)
    expect(await collectArtifacts(t.redis, store, t.engine.reads)).toBe(1)
    expect([await store.has(old), await store.has(young)]).toEqual([false, true])
    await grow(young, 2 * hourMs)
    expect(await collectArtifacts(t.redis, store, t.engine.reads)).toBe(1)
  })

  it.each([
    ['a day ahead', 24 * hourMs],
    ['a day behind', -24 * hourMs],
  ])('a collector, and who puts bytes again, with a clock %s: by the store’s own clock they are young, or old', async (_, offMs) => {
    const [young, again, old] = [await put(), await put(), await put()]
    await grow(again, 2 * hourMs)
    await grow(old, 2 * hourMs)
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + offMs })
    try {
      await store.put(await store.read(again), 'image')
      expect(await collectArtifacts(t.redis, store, t.engine.reads)).toBe(1)
      expect(await Promise.all([young, again, old].map((sha256) => store.has(sha256)))).toEqual([true, true, false])
    } finally {
      vi.useRealTimers()
    }
    await grow(young, 2 * hourMs)
    await grow(again, 2 * hourMs)
    expect(await collectArtifacts(t.redis, store, t.engine.reads)).toBe(2)
    expect(await readdir(join(t.folder, 'artifacts', 'parts'))).toEqual([])
  })

  it('what a killed writer has left goes a quarter of an hour later, what is being written stays', async () => {
    const parts = join(t.folder, 'artifacts', 'parts')
    await put()
    await writeFile(join(parts, 'dead.part'), 'half a pic')
    await writeFile(join(parts, 'alive.part'), 'half a pic')
    const then = new Date(Date.now() - 901_000)
    await utimes(join(parts, 'dead.part'), then, then)
    expect(await store.sweep()).toBe(1)
    expect(await readdir(parts)).toEqual(['alive.part'])
    await rm(join(parts, 'alive.part'))
  })

  it('bytes that cannot be stored leave nothing behind', async () => {
    const folder = join(t.folder, 'broken')
    const broken = new FileArtifactStore(folder)
    const bytes = Buffer.from('bytes for a shelf that is a file')
    await mkdir(folder)
    await writeFile(join(folder, sha256Of(bytes).slice(0, 2)), '')
    await expect(broken.put(bytes, 'image')).rejects.toThrow(/EEXIST|ENOTDIR/)
    expect(await readdir(join(folder, 'parts'))).toEqual([])
  })

  it.each(['image', 'scratch'] as const)(
    'bytes that are written while they are made are kept, and leave nothing where that fails: %s',
    async (kind) => {
      const bytes = Buffer.from(`bytes of ${kind} that are written`)
      const writing = (writeTo: Writing['writeTo']): Writing => ({ writeTo, byteLength: bytes.length, whole: () => bytes })
      const whole = writing((fd) => Promise.resolve(writeSync(fd, bytes)).then(() => sha256Of(bytes)))
      expect(await store.put(whole, kind)).toBe(sha256Of(bytes))
      expect(await store.read(sha256Of(bytes))).toEqual(bytes)
      const half = writing((fd) => {
        writeSync(fd, bytes.subarray(0, 9))
        return Promise.reject(Object.assign(new Error('no space is left'), { code: 'ENOSPC' }))
      })
      await expect(store.put(half, kind)).rejects.toMatchObject({ code: 'disk.full' })
      expect(await readdir(join(t.folder, 'artifacts', 'parts'))).toEqual([])
    },
  )

  it('a file is kept as a copy, and what has another SHA-256 than was said is found broken', async () => {
    const path = join(t.folder, 'made')
    await writeFile(path, 'made by another program')
    const [said, wrong] = [sha256Of(Buffer.from('made by another program')), sha256Of(Buffer.from('something else'))]
    for (const sha256 of [said, wrong]) await store.putFile(path, sha256)
    await writeFile(path, 'changed')
    expect((await store.read(said)).toString()).toBe('made by another program')
    await expect(store.read(wrong)).rejects.toMatchObject({ code: 'artifact.corrupt' })
    await expect(store.putFile(join(t.folder, 'gone'), said)).rejects.toMatchObject({ code: 'ENOENT' })
    expect(await readdir(join(t.folder, 'artifacts', 'parts'))).toEqual([])
  })

  it('two first users of a store agree on its id, which is never empty', async () => {
    const folder = join(t.folder, 'fresh')
    const ids = await Promise.all(Array.from({ length: 8 }, () => new FileArtifactStore(folder).id()))
    expect(new Set(ids).size).toBe(1)
    expect(ids[0]).toMatch(/^[0-9a-f-]{36}$/)
    expect(await readdir(join(folder, 'parts'))).toEqual([])
  })

  it('what a session names stays, however old: pictures as long as the session is, scratch as long as it runs', async () => {
    const [picture, scratch, checkpoint] = [await put(), await put(), await put()]
    const id = await naming({ group: 'references', sha256: picture }, { group: 'scratch', sha256: scratch })
    await t.port.checkpoint(await t.take(id, '2.0'), { sha256: checkpoint, bytes: 7, call: 1 })
    const all = [picture, scratch, checkpoint]
    const age = (): Promise<void[]> => Promise.all(all.map((sha256) => grow(sha256, 2 * hourMs).catch(() => undefined)))
    const present = (): Promise<boolean[]> => Promise.all(all.map((sha256) => store.has(sha256)))
    await age()
    expect(await collectArtifacts(t.redis, store, t.engine.reads)).toBe(0)
    await t.engine.control(id, 'cancel')
    expect(await collectArtifacts(t.redis, store, t.engine.reads)).toBe(2)
    expect(await present()).toEqual([true, false, false])
    await t.engine.remove(id)
    expect(await collectArtifacts(t.redis, store, t.engine.reads)).toBe(1)
    expect(await present()).toEqual([false, false, false])
  })

  it('of equal pictures the last session that goes takes the bytes along; a retry keeps those of the session it goes on from', async () => {
    const picture = await put()
    const [first, second] = [await naming({ group: 'references', sha256: picture }), await naming({ group: 'references', sha256: picture })]
    await t.engine.control(first, 'cancel')
    await t.engine.control(second, 'cancel')
    const again = await t.engine.retry(second, { keyId: null })
    await grow(picture, 2 * hourMs)
    await t.engine.remove(first)
    await t.engine.remove(second)
    expect(await collectArtifacts(t.redis, store, t.engine.reads)).toBe(0)
    await t.engine.control(again.id, 'cancel')
    await t.engine.remove(again.id)
    expect(await collectArtifacts(t.redis, store, t.engine.reads)).toBe(1)
  })

  it('of one call one checkpoint is kept, the newest, beside one of another call', async () => {
    const id = await naming()
    const attempt = await t.take(id, '2.0')
    const [first, other, again] = [await put(), await put(), await put()]
    await t.port.checkpoint(attempt, { sha256: first, bytes: 7, call: 1 })
    await t.port.checkpoint(attempt, { sha256: other, bytes: 7, call: 2 })
    await t.port.release(attempt, 'drain', { sha256: again, bytes: 7, call: 2 })
    expect((await t.take(id, '2.0', 2)).checkpoints.map(({ call, sha256 }) => [call, sha256])).toEqual([
      [2, again],
      [1, first],
    ])
    for (const sha256 of [first, other, again]) await grow(sha256, 2 * hourMs)
    await collectArtifacts(t.redis, store, t.engine.reads)
    expect(await Promise.all([first, other, again].map((sha256) => store.has(sha256)))).toEqual([true, false, true])
    await t.engine.control(id, 'cancel')
  })

  it('two checkpoints are kept, and a pause at the last one keeps the one before', async () => {
    const shas = await Promise.all([put(), put(), put()])
    const id = await naming()
    const attempt = await t.take(id, '2.0')
    for (const [call, sha256] of shas.entries()) await t.port.checkpoint(attempt, { sha256, bytes: 7, call: call + 1 })
    await t.port.release(attempt, 'pause', { sha256: shas[2] ?? '', bytes: 7, call: 3 })
    await Promise.all(shas.map((sha256) => grow(sha256, 2 * hourMs)))
    await collectArtifacts(t.redis, store, t.engine.reads)
    expect(await Promise.all(shas.map((sha256) => store.has(sha256)))).toEqual([false, true, true])
    expect((await t.take(id, '2.0', 2)).checkpoints.map(({ call }) => call)).toEqual([3, 2])
    await t.engine.control(id, 'cancel')
  })

  it.each(['scratch', 'image'] as const)(
    'bytes that are put again while old ones of them are collected are there afterwards, as %s',
    async (kind) => {
      for (let i = 0; i < 50; i++) {
        const bytes = Buffer.from(`again ${i}`)
        const sha256 = await store.put(bytes, 'scratch')
        await grow(sha256, 2 * hourMs)
        await Promise.all([collectArtifacts(t.redis, store, t.engine.reads), store.put(bytes, kind)])
        expect(await store.read(sha256)).toEqual(bytes)
      }
    },
  )

  it('bytes that were scratch, and are a picture now, are written anew, for good', async () => {
    const bytes = Buffer.from('scratch, then a picture')
    const fileOf = async (sha256: string): Promise<number> => (await stat(join(t.folder, 'artifacts', sha256.slice(0, 2), sha256))).ino
    const scratch = await fileOf(await store.put(bytes, 'scratch'))
    expect(await fileOf(await store.put(bytes, 'scratch'))).toBe(scratch)
    expect(await fileOf(await store.put(bytes, 'image'))).not.toBe(scratch)
  })

  it('nothing goes on the word of a Redis that is empty, another farm’s, or has gone back in time', async () => {
    const picture = await put()
    await grow(picture, 2 * hourMs)
    const [id, turns] = await t.redis.mget(keys.storeId(), keys.collectorTurns())
    const refused = { code: 'artifact.index_lost', remedy: expect.stringContaining(store.mark.file) as string }
    const collect = (): Promise<number> => collectArtifacts(t.redis, store, t.engine.reads)

    await t.redis.del(keys.storeId(), keys.collectorTurns())
    await expect(collect()).rejects.toMatchObject(refused)
    await expect(checkStore(t.redis, store)).rejects.toMatchObject(refused)
    expect(await t.redis.exists(keys.storeId())).toBe(0)

    await t.redis.set(keys.storeId(), 'another')
    await expect(collect()).rejects.toMatchObject({ code: 'artifact.not_shared' })

    await t.redis.mset(keys.storeId(), id ?? '', keys.collectorTurns(), 1)
    for (let i = 0; i < 3; i++) await expect(collect()).rejects.toMatchObject(refused)
    expect(await store.has(picture)).toBe(true)

    await t.redis.set(keys.collectorTurns(), turns ?? 0)
    await checkStore(t.redis, store)
    expect(await collect()).toBe(1)
  })

  it('a crash of the machine that takes Redis’ last turn back stops no collection', async () => {
    const before = Number(await t.redis.get(keys.collectorTurns()))
    await collectArtifacts(t.redis, store, t.engine.reads)
    await t.redis.set(keys.collectorTurns(), before)
    expect(await collectArtifacts(t.redis, store, t.engine.reads)).toBe(0)
  })

  it('an index that is lost while it is read removes nothing', async () => {
    const picture = await put()
    await grow(picture, 2 * hourMs)
    const id = (await t.redis.get(keys.storeId())) ?? ''
    const losing: Names = {
      async *named() {
        await t.redis.del(keys.storeId())
        yield []
      },
      isNamed: () => Promise.resolve(false),
    }
    await expect(collectArtifacts(t.redis, store, losing)).rejects.toMatchObject({ code: 'artifact.index_lost' })
    expect(await store.has(picture)).toBe(true)
    await t.redis.set(keys.storeId(), id)
    expect(await collectArtifacts(t.redis, store, t.engine.reads)).toBe(1)
  })

  it('a session that is named while others are deleted is not overlooked', async () => {
    const picture = await put()
    const others = await Promise.all(Array.from({ length: 1200 }, () => t.submit()))
    await naming({ group: 'references', sha256: picture })
    await grow(picture, 2 * hourMs)
    for (const id of others) await t.engine.control(id, 'cancel')
    const deleting = Promise.all(others.map((id) => t.engine.remove(id)))
    expect(await collectArtifacts(t.redis, store, t.engine.reads)).toBe(0)
    await deleting
    expect(await store.has(picture)).toBe(true)
  })

  it('a thumbnail lies as long as its picture, and goes after it in the same turn', async () => {
    const [named, gone] = [await put(), await put()]
    await naming({ group: 'references', sha256: named })
    const files = [named, gone].flatMap((sha256) => [sha256, `${sha256}.thumbnail`])
    const present = (): Promise<boolean[]> =>
      Promise.all(files.map(async (name) => (await readdir(join(t.folder, 'artifacts', name.slice(0, 2)))).includes(name)))
    for (const sha256 of [named, gone]) await store.putThumbnail(sha256, Buffer.from(`small ${sha256}`))
    for (const name of files) await grow(name, 2 * hourMs)
    expect(await collectArtifacts(t.redis, store, t.engine.reads)).toBe(2)
    expect(await present()).toEqual([true, true, false, false])
    expect(await store.openThumbnail(gone)).toBeUndefined()
    expect((await store.openThumbnail(named))?.size).toBe(70)
  })

  it('a thumbnail whose picture was removed by a collector that died goes an hour later, unless the picture is put again', async () => {
    const lost = await put()
    const bytes = await store.read(lost)
    await store.putThumbnail(lost, Buffer.from('small'))
    await rm(join(t.folder, 'artifacts', lost.slice(0, 2), lost))
    expect(await collectArtifacts(t.redis, store, t.engine.reads)).toBe(0)
    await grow(`${lost}.thumbnail`, 2 * hourMs)
    await store.put(bytes, 'image')
    expect(await collectArtifacts(t.redis, store, t.engine.reads)).toBe(0)
    await rm(join(t.folder, 'artifacts', lost.slice(0, 2), lost))
    expect(await collectArtifacts(t.redis, store, t.engine.reads)).toBe(1)
    expect(await store.openThumbnail(lost)).toBeUndefined()
  })

  it('a thumbnail that is put again while an old one is collected is there afterwards', async () => {
    for (let i = 0; i < 10; i++) {
      const sha256 = await put()
      const bytes = await store.read(sha256)
      await store.putThumbnail(sha256, Buffer.from('old'))
      await rm(join(t.folder, 'artifacts', sha256.slice(0, 2), sha256))
      await grow(`${sha256}.thumbnail`, 2 * hourMs)
      const again = store.put(bytes, 'image').then(() => store.putThumbnail(sha256, Buffer.from('again')))
      await Promise.all([collectArtifacts(t.redis, store, t.engine.reads), again])
      expect((await store.openThumbnail(sha256))?.size).toBe(5)
    }
  })

  it('what is broken or gone is said, never handed out', async () => {
    const sha256 = await put()
    const path = join(t.folder, 'artifacts', sha256.slice(0, 2))
    expect(await readdir(path)).toContain(sha256)
    await expect(store.read('0'.repeat(64))).rejects.toMatchObject({ code: 'artifact.missing' })
    await expect(store.read('../../etc/passwd')).rejects.toBeInstanceOf(DarkroomError)
  })
})
