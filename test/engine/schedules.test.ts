/** Schedules over a Redis whose wall clock the test moves: what falls due, once, whatever happens in between. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { KeyStore } from '../../src/api-keys.ts'
import type { Point } from '../../src/engine/points.ts'
import type { Overlap } from '../../src/engine/overlap.ts'
import type { NewSchedule, Occurrence, Schedule } from '../../src/engine/schedules.ts'
import { startEngine, type TestEngine } from '../support/engine.ts'
import { noWallClock } from '../support/wall-clock.ts'

let own: TestEngine
let offset = 0
let dies: Point | undefined
beforeAll(async () => {
  if (noWallClock !== undefined) return
  const at = (point: Point): void => {
    if (point !== dies) return
    dies = undefined
    throw new Error(`died at ${point}`)
  }
  own = await startEngine({ redis: { clock: true }, at, config: { webhookHosts: ['*'] } })
})
afterAll(() => own?.[Symbol.asyncDispose]())
beforeEach(() => {
  dies = undefined
})

const minute = 60_000
/** Lets time pass for Redis alone. */
async function pass(ms: number): Promise<void> {
  offset += ms
  await own.server.setClock(offset)
}

const add = (more: Partial<NewSchedule> = {}): Promise<Schedule> =>
  own.engine.schedules.add({
    name: 'nightly',
    keyId: null,
    mayOperate: true,
    rule: { everyS: 60 },
    overlap: 'allow',
    catchUpS: 3600,
    submission: { workflow: 'image-generation', input: { prompt: 'a red circle' }, priority: 5, tags: [] },
    ...more,
  })

/** What has come of its instants, oldest first. */
async function turn(id: string): Promise<Occurrence[]> {
  await own.engine.schedules.turn()
  return (await own.engine.schedules.get(id, null)).occurrences.toReversed()
}
const kinds = (occurrences: Occurrence[]): string[] => occurrences.map(({ is }) => is)
const statusOf = async (session: string | null | undefined): Promise<string | undefined> => (await own.engine.get(session ?? ''))?.status

