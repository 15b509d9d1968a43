/**
 * Actions over many sessions: pause, resume, cancel, delete or tag all that a filter finds now. Which these are is
 * written down first; then any process of the farm applies the action to some of them at a time, and records how far it
 * has come. One that dies in between leaves those to be done again, which changes nothing the second time.
 */
import { randomBytes } from 'node:crypto'
import { z } from 'zod'
import type { KeyStore } from '../api-keys.ts'
import { tellTime } from '../clock.ts'
import { apiError, DarkroomError, defineErrors } from '../errors.ts'
import { keys } from '../keys.ts'
import type { Logger } from '../log.ts'
import { runScript, translated, translatedAll, type Redis } from '../redis.ts'
import { Ticker } from '../ticker.ts'
import { bulkActions, bulkStates } from './bulk-actions.ts'
import type { AtPoint } from './points.ts'
import type { Reads } from './reads.ts'
import { statuses, SubmitOptions, type Change, type ControlVerb, type Session } from './session.ts'
import type { Times } from './times.ts'

const bulkError = defineErrors('bulk', {
  unknown: { class: 'permanent', remedy: 'Use an id that `GET /v1/bulk` lists.' },
  too_many: { class: 'permanent', remedy: 'Wait until some of them are done, or stop them.' },
})

/** Sessions of one action, and actions that one API key may have under way or to look at. */
const mostSessions = 100_000
const most = 100
/** Sessions at a time; and those that are written down with one command. */
const atOnce = 50
const writtenAtOnce = 5000
/** What is left of an action that was never begun goes after so long, s. */
const leftS = 7 * 86_400
const keptFailures = 20
const claimedAtOnce = 20
const tickMs = 250

const Tags = SubmitOptions.shape.tags.unwrap()
export const BulkFilter = z.strictObject({
  status: z.enum(statuses).optional(),
  workflow: z.string().min(1).max(128).optional(),
  tag: z.string().min(1).max(64).optional(),
  parent: z.string().min(1).max(64).optional(),
})
export const BulkTags = z.strictObject({ add: Tags.default([]), remove: Tags.default([]) })

const Record = z.strictObject({
  id: z.string(),
  keyId: z.string().nullable(),
  action: z.enum(bulkActions),
  filter: BulkFilter,
  tags: BulkTags.nullable(),
  state: z.enum(bulkStates),
  /** Sessions: that it is for, that it was applied to, that refused it. */
  total: z.int(),
  done: z.int(),
  failed: z.int(),
  /** The last refusals. */
  failures: z.array(z.strictObject({ session: z.string(), said: z.string() })),
  createdAt: z.number(),
  endedAt: z.number().nullable(),
})
export type BulkRecord = z.infer<typeof Record>
export type NewBulk = Pick<BulkRecord, 'keyId' | 'action' | 'filter' | 'tags'>

/** Whose are meant; null sees all. */
type Sight = string | null

/** What is done to one session. */
interface Act {
  control(id: string, verb: ControlVerb): Promise<Session>
  change(id: string, change: Change): Promise<Session>
  remove(id: string): Promise<void>
}

export interface BulkParts {
  redis: Redis
  reads: Reads
  keyStore: KeyStore
  act: Act
  times: Pick<Times, 'claimMs'>
  log: Logger
  at: AtPoint | undefined
}

export class Bulk {
  readonly #parts: BulkParts
  readonly #ticker: Ticker

