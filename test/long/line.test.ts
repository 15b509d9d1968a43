/**
 * The line between the processes and Redis breaks: between any two commands of a session's life, after a write whose
 * answer is lost, now and then over a while. Each session must end as if nothing had happened. `FAULT_SEED` repeats the
 * choices, `FAULT_PLACES` makes the walk longer.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { productTimes } from '../../src/engine/times.ts'
import { ended } from '../../src/engine/session.ts'
import type { Receipt, Session } from '../../src/client/index.ts'
import { startFarm, type Farm } from '../support/farm.ts'
import { eventually, sleep } from '../support/wait.ts'
import { chance, either, sometimes, Walk, type Place } from '../support/proxy.ts'

const seed = Number(process.env['FAULT_SEED'] ?? Math.floor(Math.random() * 1e9))
const places = Number(process.env['FAULT_PLACES'] ?? 24)
/** Sessions under way at a time. */
const atOnce = 12
/** How long the line is slow, s. */
const slowS = 300

const input = (i: number): Record<string, unknown> => ({ seed: i, steps: 4 })

let farm: Farm
const say = (text: string): void => void process.stdout.write(`line with FAULT_SEED=${seed}: ${text}\n`)

/** Asks once in a while, as a user would; a refusal is no answer. */
async function untilEnded(id: string, ms: number): Promise<Session> {
  return eventually(
    `${id} ended`,
    async () => {
      await sleep(200)
      const answer = await farm.client.get(`/v1/sessions/${id}`)
      if (answer.status === 503) return undefined
      expect(answer.status).toBe(200)
      const session = answer.json as Session
      return ended.has(session.status) && session
    },
    ms,
  ).catch(async (error: Error) => {
    throw new Error(`${error.message}: ${JSON.stringify(await farm.history(id), null, 1)}\n${farm.lastWords()}`, { cause: error })
  })
}

/** The session ended once, with this picture, and no step has two results. */
async function expectWhole(id: string, session: Session, clean: { picture: string; steps: string[] }): Promise<void> {
  expect(session).toMatchObject({ status: 'succeeded', error: null })
  expect(session.output?.images?.map((image) => image.sha256)).toEqual([clean.picture])
  const { steps } = await eventually(`receipt of ${id}`, async () => {
    const answer = await farm.client.get(`/v1/sessions/${id}/receipt`)
    return answer.status === 200 && (answer.json as Receipt)
  })
  expect(steps.map(({ step }) => step)).toEqual(clean.steps)
  for (const { attempts } of steps) expect(attempts.filter(({ end }) => end === 'completed')).toHaveLength(1)
  expect((await farm.history(id)).filter((event) => ended.has(event.type.replace('session.', '') as Session['status']))).toHaveLength(1)
}

/** Does it n times, at most `atOnce` at a time; the answers in order. */
async function inTurn<T>(n: number, act: (i: number) => Promise<T>): Promise<T[]> {
  const answers: T[] = []
  let next = 0
  const work = async (): Promise<void> => {
    for (let i = next++; i < n; i = next++) answers[i] = await act(i)
  }
  await Promise.all(Array.from({ length: atOnce }, work))
  return answers
}

/** What sessions over an unbroken line give, by seed. */
async function cleanRun(i: number): Promise<{ picture: string; steps: string[] }> {
  const id = await farm.submit(input(i))
  const [picture = ''] = (await untilEnded(id, 30_000)).output?.images?.map((image) => image.sha256) ?? []
  return { picture, steps: (await farm.receipt(id)).steps.map(({ step }) => step) }
}

