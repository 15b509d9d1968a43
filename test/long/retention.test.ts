import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { readdir, utimes } from 'node:fs/promises'
import { join } from 'node:path'
import { FileArtifactStore } from '../../src/artifacts/store.ts'
import { keys, shardOf } from '../../src/keys.ts'
import { collectArtifacts } from '../../src/artifacts/collector.ts'
import { Engine } from '../../src/engine/engine.ts'
import { connect } from '../../src/redis.ts'
import { startEngine, type TestEngine } from '../support/engine.ts'
import type { Session as SessionView } from '../../src/client/index.ts'
import type { Session } from '../../src/engine/session.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { eventually, sleep } from '../support/wait.ts'
import * as programs from '../support/program.ts'
import { tree, treeChildren } from '../support/programs.ts'

const image = (n: number, more: object = {}): object => ({
  workflow: 'image-generation',
  input: { prompt: 'a red circle', seed: n, steps: 2 },
  ...more,
})

describe('a farm that keeps ended sessions for four seconds', () => {
  let farm: Farm
  beforeAll(async () => {
    farm = await startFarm({ apis: 2, workers: 2, shards: 2, fake: ['--call-ms', '0'], settings: { DARKROOM_KEEP_S: '4' } })
  })
  afterAll(() => farm[Symbol.asyncDispose]())

  /**
   * Submits, and waits in the same call for the end; once more when it was over and gone before the API looked again.
   */
  const draw = async (n: number): Promise<SessionView> =>
    eventually(`${n} drawn`, async () => {
      const session = (await farm.client.post('/v1/sessions', image(n), { Prefer: 'wait=60' })).json as SessionView
      return session.status === 'succeeded' && session
    })
  const wave = (from: number): Promise<SessionView[]> => Promise.all(Array.from({ length: 12 }, (_, i) => draw(from + i)))
  const held = async (): Promise<string[]> => {
    const all = await Promise.all([0, 1].map((shard) => farm.eye.zrange(keys.index(shard, 'all'), '0', '-1')))
    return all.flat()
  }
  const onlyLeft = (...ids: string[]): Promise<unknown> =>
    eventually('all but the live sessions gone', async () => (await held()).toSorted().join() === ids.toSorted().join())
  /** Keys of sessions, whatever they are about; BullMQ and the workers have a bound of their own. */
  const ours = (): Promise<string[]> => farm.eye.keys('darkroom:{s[0-9]*')

  it('is as small after many as before them; open ones stay however old they are, and end as they should', async () => {
    const open = await farm.gate(5, 1)
    const running = await farm.submit({ seed: 5 })
    await farm.untilCall(running, 1)
    const paused = await farm.submit({ seed: 6 })
    await farm.control(paused, 'pause')
    await farm.until(paused, 'paused')
    // Counters of each shard come with its first session.
    await wave(50)
    await onlyLeft(running, paused)
    const before = (await ours()).length

    const pictures: string[] = []
    for (const from of [100, 200])
      pictures.push(...(await wave(from)).flatMap(({ output }) => output?.images?.map(({ sha256 }) => sha256) ?? []))
    expect(new Set(pictures).size).toBe(24)
    await onlyLeft(running, paused)
    expect((await ours()).length).toBeLessThanOrEqual(before)
    for (const key of await farm.eye.keys('darkroom:{q.*')) {
      expect(key).not.toMatch(/:(completed|failed)$/)
      if (key.endsWith(':events')) expect(await farm.eye.xlen(key)).toBeLessThan(1200)
    }

    // An hour later, as far as the files can tell.
    const then = new Date(Date.now() - 2 * 3_600_000)
    const files = async (): Promise<string[]> =>
      (await readdir(farm.artifacts, { recursive: true })).filter((name) => /^..\/[0-9a-f]{64}$/.test(name))
    for (const file of await files()) await utimes(join(farm.artifacts, file), then, then)
    const more = await draw(400)
    const sweeper = connect(farm.redis.url, { patience: 'wait' })
    const engine = new Engine({ redis: sweeper, subscriber: sweeper, ...parts(), sweeps: false })
    await collectArtifacts(sweeper, new FileArtifactStore(farm.artifacts), engine.reads)
    await engine.close()
    sweeper.disconnect()
    const left = (await files()).map((file) => file.slice(3))
    expect(pictures.filter((sha256) => left.includes(sha256))).toEqual([])
    expect(left).toContain(more.output?.images?.[0]?.sha256)
    // A checkpoint or tensor of each session that is open, and what `more` made.
    expect(left.length).toBeLessThan(20)

    await open()
    await farm.control(paused, 'resume')
    for (const id of [running, paused])
      await eventually(`${id} succeeded or gone`, async () => {
        const { status, json } = await farm.client.get(`/v1/sessions/${id}`)
        return status === 404 || (json as SessionView).status === 'succeeded'
      })
    await onlyLeft()
    expect((await ours()).filter((key) => !/:(reserved|clock|turns|totals|use|idempotency:)/.test(key))).toEqual([])
  }, 180_000)

  it('an idempotency key outlives its session: a repeat makes no second one', async () => {
    const send = (): ReturnType<typeof farm.client.post> =>
      farm.client.post('/v1/sessions', image(7), { 'Idempotency-Key': 'kept', Prefer: 'wait=60' })
    const first = await send()
    expect((first.json as SessionView).status).toBe('succeeded')
    await onlyLeft()
    const again = await send()
    expect([again.status, (again.json as { code: string }).code]).toEqual([404, 'session.unknown'])
    const [record] = await farm.eye.keys('darkroom:{s*}:idempotency:*')
    expect(await farm.eye.ttl(record ?? '')).toBeGreaterThan(6 * 86_400)
  })

  it('readers of a session that goes meanwhile see a beginning of its history, or 404, and their stream ends', async () => {
    const ids = await Promise.all(Array.from({ length: 8 }, (_, i) => farm.submit({ seed: 500 + i, steps: 2 })))
    let [whole, streams] = [0, 0]
    const read = async (id: string): Promise<void> => {
      for (let isThere = true; isThere; await sleep(50)) {
        const seen: string[] = []
        try {
          for await (const event of farm.client.events(`/v1/sessions/${id}/events`)) if (event.id !== undefined) seen.push(event.id)
        } catch (error) {
          if (!(error as Error).message.includes('404')) throw error
          isThere = false
        }
        if (!isThere) continue
        streams++
        expect(seen).toEqual(seen.map((_, i) => String(i + 1)))
        if (seen.length > 5) whole++
      }
    }
    await Promise.all(ids.map(read))
    expect(whole).toBeGreaterThanOrEqual(ids.length)
    expect(streams).toBeGreaterThanOrEqual(whole)
    await onlyLeft()
  })

  const parts = (): Pick<ConstructorParameters<typeof Engine>[0], 'config' | 'log'> => ({ config: t.engine.config, log: t.engine.log })
  let t: TestEngine
  beforeAll(async () => {
    t = await startEngine({ shards: 2 })
  })
  afterAll(() => t[Symbol.asyncDispose]())
})