describe.skipIf(noWallClock !== undefined)(`a schedule (skipped where no clock can be set: ${noWallClock ?? 'here it can'})`, () => {
  it('starts a session at each of its instants, once, whoever looks and how often; each with a seed of its own', async () => {
    const { id, createdAt } = await add()
    expect(await turn(id)).toEqual([])
    await pass(minute + 1000)
    await Promise.all([own.engine.schedules.turn(), own.engine.schedules.turn()])
    await pass(minute)
    const found = await turn(id)
    expect(found.map(({ instant, is }) => [instant - createdAt, is])).toEqual([
      [minute, 'started'],
      [2 * minute, 'started'],
    ])
    const { sessions } = await own.engine.list({ tag: `schedule:${id}`, keyId: null, limit: 10 })
    expect(new Set(sessions.map((session) => session.id))).toEqual(new Set(found.map(({ session }) => session)))
    expect(new Set(sessions.map(({ input }) => input['seed'])).size).toBe(2)
    await own.engine.schedules.remove(id, null)
  })

  it('that nobody looked at makes up for what is in its catch-up window, and says what it missed', async () => {
    const { id } = await add({ catchUpS: 150 })
    await pass(10 * minute + 1000)
    expect(kinds(await turn(id))).toEqual(['missed', 'started', 'started', 'started'])
    expect(kinds(await turn(id))).toHaveLength(4)
    await own.engine.schedules.remove(id, null)
  })

  it('starts nothing twice when the wall clock is set back, and goes on when it is there again', async () => {
    const { id } = await add()
    await pass(minute + 1000)
    expect(kinds(await turn(id))).toEqual(['started'])
    await pass(-60 * minute)
    expect(kinds(await turn(id))).toEqual(['started'])
    await pass(61 * minute)
    expect(kinds(await turn(id))).toEqual(['started', 'started'])
    await own.engine.schedules.remove(id, null)
  })

  it.each(['schedule.before', 'schedule.started'] as const)('whose process dies at %s has one session for the instant', async (point) => {
    const { id } = await add()
    await pass(minute + 1000)
    dies = point
    expect(await turn(id)).toEqual([])
    expect(dies).toBeUndefined()
    // Until its claim is over.
    await pass(5000)
    expect(kinds(await turn(id))).toEqual(['started'])
    expect((await own.engine.list({ tag: `schedule:${id}`, keyId: null, limit: 10 })).sessions).toHaveLength(1)
    await own.engine.schedules.remove(id, null)
  })

  const overlapping = async (overlap: Overlap): Promise<{ id: string; found: Occurrence[] }> => {
    const { id } = await add({ overlap })
    await pass(minute + 1000)
    await turn(id)
    await pass(2 * minute)
    return { id, found: await turn(id) }
  }

  it('skips what falls due while the session before has not ended (skip)', async () => {
    const { id, found } = await overlapping('skip')
    expect(kinds(found)).toEqual(['started', 'skipped', 'skipped'])
    expect(found[1]?.said).toBe(`session ${found[0]?.session} had not ended`)
    await own.engine.control(found[0]?.session ?? '', 'cancel')
    await pass(minute)
    expect(kinds(await turn(id))).toEqual(['started', 'skipped', 'skipped', 'started'])
    await own.engine.schedules.remove(id, null)
  })

  it('starts it after the session before has ended, one by one (queue)', async () => {
    const { id, found } = await overlapping('queue')
    expect(kinds(found)).toEqual(['started', 'waiting', 'waiting'])
    await own.engine.control(found[0]?.session ?? '', 'cancel')
    await pass(5000)
    const later = await turn(id)
    expect(kinds(later)).toEqual(['started', 'waiting', 'started'])
    expect(later.at(-1)?.instant).toBe(found[1]?.instant)
    await own.engine.schedules.remove(id, null)
  })

  it('cancels the session before (replace)', async () => {
    const { id, found } = await overlapping('replace')
    expect(kinds(found)).toEqual(['started', 'started', 'started'])
    expect(await Promise.all(found.map(({ session }) => statusOf(session)))).toEqual(['cancelled', 'cancelled', 'queued'])
    await own.engine.schedules.remove(id, null)
  })

  it('starts it all the same (allow)', async () => {
    const { id, found } = await overlapping('allow')
    expect(await Promise.all(found.map(({ session }) => statusOf(session)))).toEqual(['queued', 'queued', 'queued'])
    await own.engine.schedules.remove(id, null)
  })

  it('that is paused starts nothing, and makes up for nothing of that; one that is removed starts nothing', async () => {
    const { id } = await add()
    await own.engine.schedules.setPaused(id, null, true)
    await pass(5 * minute)
    expect(await turn(id)).toEqual([])
    await own.engine.schedules.setPaused(id, null, false)
    expect(await turn(id)).toEqual([])
    await pass(minute)
    expect(kinds(await turn(id))).toEqual(['started'])
    await own.engine.schedules.remove(id, null)
    await pass(minute)
    await own.engine.schedules.turn()
    expect((await own.engine.list({ tag: `schedule:${id}`, keyId: null, limit: 10 })).sessions).toHaveLength(1)
  })

  it('whose submission is refused by then, or whose key was revoked, says so and goes on', async () => {
    const { webhook } = await own.engine.webhooks.add('https://example.org/', ['failed'], null)
    const submission = { workflow: 'image-generation', input: { prompt: 'a red circle' }, priority: 5, tags: [], webhook: webhook.id }
    const { id } = await add({ submission })
    await own.engine.webhooks.remove(webhook.id, null)
    await pass(minute + 1000)
    const [refused] = await turn(id)
    expect(refused).toMatchObject({ is: 'refused', said: `there is no webhook "${webhook.id}" (webhook.unknown)` })
    await own.engine.schedules.remove(id, null)

    const keys = new KeyStore(own.redis)
    const { record } = await keys.add('for a while', ['submit'])
    const theirs = await add({ keyId: record.id })
    await keys.revoke(record.id)
    await pass(minute + 1000)
    expect(await turn(theirs.id)).toMatchObject([{ is: 'refused', said: 'its API key is let in no more' }])
    await keys.open()
    await own.engine.schedules.remove(theirs.id, null)
  })
})