  constructor(parts: BulkParts) {
    this.#parts = parts
    this.#ticker = new Ticker(
      tickMs,
      () => this.turn(),
      (error) => parts.log.debug({ err: error }, 'bulk actions wait'),
    )
  }

  start(): void {
    this.#ticker.start()
  }

  stop(): Promise<void> {
    return this.#ticker.stop()
  }

  // ---- what clients ask for ----

  /** How many sessions a filter finds now, of those in sight. @throws DarkroomError `api.invalid`: too many */
  async count(filter: NewBulk['filter'], sight: Sight): Promise<number> {
    return (await this.#found(filter, sight)).length
  }

  /** @throws DarkroomError `api.invalid`, `bulk.too_many` */
  async add(given: NewBulk, sight: Sight): Promise<BulkRecord> {
    const { redis } = this.#parts
    const sessions = await this.#found(given.filter, sight)
    const now = await this.#now()
    const id = `blk_${randomBytes(8).toString('hex')}`
    const isDone = sessions.length === 0
    const counts = { total: sessions.length, done: 0, failed: 0, failures: [], createdAt: now, endedAt: isDone ? now : null }
    const record: BulkRecord = { ...given, ...counts, id, state: isDone ? 'done' : 'running' }
    await this.#makeRoom(given.keyId)
    for (let from = 0; from < sessions.length; from += writtenAtOnce)
      await translated(redis.rpush(keys.bulkLeft(id), ...sessions.slice(from, from + writtenAtOnce)))
    await translated(redis.expire(keys.bulkLeft(id), leftS))
    if ((await this.#put('', record, now)) === 'full')
      throw bulkError('too_many', `there are ${most} actions of this API key under way, which is the limit`)
    return record
  }

  /** Newest first. */
  async list(sight: Sight): Promise<BulkRecord[]> {
    const all = (await translated(this.#parts.redis.hvals(keys.bulk()))).map(parse)
    return all
      .filter(({ keyId }) => sight === null || keyId === sight)
      .toSorted((a, b) => b.createdAt - a.createdAt || (a.id < b.id ? -1 : 1))
  }

  /** @throws DarkroomError `bulk.unknown`, also for one that is out of sight */
  async get(id: string, sight: Sight): Promise<BulkRecord> {
    return parse(await this.#text(id, sight))
  }

  /** What it was applied to stays so. @throws DarkroomError `bulk.unknown` */
  async halt(id: string, sight: Sight): Promise<BulkRecord> {
    for (;;) {
      const text = await this.#text(id, sight)
      const record = parse(text)
      if (record.state !== 'running') return record
      const now = await this.#now()
      const next: BulkRecord = { ...record, state: 'stopped', endedAt: now }
      if ((await this.#put(text, next, now)) !== 'ok') continue
      await translated(this.#parts.redis.del(keys.bulkLeft(id)))
      return next
    }
  }

  // ---- what goes on by itself ----

  async turn(): Promise<void> {
    const { redis, log, times } = this.#parts
    const due = (await runScript(redis, 'claimDue', keys.dueBulk(), [claimedAtOnce, times.claimMs])) as unknown as string[]
    await Promise.all(
      due.map((id) => this.#advance(id).catch((error: unknown) => log.warn({ bulk: id, err: error }, 'an action is taken up again'))),
    )
  }

  /** Applies an action to the next sessions; others had their turn before it goes on. */
  async #advance(id: string): Promise<void> {
    const { redis, keyStore, at } = this.#parts
    const text = await translated(redis.hget(keys.bulk(), id))
    if (text === null) return void (await translated(redis.zrem(keys.dueBulk(), id)))
    const record = parse(text)
    if ((await keyStore.shutOut([record.keyId])).size > 0) return void (await this.halt(id, null))
    const sessions = await translated(redis.lrange(keys.bulkLeft(id), 0, atOnce - 1))
    at?.('bulk.before', id)
    const refusals = await Promise.all(sessions.map((session) => this.#apply(record, session)))
    at?.('bulk.after', id)
    const failures = sessions.flatMap((session, i) => (refusals[i] === undefined ? [] : [{ session, said: refusals[i] }]))
    const now = await this.#now()
    const isDone = sessions.length < atOnce
    await this.#put(
      text,
      {
        ...record,
        done: record.done + sessions.length - failures.length,
        failed: record.failed + failures.length,
        failures: [...failures.toReversed(), ...record.failures].slice(0, keptFailures),
        ...(isDone && { state: 'done', endedAt: now }),
      },
      now,
      sessions.length,
    )
  }

  /**
   * Why a session refuses the action; undefined when it has taken it, now or before.
   * @throws whatever may be over soon: the whole part is done again then
   */
  async #apply({ action, tags }: BulkRecord, session: string): Promise<string | undefined> {
    const { act, reads } = this.#parts
    try {
      if (action === 'delete') await act.remove(session)
      else if (action === 'tag') {
        const { tags: before } = await reads.mustGet(session)
        await act.change(session, { tags: withTags(before, tags) })
      } else await act.control(session, action)
      return undefined
    } catch (error) {
      if (!(error instanceof DarkroomError) || error.class === 'transient' || error.class === 'resource') throw error
      const isGone = error.code === 'session.unknown' && action === 'delete'
      return isGone ? undefined : error.message
    }
  }

  async #found(filter: NewBulk['filter'], sight: Sight): Promise<string[]> {
    const found: string[] = []
    for await (const ids of this.#parts.reads.ids({ ...filter, keyId: sight })) {
      found.push(...ids)
      if (found.length > mostSessions)
        throw apiError('invalid', `the filter finds more than ${mostSessions} sessions`, { field: 'filter', remedy: 'Narrow the filter.' })
    }
    return found
  }

  /** The oldest that has ended makes room for another one. */
  async #makeRoom(keyId: string | null): Promise<void> {
    const own = (await this.list(null)).filter((record) => record.keyId === keyId)
    const oldest = own.findLast(({ state }) => state !== 'running')
    if (own.length < most || !oldest) return
    const pipeline = this.#parts.redis.pipeline().hdel(keys.bulk(), oldest.id).del(keys.bulkLeft(oldest.id))
    await translatedAll(pipeline)
  }

  async #now(): Promise<number> {
    return (await tellTime(this.#parts.redis, keys.bulkClock())).wall
  }

  async #text(id: string, sight: Sight): Promise<string> {
    const text = await translated(this.#parts.redis.hget(keys.bulk(), id))
    if (text !== null && (sight === null || parse(text).keyId === sight)) return text
    throw bulkError('unknown', `there is no action ${JSON.stringify(id.slice(0, 64))}`)
  }

  async #put(known: string, record: BulkRecord, now: number, did = 0): Promise<string> {
    const due = record.state === 'running' ? now : ''
    const args = [record.id, known, JSON.stringify(record), most, due, did]
    return (await runScript(this.#parts.redis, 'putRecord', keys.bulk(), args))[0]
  }
}

const parse = (text: string): BulkRecord => Record.parse(JSON.parse(text))

const withTags = (before: readonly string[], tags: BulkRecord['tags']): string[] => [
  ...new Set([...before.filter((tag) => !tags?.remove.includes(tag)), ...(tags?.add ?? [])]),
]
