import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { keys } from '../../src/keys.ts'
import type { SessionFilter, SessionPage } from '../../src/engine/session.ts'
import { startEngine, type TestEngine } from '../support/engine.ts'

/** Copies a finished session into `ARGV[1]` more, in all its indexes, without a round trip each. */
const copy = `
local base, from, count, at = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local fields = redis.call('HGETALL', base .. 'session:' .. from)
for i = 1, count do
  local id = string.format('0-%026d', i)
  redis.call('HSET', base .. 'session:' .. id, unpack(fields))
  redis.call('HSET', base .. 'session:' .. id, 'createdAt', at - i)
  for _, index in ipairs({ 'all', 'status:cancelled', 'workflow:image-generation', 'tag:many' }) do
    redis.call('ZADD', base .. 'index:' .. index, at - i, id)
  end
end`

/** As many failed as were cancelled, in turns; tagged by their status, with the half they are of as key. */
const halves = `
local base, from, count, at = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local fields = redis.call('HGETALL', base .. 'session:' .. from)
for i = 1, count do
  local id, status, half = string.format('0-%026d', i), i % 2 == 0 and 'failed' or 'cancelled', i <= count / 2 and 'new' or 'old'
  -- A few of each kind have the other one's tag.
  local tag = i % (count / 10) == 0 and 'was-cancelled' or 'was-' .. status
  redis.call('HSET', base .. 'session:' .. id, unpack(fields))
  redis.call('HSET', base .. 'session:' .. id, 'createdAt', at - i, 'status', status, 'tags', cjson.encode({ tag }), 'keyId', half)
  for _, index in ipairs({ 'all', 'status:' .. status, 'workflow:image-generation', 'tag:' .. tag, 'key:' .. half }) do
    redis.call('ZADD', base .. 'index:' .. index, at - i, id)
  end
end`

/**
 * How many commands Redis ran for a page, those inside scripts too: the fewest of three looks, for whatever an engine
 * does in passing is counted with them.
 */
async function cost(t: TestEngine, filter: SessionFilter): Promise<{ commands: number; page: SessionPage }> {
  const commands = async (): Promise<number> => Number(/total_commands_processed:(\d+)/.exec(await t.redis.info('stats'))?.[1])
  const looks: { commands: number; page: SessionPage }[] = []
  for (let i = 0; i < 3; i++) {
    const before = await commands()
    const page = await t.engine.list(filter)
    looks.push({ commands: (await commands()) - before, page })
  }
  return looks.reduce((least, look) => (look.commands < least.commands ? look : least))
}