describe('retention, sweep by sweep', () => {
  let t: TestEngine
  let other: Engine
  const keeping = async (config: { keepS?: number; keepSessions?: number }, shards = 1): Promise<void> => {
    t = await startEngine({ shards, ...programs, config: { keepS: 0, keepSessions: 0, ...config } })
    const { config: same, log } = t.engine
    other = new Engine({ redis: t.redis, subscriber: t.redis, config: same, log, ...furtherOf(), sweeps: false })
  }
  const furtherOf = (): Pick<ConstructorParameters<typeof Engine>[0], 'operations'> => ({ operations: t.engine.registry.operations })
  beforeEach(() => {
    t = undefined as never
  })
  afterEach(() => t[Symbol.asyncDispose]())

  const cancelled = async (more: Record<string, unknown> = {}): Promise<string> => {
    const id = await t.submit(more)
    await t.engine.control(id, 'cancel')
    return id
  }
  const there = async (ids: string[]): Promise<string[]> => {
    const sessions = await Promise.all(ids.map((id) => t.engine.get(id)))
    return ids.filter((_, i) => sessions[i] !== undefined)
  }
  /** Keys that name one of these sessions, by name or as a member. */
  const traces = async (ids: string[]): Promise<string[]> => {
    const found: string[] = []
    for (const key of await t.redis.keys('darkroom:{s*}:*')) {
      const type = await t.redis.type(key)
      const members = type === 'zset' ? await t.redis.zrange(key, '0', '-1') : type === 'set' ? await t.redis.smembers(key) : []
      for (const id of ids) if (key.includes(id) || members.some((member) => member.includes(id))) found.push(`${key} ${id}`)
    }
    return found
  }

  it('keeps the last so many that ended, whenever they were made, and every open one', async () => {
    await keeping({ keepSessions: 3 })
    const open = await Promise.all(Array.from({ length: 5 }, () => t.submit()))
    const late = await t.submit()
    const ids: string[] = []
    for (let i = 0; i < 6; i++) ids.push(await cancelled())
    await sleep(2)
    await t.engine.control(late, 'cancel')
    expect(await t.engine.retention.sweep()).toBe(4)
    expect(await there([...open, late, ...ids])).toEqual([...open, late, ...ids.slice(4)])
    expect(await traces(ids.slice(0, 4))).toEqual([])
    expect(await t.engine.retention.sweep()).toBe(0)
  })

  it('with nothing set keeps all of them, for ever', async () => {
    await keeping({})
    const ids = await Promise.all(Array.from({ length: 5 }, () => cancelled()))
    await t.redis.zadd(keys.index(0, 'ended'), 1, ids[0] ?? '')
    expect(await t.engine.retention.sweep()).toBe(0)
    expect(await there(ids)).toEqual(ids)
  })

  it('finds those that ended under a version without an index of ends, on each shard', async () => {
    await keeping({ keepS: 1 }, 3)
    const ids = await Promise.all(Array.from({ length: 40 }, () => cancelled()))
    expect(new Set(ids.map(shardOf)).size).toBe(3)
    for (const shard of [0, 1, 2]) await t.redis.del(keys.index(shard, 'ended'))
    const open = await t.submit()
    await sleep(1100)
    expect(await t.engine.retention.sweep()).toBe(40)
    expect(await there([...ids, open])).toEqual([open])
    expect(await traces(ids)).toEqual([])
  })

  it('two processes that sweep at once, beside retries and deletions, remove each once and lose no picture of a retry', async () => {
    await keeping({ keepSessions: 1 })
    const ids = await Promise.all(Array.from({ length: 120 }, () => t.submit()))
    const sha = (i: number): string => i.toString(16).padStart(64, '0')
    for (const [i, id] of ids.entries()) {
      const output = { model: { id: 'm', bodyHash: '0' }, family: 'sd' }
      await t.port.deliver(await t.take(id, '1.0'), { output, stats: {}, artifacts: [{ group: 'references', sha256: sha(i) }] })
      await t.engine.control(id, 'cancel')
    }
    const retries: [number, Session][] = []
    const refusals: string[] = []
    const retry = async (i: number): Promise<void> => {
      await sleep(Math.random() * 60)
      await t.engine.retry(ids[i] ?? '', { keyId: null }).then(
        (session) => retries.push([i, session]),
        (error: { code: string }) => refusals.push(error.code),
      )
    }
    const remove = async (i: number): Promise<void> => {
      await sleep(Math.random() * 60)
      await t.engine.remove(ids[i] ?? '').catch((error: { code: string }) => refusals.push(error.code))
    }
    // One that is there for certain; below, one that is gone for certain. Of the others chance decides.
    await retry(0)
    await Promise.all([
      ...ids.map((_, i) => (i % 3 === 1 ? remove(i) : i % 3 === 0 && i > 0 ? retry(i) : undefined)),
      ...[t.engine, other].map(async (engine) => {
        for (let i = 0; i < 20; i++) {
          await engine.retention.sweep()
          await sleep(5)
        }
      }),
    ])
    const left = await there(ids)
    await remove(ids.findIndex((id) => !left.includes(id)))
    expect(retries.length).toBeGreaterThan(0)
    expect(new Set(refusals)).toEqual(new Set(['session.unknown']))
    for (const [i, { id }] of retries) {
      expect(await t.redis.smembers(keys.references(id))).toEqual([sha(i)])
      expect(await t.redis.smembers(keys.named(0, sha(i)))).toContain(id)
    }
    // The last that ended is kept, unless it was deleted by hand.
    expect(left.length).toBeLessThanOrEqual(1)
    expect(await traces(ids.filter((id) => !left.includes(id)))).toEqual([])
    const index = await t.redis.zrange(keys.index(0, 'all'), '0', '-1')
    expect(index.toSorted()).toEqual([...left, ...retries.map(([, { id }]) => id)].toSorted())
  })

  it('a child goes with its parent, not before it; a tree too large for one sweep goes from its leaves', async () => {
    await keeping({ keepSessions: 1 }, 3)
    const id = await t.run(tree())
    await t.port.deliver(await t.take(id, '1.0'), { output: { n: 1 }, artifacts: [], stats: {} })
    const { sessions } = await t.engine.list({ parent: id, keyId: null, limit: 10 })
    const children = sessions.map((child) => child.id)
    expect(children).toHaveLength(2)
    const bad = sessions.find(({ input }) => input['path'] === treeChildren.bad)?.id ?? ''
    await t.engine.control(bad, 'cancel')
    await t.engine.children.tell(bad)
    await sleep(2)
    await cancelled()
    for (let i = 0; i < 3; i++) await t.engine.retention.sweep()
    expect(await there([id, ...children])).toEqual([id, ...children])
    await t.engine.control(id, 'cancel')
    await sleep(2)
    await cancelled()
    expect(await t.engine.retention.retire(id, 1)).toBe(1)
    expect((await there([id, ...children])).length).toBe(2)
    expect((await there([id])).length).toBe(1)
    expect(await t.engine.retention.retire(id, 5)).toBe(2)
    expect(await traces([id, ...children])).toEqual([])

    // One that is deleted before its children are made leaves none behind either.
    const brief = await t.run(tree())
    const first = await t.take(brief, '1.0')
    t.engine.children.follow = () => Promise.reject(new Error('died on the way'))
    await t.port.deliver(first, { output: { n: 1 }, artifacts: [], stats: {} })
    delete (t.engine.children as { follow?: unknown }).follow
    await t.engine.control(brief, 'cancel')
    await t.engine.remove(brief)
    const outbox = (await Promise.all([0, 1, 2].map((shard) => t.redis.zrange(keys.outbox(shard), '0', '-1')))).flat()
    const entries = outbox.filter((member) => member.startsWith(`child:${brief}`))
    expect(entries).toHaveLength(2)
    for (const entry of entries) {
      const [, stepKey = '', value = ''] = /^child:([^:]+):(.*)$/s.exec(entry) ?? []
      expect(await other.children.follow(stepKey, value)).toBe(true)
    }
    expect(await traces([brief])).toEqual([])
  })

  it('a child whose parent is paused and has yet to take its end in is not deleted, and runs once', async () => {
    await keeping({ keepS: 1 }, 3)
    const id = await t.run(tree())
    await t.port.deliver(await t.take(id, '1.0'), { output: { n: 1 }, artifacts: [], stats: {} })
    const [child] = (await t.engine.list({ parent: id, keyId: null, limit: 10 })).sessions.filter(
      ({ input }) => input['path'] === treeChildren.good,
    )
    const attempt = await t.take(child?.id ?? '', '1.0')
    await t.engine.control(id, 'pause')
    await t.port.deliver(attempt, { output: { n: 10 }, artifacts: [], stats: {} })
    await t.engine.children.tell(child?.id ?? '')
    await expect(t.engine.remove(child?.id ?? '')).rejects.toMatchObject({ code: 'session.not_ended' })
    await sleep(1100)
    await t.engine.retention.sweep()
    expect(await there([child?.id ?? ''])).toHaveLength(1)
    await t.engine.control(id, 'resume')
    await t.engine.commits.drainInbox(id)
    await t.engine.remove(child?.id ?? '')
    const outbox = (await Promise.all([0, 1, 2].map((shard) => t.redis.zrange(keys.outbox(shard), '0', '-1')))).flat()
    expect(outbox.filter((member) => member.includes(child?.id ?? ''))).toEqual([])
  })
})
