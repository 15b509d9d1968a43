import fc from 'fast-check'
import { spawn } from 'node:child_process'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { keys } from '../../src/keys.ts'
import { reserve, type Capacity, type Need, type Reservation } from '../../src/farm/reservations.ts'
import { connect, runScript, type Redis } from '../../src/redis.ts'
import { nodeArguments } from '../support/program-file.ts'
import { startTestRedis, type TestRedis } from '../support/redis.ts'

const device = 'abcd1234-cuda-0'
const key = keys.reservations(device)
const nothing: Need = { slots: 0, bytes: 0, model: null, modelBytes: 0, priority: 5 }

interface Entry {
  slots: number
  bytes: number
  model: string
  modelBytes: number
  waits: boolean
  until: number
}

describe('reservations of a device', () => {
  let server: TestRedis
  let redis: Redis
  beforeAll(async () => {
    server = await startTestRedis()
    redis = connect(server.url, { patience: 'wait' })
  })
  afterAll(async () => {
    redis.disconnect()
    await server.stop()
  })
  beforeEach(async () => void (await redis.del(key)))

  let count = 0
  const take = (need: Partial<Need>, there: Partial<Capacity> = {}, waitMs = 0, more: { owner?: string; signal?: AbortSignal } = {}) =>
    reserve(redis, {
      device,
      worker: 'w',
      owner: more.owner ?? `owner-${count++}`,
      need: { ...nothing, ...need },
      capacity: () => ({ slots: 1, bytes: 100, ...there }),
      waitMs,
      ...(more.signal && { signal: more.signal }),
    })
  const entries = async (): Promise<Entry[]> => Object.values(await redis.hgetall(key)).map((text) => JSON.parse(text) as Entry)
  const codeOf = (taken: Promise<unknown>): Promise<unknown> =>
    taken.then(
      () => 'reserved',
      (error: { code?: string }) => error.code,
    )

  it('give all or nothing: a free slot is not taken where memory is missing', async () => {
    await using held = await take({ bytes: 60 })
    expect(await codeOf(take({ slots: 1, bytes: 41 }))).toBe('memory.reserved')
    expect(await entries()).toHaveLength(1)
    await using both = await take({ slots: 1, bytes: 40 })
    expect(await codeOf(take({ slots: 1 }))).toBe('memory.reserved')
    expect([await held.renew(), await both.renew()]).toEqual([true, true])
  })

  it('go back at the end of the block, also of one that throws', async () => {
    const failing = async (): Promise<void> => {
      await using _held = await take({ slots: 1, bytes: 100 })
      throw new Error('as a step may')
    }
    await expect(failing()).rejects.toThrow('as a step may')
    expect(await redis.exists(key)).toBe(0)
  })

  it('say what was needed and what is free, with a class that another device may help', async () => {
    await using _held = await take({ bytes: 70 })
    await expect(take({ bytes: 31 })).rejects.toMatchObject({
      code: 'memory.reserved',
      class: 'resource',
      details: { need: { bytes: 31 }, free: { slots: 1, bytes: 30 } },
    })
    await expect(take({ bytes: 101 })).rejects.toMatchObject({ code: 'memory.exhausted', class: 'resource' })
    await expect(take({ slots: 2 })).rejects.toMatchObject({ code: 'memory.exhausted' })
    expect(await entries()).toHaveLength(1)
  })

  it('leave memory to the driver where nobody knows it', async () => {
    await using _one = await take({ bytes: 1e12 }, { bytes: null })
    await using _two = await take({ bytes: 1e12 }, { bytes: null })
    expect(await entries()).toHaveLength(2)
  })

  it('count a model once, however many keep it resident', async () => {
    const there = { slots: 9, bytes: 100 }
    await using _a = await take({ slots: 1, bytes: 10, model: 'm', modelBytes: 70 }, there)
    await using _b = await take({ slots: 1, bytes: 10, model: 'm', modelBytes: 70 }, there)
    expect(await codeOf(take({ bytes: 11 }, there))).toBe('memory.reserved')
    expect(await codeOf(take({ model: 'n', modelBytes: 20 }, there))).toBe('memory.reserved')
  })

  it('are answered the same when the same owner asks again, and renewed by nobody else', async () => {
    await using held = await take({ slots: 1 }, {}, 0, { owner: 'me' })
    await using _again = await take({ slots: 1 }, {}, 0, { owner: 'me' })
    expect(await entries()).toHaveLength(1)
    expect(await runScript(redis, 'holdReservation', key, ['somebody else', 0])).toEqual(['lost'])
    expect(await held.renew()).toBe(true)
  })

  it('never exceed what there is: fifty at once, over and over', async () => {
    const there = { slots: 3, bytes: 100 }
    let [held, most, done, slots] = [0, 0, 0, 0]
    const one = async (i: number): Promise<void> => {
      const bytes = 1 + ((i * 37) % 60)
      await using _held = await take({ slots: 1, bytes, priority: i % 10 }, there, 60_000)
      held += bytes
      slots++
      most = Math.max(most, held)
      expect(slots).toBeLessThanOrEqual(3)
      await delay(5)
      held -= bytes
      slots--
      done++
    }
    await Promise.all(Array.from({ length: 50 }, (_, i) => one(i)))
    expect(done).toBe(50)
    expect(most).toBeLessThanOrEqual(100)
    expect(most).toBeGreaterThan(50)
    expect(await redis.exists(key)).toBe(0)
  })

  it('go to who waits with the higher priority, of equals to the first, and are not taken from who has them', async () => {
    const order: string[] = []
    const first = await take({ slots: 1, priority: 0 })
    const wait = async (name: string, priority: number): Promise<void> => {
      await using _held = await take({ slots: 1, priority }, {}, 60_000)
      order.push(name)
    }
    const waiting = []
    for (const [name, priority] of [
      ['low', 1],
      ['middle', 5],
      ['middle, later', 5],
      ['high', 9],
    ] as const) {
      waiting.push(wait(name, priority))
      while ((await entries()).length < waiting.length + 1) await delay(5)
    }
    expect(await first.renew()).toBe(true)
    expect(order).toEqual([])
    await first[Symbol.asyncDispose]()
    await Promise.all(waiting)
    expect(order).toEqual(['high', 'middle', 'middle, later', 'low'])
  })

  it('keep a place for who waits with the higher priority, but not from what fits beside it', async () => {
    await using first = await take({ bytes: 60 })
    const stop = new AbortController()
    const large = codeOf(take({ bytes: 80, priority: 9 }, {}, 60_000, { signal: stop.signal }))
    while ((await entries()).length < 2) await delay(5)
    expect(await codeOf(take({ bytes: 30, priority: 5 }))).toBe('memory.reserved')
    await using _slot = await take({ slots: 1, priority: 5 })
    stop.abort()
    expect(await large).toBe('memory.reserved')
    await using _small = await take({ bytes: 30, priority: 5 })
    expect(await first.renew()).toBe(true)
  })

  it('are free again some seconds after their holder was killed', async () => {
    const holder = spawn(process.execPath, [...nodeArguments('test/support/reserver.ts'), server.url, device], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    await new Promise((resolve) => holder.stdout.once('data', resolve))
    // It renews: what is alive keeps what it has, past its time to live.
    await delay(6000)
    expect(await codeOf(take({ slots: 1 }))).toBe('memory.reserved')
    holder.kill('SIGKILL')
    const began = performance.now()
    await using _held = await take({ slots: 1 }, {}, 30_000)
    expect(performance.now() - began).toBeGreaterThan(2000)
    expect(await entries()).toHaveLength(1)
  })

  it('that are late are renewed unless somebody has taken their place', async () => {
    const late = async (owner: string): Promise<Reservation> => {
      const held = await take({ slots: 1 }, {}, 0, { owner })
      const entry = JSON.parse((await redis.hget(key, owner)) ?? '') as Entry
      await redis.hset(key, owner, JSON.stringify({ ...entry, until: 1 }))
      return held
    }
    const one = await late('one')
    expect(await one.renew()).toBe(true)
    await one[Symbol.asyncDispose]()
    const two = await late('two')
    await using _other = await take({ slots: 1 })
    expect(await two.renew()).toBe(false)
  })

  it('leave no key behind when nobody comes back for them', async () => {
    await take({ slots: 1 })
    expect(await redis.pttl(key)).toBeGreaterThan(0)
  })

  it('are what a plain model says, whatever is asked in whatever order', async () => {
    const need = fc.record({
      slots: fc.integer({ min: 0, max: 2 }),
      bytes: fc.integer({ min: 0, max: 70 }),
      model: fc.constantFrom(null, 'm', 'n'),
      modelBytes: fc.constant(30),
    })
    const owner = fc.integer({ min: 0, max: 5 })
    const act = fc.oneof(
      fc.record({ is: fc.constant('take' as const), owner, need }),
      fc.record({ is: fc.constant('release' as const), owner }),
    )
    await fc.assert(
      fc.asyncProperty(fc.array(act, { maxLength: 25 }), async (acts) => {
        await redis.del(key)
        const there = { slots: 2, bytes: 100 }
        const held = new Map<number, { need: Omit<Need, 'priority'>; reservation: Reservation }>()
        const sum = (needs: Omit<Need, 'priority'>[]): [number, number] => {
          const models = new Set(needs.flatMap(({ model }) => (model === null ? [] : [model])))
          return [needs.reduce((n, { slots }) => n + slots, 0), needs.reduce((n, { bytes }) => n + bytes, 0) + 30 * models.size]
        }
        for (const each of acts) {
          if (each.is === 'release') {
            await held.get(each.owner)?.reservation[Symbol.asyncDispose]()
            held.delete(each.owner)
            continue
          }
          if (held.has(each.owner)) continue
          const alone = sum([each.need])
          const all = sum([...held.values()].map((other) => other.need).concat(each.need))
          const fits = ([slots, bytes]: [number, number]): boolean => slots <= there.slots && bytes <= there.bytes
          const expected = !fits(alone) ? 'memory.exhausted' : !fits(all) ? 'memory.reserved' : 'reserved'
          const got = await take(each.need, there, 0, { owner: String(each.owner) }).then(
            (reservation) => {
              held.set(each.owner, { need: each.need, reservation })
              return 'reserved'
            },
            (error: { code?: string }) => error.code,
          )
          expect(got).toBe(expected)
        }
        expect((await entries()).filter(({ waits }) => !waits)).toHaveLength(held.size)
      }),
      { numRuns: 60 },
    )
  })
})