describe('the line to Redis', { timeout: 120_000 }, () => {
  beforeAll(async () => {
    farm = await startFarm({ workers: 2, times: productTimes, proxied: true, fake: ['--call-ms', '5'] })
  })
  afterAll(() => farm[Symbol.asyncDispose]())

  it('cut between any two commands of a session, or after any one whose answer is lost: it ends once, with the same picture', async () => {
    // Some sessions have a command more than others, for a sweep that met them.
    let [clean, commands] = [await cleanRun(7), Infinity]
    for (let i = 0; i < 4; i++) {
      const count = new Walk([])
      farm.proxy.rule = count.rule
      clean = await cleanRun(7)
      commands = Math.min(commands, ...count.counts.values())
    }
    const draw = chance(seed)
    const all = Array.from({ length: commands }, (_, i) => i + 1).flatMap((at): Place[] => [
      { at, fault: 'cut' },
      { at, fault: 'lose' },
    ])
    const chosen = all.toSorted(() => draw() - 0.5).slice(0, places)
    const walk = new Walk(chosen)
    const before = farm.proxy.hits()
    farm.proxy.rule = walk.rule
    const startedAt = performance.now()
    let submitted = 0
    while (walk.left > 0) {
      if (submitted > 4 * places) throw new Error(`void: ${walk.left} of ${places} places were not reached`)
      const ids = await Promise.all(
        Array.from({ length: Math.min(atOnce, walk.left) }, () => farm.submitSurely(`walk-${submitted++}`, input(7))),
      )
      for (const id of ids) await expectWhole(id, await untilEnded(id, 30_000), clean)
      walk.again()
    }
    farm.proxy.rule = undefined
    const seconds = Math.round((performance.now() - startedAt) / 1000)
    say(
      `${walk.met.length} of ${2 * commands} places in ${submitted} sessions, ${seconds} s; at ${[...new Set(walk.met.map(({ command }) => command))].join(' ')}`,
    )
    expect([...farm.apis, ...farm.workers].filter((process) => !process.isAlive)).toEqual([])
    expect(walk.met).toHaveLength(chosen.length)
    expect(farm.proxy.hits() - before).toBeGreaterThanOrEqual(0.9 * chosen.length)
  })

  it('the answer to each take lost: the same attempts ask again, and no lease is left to end by itself', async () => {
    const takes = new Map<string, number>()
    let lost = 0
    // Every other take of a session: one is lost, and what is sent again for it is answered.
    farm.proxy.rule = ({ name, sessions }) => {
      if (name !== 'takeStep') return undefined
      const count = takes.get(sessions.join(' ')) ?? 0
      takes.set(sessions.join(' '), count + 1)
      if (count % 2 === 1) return undefined
      lost++
      return 'lose'
    }
    const ids = await inTurn(6, (i) => farm.submit(input(i)))
    for (const id of ids) expect((await untilEnded(id, 60_000)).status).toBe('succeeded')
    farm.proxy.rule = undefined
    expect(lost).toBeGreaterThanOrEqual(ids.length)
    for (const id of ids) {
      const { steps } = await farm.receipt(id)
      expect(steps.flatMap(({ attempts }) => attempts.map(({ end }) => end))).toEqual(steps.map(() => 'completed'))
    }
    const { workers } = (await farm.client.get('/v1/workers')).json as { workers: { status: string }[] }
    expect(workers.map(({ status }) => status)).toEqual(['ready', 'ready'])
  })

  it('a submission is 503 when nobody knows; the same key tells whether it was accepted, and it is accepted once', async () => {
    const body = { workflow: 'image-generation', input: { prompt: 'x', ...input(1) }, tags: ['unknown'] }
    const send = async (key: string): Promise<{ status: number; id?: string; code?: string }> => {
      const { status, json } = await farm.client.post('/v1/sessions', body, { 'Idempotency-Key': key })
      return { status, ...(status === 503 ? { code: json.code as string } : { id: json.id as string }) }
    }
    for (const [fault, repeated] of [
      ['lose', 200],
      ['cut', 202],
    ] as const) {
      let isDone = false
      farm.proxy.rule = ({ name }) => {
        if (name !== 'createSession' || isDone) return undefined
        isDone = true
        return fault
      }
      expect(await send(fault)).toEqual({ status: 503, code: 'redis.unavailable' })
      expect(isDone).toBe(true)
      const told = await eventually('the same key tells', async () => {
        const answer = await send(fault)
        return answer.status !== 503 && answer
      })
      expect(told.status).toBe(repeated)
      expect(await send(fault)).toEqual({ status: 200, id: told.id })
      await farm.until(told.id ?? '', 'succeeded')
    }
    expect((await farm.client.get('/v1/sessions?tag=unknown')).json.sessions).toHaveLength(2)
  })

  it('a list whose line breaks is refused, not shortened', async () => {
    const whole = await farm.client.get('/v1/sessions?tag=unknown')
    let count = 0
    farm.proxy.rule = ({ name, isLook }) => (name === 'HGETALL' && isLook && ++count === 2 ? 'cut' : undefined)
    const refused = await farm.client.get('/v1/sessions?tag=unknown')
    expect([refused.status, refused.json.code]).toEqual([503, 'redis.unavailable'])
    const again = await eventually('the list', async () => {
      const answer = await farm.client.get('/v1/sessions?tag=unknown')
      return answer.status === 200 && answer
    })
    expect(again.json).toEqual(whole.json)
  })

  it('5 % of all writes executed and their answers lost, over 40 sessions: none is doubled, none is lost', async () => {
    farm.proxy.rule = undefined
    const clean = await Promise.all(Array.from({ length: 4 }, (_, i) => cleanRun(i)))
    const before = farm.proxy.hits('lose')
    farm.proxy.rule = sometimes(chance(seed), 0.05, 'lose', ({ isWrite }) => isWrite)
    const startedAt = performance.now()
    const ids = await inTurn(40, (i) => farm.submitSurely(`lost-${i}`, input(i % 4), { tags: ['lost'] }))
    const sessions = await Promise.all(ids.map((id) => untilEnded(id, 60_000)))
    farm.proxy.rule = undefined
    const hits = farm.proxy.hits('lose') - before
    say(`${hits} answers lost under 40 sessions, ${Math.round((performance.now() - startedAt) / 1000)} s`)
    expect(hits, 'void: too few answers were lost').toBeGreaterThanOrEqual(20)
    for (const [i, session] of sessions.entries()) await expectWhole(session.id, session, clean[i % 4] ?? { picture: '', steps: [] })
    const { json } = await farm.client.get('/v1/sessions?tag=lost&limit=100')
    expect(new Set((json.sessions as Session[]).map(({ id }) => id))).toEqual(new Set(ids))
  })

  it(
    'slow by 200 ms here and there, with 5 % cuts and drops, for five minutes: all that was accepted ends soon after it',
    { timeout: 600_000 },
    async () => {
      const clean = await cleanRun(2)
      const before = farm.proxy.hits()
      const draw = chance(seed)
      farm.proxy.rule = either(sometimes(draw, 0.04, 'cut'), sometimes(draw, 0.01, 'drop'), sometimes(draw, 0.1, 200))
      const until = performance.now() + slowS * 1000
      const ids: string[] = []
      while (performance.now() < until) {
        ids.push(await farm.submitSurely(`slow-${ids.length}`, input(2), { tags: ['slow'] }))
        await sleep(500)
      }
      farm.proxy.rule = undefined
      const startedAt = performance.now()
      const sessions = await inTurn(ids.length, (i) => untilEnded(ids[i] ?? '', Math.max(1000, startedAt + 60_000 - performance.now())))
      const seconds = Math.round((performance.now() - startedAt) / 1000)
      const hits = farm.proxy.hits() - before
      say(`${hits} faults under ${ids.length} sessions in ${slowS} s, all had ended ${seconds} s later`)
      expect(hits, 'void: too few faults hit live work').toBeGreaterThanOrEqual(ids.length)
      for (const session of sessions) await expectWhole(session.id, session, clean)
    },
  )
})