describe('lists by two large filters', () => {
  const count = 100_000
  const limit = 20
  let t: TestEngine
  beforeAll(async () => {
    t = await startEngine({ shards: 1 })
    const id = await t.submit()
    await t.engine.control(id, 'cancel')
    await t.redis.eval(halves, 1, keys.session('0-').replace(/session:.*/, ''), id, count, await t.engine.reads.now(0))
    // Its looks at the model folders would be counted with the lists' commands.
    await t.engine.models.stop()
  }, 120_000)
  afterAll(() => t[Symbol.asyncDispose]())

  /** All pages: their sessions, and what each cost. */
  async function pages(filter: SessionFilter): Promise<{ ids: string[]; costs: number[] }> {
    const [ids, costs]: [string[], number[]] = [[], []]
    let cursor: string | undefined
    do {
      const { commands, page } = await cost(t, { ...filter, cursor })
      costs.push(commands)
      expect(page.sessions.length).toBeLessThanOrEqual(filter.limit)
      ids.push(...page.sessions.map(({ id }) => id))
      cursor = page.next ?? undefined
    } while (cursor !== undefined)
    return { ids, costs }
  }

  it('share a few, far between: each is found once, newest first, and each page costs a bounded number of commands', async () => {
    const { ids, costs } = await pages({ keyId: null, limit, status: 'failed', tag: 'was-cancelled' })
    expect(ids).toEqual(Array.from({ length: 10 }, (_, i) => `0-${String(((i + 1) * count) / 10).padStart(26, '0')}`))
    // A page looks at some 500 entries, however many there are, and asks the other index for each.
    expect(Math.max(...costs)).toBeLessThan(600)
  })

  it('share none, because one ends before the other begins: that is seen at once', async () => {
    await t.redis.zrem(keys.index(0, 'tag', 'was-cancelled'), `0-${String(count).padStart(26, '0')}`)
    const old = { keyId: 'old', limit, tag: 'new-only' }
    await t.redis.zunionstore(keys.index(0, 'tag', 'new-only'), 1, keys.index(0, 'key', 'new'))
    const { ids, costs } = await pages(old)
    expect(ids).toEqual([])
    expect(costs.length).toBeLessThanOrEqual(2)
  })

  it('share half of each: full pages, all of them', async () => {
    const { ids, costs } = await pages({ keyId: 'new', limit: 200, status: 'failed' })
    expect(ids).toHaveLength(count / 4)
    expect(new Set(ids).size).toBe(count / 4)
    expect(ids).toEqual(ids.toSorted())
    expect(costs.length).toBeLessThanOrEqual(count / 4 / 200 + 1)
  })

  it('a session that goes between two pages takes none of the others with it', async () => {
    const filter: SessionFilter = { keyId: 'new', limit: 10, status: 'cancelled' }
    const first = await t.engine.list(filter)
    const last = first.sessions.at(-1)?.id ?? ''
    for (const index of [keys.index(0, 'key', 'new'), keys.index(0, 'status', 'cancelled')]) await t.redis.zrem(index, last)
    const second = await t.engine.list({ ...filter, cursor: first.next ?? '' })
    expect(second.sessions.map(({ id }) => Number(id.slice(2)))).toEqual(Array.from({ length: 10 }, (_, i) => 21 + 2 * i))
  })
})

describe('lists by filter', () => {
  let few: TestEngine
  let many: TestEngine
  const fill = async (t: TestEngine, count: number): Promise<void> => {
    const id = await t.submit({ tags: ['many'] })
    await t.engine.control(id, 'cancel')
    const at = await t.engine.reads.now(0)
    await t.redis.eval(copy, 1, keys.session('0-').replace(/session:.*/, ''), id, count, at)
    for (let i = 0; i < 5; i++) await t.submit({ tags: ['rare'] })
  }
  beforeAll(async () => {
    few = await startEngine({ shards: 1 })
    many = await startEngine({ shards: 1 })
    await fill(few, 100)
    await fill(many, 100_000)
    // Its looks at the model folders would be counted with the lists' commands.
    await Promise.all([few, many].map((t) => t.engine.models.stop()))
  }, 120_000)
  afterAll(async () => {
    await few[Symbol.asyncDispose]()
    await many[Symbol.asyncDispose]()
  })

  const base: SessionFilter = { keyId: null, limit: 50 }
  const filters: Record<string, SessionFilter> = {
    'no filter': base,
    'status of many': { ...base, status: 'cancelled' },
    'status of few': { ...base, status: 'queued' },
    'tag of many': { ...base, tag: 'many' },
    'tag of few': { ...base, tag: 'rare' },
    'status of many and tag of few': { ...base, status: 'cancelled', tag: 'rare' },
    'status of few and tag of many': { ...base, status: 'queued', tag: 'many' },
    'workflow and status': { ...base, workflow: 'image-generation', status: 'queued' },
    'a key that has none': { ...base, keyId: 'nobody' },
  }

  it.each(Object.entries(filters))('%s: as many commands with 100,000 finished sessions as with 100', async (_, filter) => {
    const small = await cost(few, filter)
    const large = await cost(many, filter)
    expect(large.page.sessions).toHaveLength(small.page.sessions.length)
    expect(large.commands).toBe(small.commands)
    expect(large.commands).toBeLessThan(80)
  })

  it('pages through all of them, each once, newest first', async () => {
    const seen: string[] = []
    let cursor: string | undefined
    do {
      const { sessions, next } = await few.engine.list({ ...base, limit: 17, cursor })
      seen.push(...sessions.map(({ id }) => id))
      cursor = next ?? undefined
    } while (cursor)
    expect(seen).toHaveLength(106)
    expect(new Set(seen)).toHaveProperty('size', 106)
  })
})
