import { readdir, utimes } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { FileArtifactStore } from '../../src/artifacts/store.ts'
import { DarkroomError } from '../../src/errors.ts'
import { collectArtifacts } from '../../src/artifacts/collector.ts'
import type { Cause } from '../../src/engine/store.ts'
import { startEngine, type TestEngine } from '../support/engine.ts'

const hourMs = 3_600_000

describe('artifacts and the sessions that name them', () => {
  let t: TestEngine
  let store: FileArtifactStore
  beforeAll(async () => {
    t = await startEngine()
    store = new FileArtifactStore(join(t.folder, 'artifacts'))
  })
  afterAll(() => t[Symbol.asyncDispose]())

  let count = 0
  const put = (): Promise<string> => store.put(Buffer.from(`bytes ${count++}`), 'image')
  const grow = async (sha256: string, ageMs: number): Promise<void> => {
    const then = new Date(Date.now() - ageMs)
    await utimes(join(t.folder, 'artifacts', sha256.slice(0, 2), sha256), then, then)
  }
  const resolved = { output: { model: { id: 'm', bodyHash: '0' }, family: 'sd' }, stats: {} }
  /** A session whose first step has named these. */
  const naming = async (...artifacts: Cause['artifacts']): Promise<string> => {
    const id = await t.submit()
    expect((await t.port.deliver(await t.take(id, '1.0'), { ...resolved, artifacts })).isRecorded).toBe(true)
    return id
  }

  it('what nobody names goes when it is older than an hour, not before', async () => {
    const [old, young] = [await put(), await put()]
    await grow(old, hourMs + 10_000)
    await grow(young, hourMs - 10_000)
    expect(await collectArtifacts(store, t.engine.reads)).toBe(1)
    expect([await store.has(old), await store.has(young)]).toEqual([false, true])
    await grow(young, 2 * hourMs)
    expect(await collectArtifacts(store, t.engine.reads)).toBe(1)
  })

  it('what a session names stays, however old: pictures as long as the session is, scratch as long as it runs', async () => {
    const [picture, scratch, checkpoint] = [await put(), await put(), await put()]
    const id = await naming({ group: 'references', sha256: picture }, { group: 'scratch', sha256: scratch })
    await t.port.checkpoint(await t.take(id, '2.0'), { sha256: checkpoint, bytes: 7, call: 1 })
    const all = [picture, scratch, checkpoint]
    const age = (): Promise<void[]> => Promise.all(all.map((sha256) => grow(sha256, 2 * hourMs).catch(() => undefined)))
    const present = (): Promise<boolean[]> => Promise.all(all.map((sha256) => store.has(sha256)))
    await age()
    expect(await collectArtifacts(store, t.engine.reads)).toBe(0)
    await t.engine.control(id, 'cancel')
    expect(await collectArtifacts(store, t.engine.reads)).toBe(2)
    expect(await present()).toEqual([true, false, false])
    await t.engine.remove(id)
    expect(await collectArtifacts(store, t.engine.reads)).toBe(1)
    expect(await present()).toEqual([false, false, false])
  })

  it('of equal pictures the last session that goes takes the bytes along; a retry keeps those of the session it goes on from', async () => {
    const picture = await put()
    const [first, second] = [await naming({ group: 'references', sha256: picture }), await naming({ group: 'references', sha256: picture })]
    await t.engine.control(first, 'cancel')
    await t.engine.control(second, 'cancel')
    const again = await t.engine.retry(second, null)
    await grow(picture, 2 * hourMs)
    await t.engine.remove(first)
    await t.engine.remove(second)
    expect(await collectArtifacts(store, t.engine.reads)).toBe(0)
    await t.engine.control(again.id, 'cancel')
    await t.engine.remove(again.id)
    expect(await collectArtifacts(store, t.engine.reads)).toBe(1)
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
    await collectArtifacts(store, t.engine.reads)
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
    await collectArtifacts(store, t.engine.reads)
    expect(await Promise.all(shas.map((sha256) => store.has(sha256)))).toEqual([false, true, true])
    expect((await t.take(id, '2.0', 2)).checkpoints.map(({ call }) => call)).toEqual([3, 2])
    await t.engine.control(id, 'cancel')
  })

  it('bytes that are put again while old ones of them are collected are there afterwards', async () => {
    for (let i = 0; i < 50; i++) {
      const bytes = Buffer.from(`again ${i}`)
      const sha256 = await store.put(bytes, 'scratch')
      await grow(sha256, 2 * hourMs)
      await Promise.all([collectArtifacts(store, t.engine.reads), store.put(bytes, 'scratch')])
      expect(await store.read(sha256)).toEqual(bytes)
    }
  })

  it('a session that is named while others are deleted is not overlooked', async () => {
    const picture = await put()
    const others = await Promise.all(Array.from({ length: 1200 }, () => t.submit()))
    await naming({ group: 'references', sha256: picture })
    await grow(picture, 2 * hourMs)
    for (const id of others) await t.engine.control(id, 'cancel')
    const deleting = Promise.all(others.map((id) => t.engine.remove(id)))
    expect(await collectArtifacts(store, t.engine.reads)).toBe(0)
    await deleting
    expect(await store.has(picture)).toBe(true)
  })

  it('what is broken or gone is said, never handed out', async () => {
    const sha256 = await put()
    const path = join(t.folder, 'artifacts', sha256.slice(0, 2))
    expect(await readdir(path)).toContain(sha256)
    await expect(store.read('0'.repeat(64))).rejects.toMatchObject({ code: 'artifact.missing' })
    await expect(store.read('../../etc/passwd')).rejects.toBeInstanceOf(DarkroomError)
  })
})
