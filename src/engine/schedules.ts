/**
 * Schedules: a submission that is made again and again, by a cron pattern or every so many seconds. What has come of
 * each instant is decided in order, and each decision is one write, which another process' write in between refuses.
 *
 * | an occurrence | when |
 * | --- | --- |
 * | `started` | its session was made, or is there already: its idempotency key follows from schedule and instant |
 * | `skipped` | the session before has not ended (`skip`), or too many wait (`queue`) |
 * | `waiting` | the session before has not ended (`queue`); it starts when that has |
 * | `missed` | nobody was there for longer than the catch-up window |
 * | `refused` | the submission is refused for good, or its API key is let in no more |
 */
import { randomBytes } from 'node:crypto'
import { z } from 'zod'
import type { KeyStore } from '../api-keys.ts'
import { tellTime } from '../clock.ts'
import { DarkroomError, defineErrors } from '../errors.ts'
import { keys } from '../keys.ts'
import type { Logger } from '../log.ts'
import { runScript, translated, type Redis } from '../redis.ts'
import { Ticker } from '../ticker.ts'
import { overlaps } from './overlap.ts'
import type { AtPoint } from './points.ts'
import type { Reads } from './reads.ts'
import { checkRule, nextInstant, Rule } from './schedule-rule.ts'
import { ended, SubmitOptions } from './session.ts'
import type { Store } from './store.ts'
import type { Submissions } from './submit.ts'
import type { Times } from './times.ts'

export const occurrenceStates = ['started', 'skipped', 'waiting', 'missed', 'refused'] as const

const scheduleError = defineErrors('schedule', {
  unknown: { class: 'permanent', remedy: 'Use an id that `GET /v1/schedules` lists.' },
  too_many: { class: 'permanent', remedy: 'Remove schedules that you no longer need.' },
})

/** Schedules that one API key may have. */
const most = 100
/** Occurrences that may wait for the session before, and past ones that are shown. */
const mostWaiting = 100
const keptOccurrences = 20
/** Decisions about one schedule in one turn. */
const decisionsAtOnce = 50
const claimedAtOnce = 100
const tickMs = 500
/** How often it is looked whether the session before has ended. */
const lookMs = 1000

const Occurrence = z.strictObject({
  instant: z.number(),
  is: z.enum(occurrenceStates),
  session: z.string().nullable(),
  /** Why it was not started, in words. */
  said: z.string().nullable(),
})
export type Occurrence = z.infer<typeof Occurrence>

const Schedule = z.strictObject({
  id: z.string(),
  name: z.string(),
  keyId: z.string().nullable(),
  /** Whether its API key had the scope `operate`. */
  mayOperate: z.boolean(),
  createdAt: z.number(),
  rule: Rule,
  overlap: z.enum(overlaps),
  /** How late an occurrence may still start. */
  catchUpS: z.number(),
  submission: z.strictObject({ workflow: z.string(), input: z.record(z.string(), z.unknown()), ...SubmitOptions.shape }),
  isPaused: z.boolean(),
  /** Up to here all is decided. */
  after: z.number(),
  /** Instants that wait for the session before. */
  waiting: z.array(z.number()),
  /** The session of the occurrence that was started last. */
  last: z.string().nullable(),
  /** The latest first. */
  occurrences: z.array(Occurrence),
})
export type Schedule = z.infer<typeof Schedule>
export type NewSchedule = Pick<Schedule, 'name' | 'keyId' | 'mayOperate' | 'overlap' | 'catchUpS' | 'submission'> & {
  rule: { cron: string; timezone: string } | { everyS: number }
}

/** Whose schedules are meant; null sees all. */
type Sight = string | null

export interface SchedulesParts {
  redis: Redis
  reads: Reads
  store: Store
  submissions: Submissions
  keyStore: KeyStore
  times: Pick<Times, 'claimMs'>
  log: Logger
  at: AtPoint | undefined
}

export class Schedules {
  readonly #parts: SchedulesParts
  readonly #ticker: Ticker

  constructor(parts: SchedulesParts) {
    this.#parts = parts
    this.#ticker = new Ticker(
      tickMs,
      () => this.turn(),
      (error) => parts.log.debug({ err: error }, 'schedules wait'),
    )
  }

  start(): void {
    this.#ticker.start()
  }

  stop(): Promise<void> {
    return this.#ticker.stop()
  }

  // ---- what clients ask for ----

  /**
   * @throws DarkroomError `api.invalid`, `schedule.too_many`, and what a submission would be refused with now:
   * `workflow.unknown`, `workflow.forbidden`, `model.unknown`, `webhook.unknown`, …
   */
  async add({ rule, ...given }: NewSchedule): Promise<Schedule> {
    const now = await this.#now()
    const whole: Rule = 'cron' in rule ? rule : { ...rule, from: now }
    checkRule(whole, now)
    await this.#parts.submissions.check(submissionOf(given))
    const id = `sch_${randomBytes(8).toString('hex')}`
    const schedule: Schedule = {
      ...given,
      id,
      createdAt: now,
      rule: whole,
      isPaused: false,
      after: now,
      waiting: [],
      last: null,
      occurrences: [],
    }
    if ((await this.#put(id, '', schedule, now)) === 'full')
      throw scheduleError('too_many', `there are ${most} schedules of this API key, which is the limit`)
    return schedule
  }

  /** Newest first. */
  async list(sight: Sight): Promise<Schedule[]> {
    const all = (await translated(this.#parts.redis.hvals(keys.schedules()))).map(parse)
    return all
      .filter(({ keyId }) => sight === null || keyId === sight)
      .toSorted((a, b) => b.createdAt - a.createdAt || (a.id < b.id ? -1 : 1))
  }

  /** @throws DarkroomError `schedule.unknown`, also for one that is out of sight */
  async get(id: string, sight: Sight): Promise<Schedule> {
    return parse(await this.#text(id, sight))
  }

  /** Nothing that a pause has left out is made up for. @throws DarkroomError `schedule.unknown` */
  async setPaused(id: string, sight: Sight, isPaused: boolean): Promise<Schedule> {
    for (;;) {
      const text = await this.#text(id, sight)
      const schedule = parse(text)
      if (schedule.isPaused === isPaused) return schedule
      const now = await this.#now()
      const next: Schedule = { ...schedule, isPaused, ...(isPaused ? { waiting: [] } : { after: Math.max(schedule.after, now) }) }
      if ((await this.#put(id, text, next, now)) === 'ok') return next
    }
  }

  /** Its sessions go on. @throws DarkroomError `schedule.unknown` */
  async remove(id: string, sight: Sight): Promise<void> {
    while ((await this.#put(id, await this.#text(id, sight), undefined, 0)) !== 'ok');
  }

  // ---- what goes on by itself ----

  /** Decides what is due. */
  async turn(): Promise<void> {
    const { redis, log, times } = this.#parts
    const args = [claimedAtOnce, times.claimMs]
    const due = (await runScript(redis, 'claimDue', keys.dueSchedules(), args)) as unknown as string[]
    // One that fails does not hold up the others; it is due again after its hold.
    await Promise.all(
      due.map((id) => this.#fire(id).catch((error: unknown) => log.warn({ schedule: id, err: error }, 'a schedule is looked at again'))),
    )
  }

  async #fire(id: string): Promise<void> {
    const { redis, at } = this.#parts
    at?.('schedule.before', id)
    for (let i = 0; i < decisionsAtOnce; i++) {
      const text = await translated(redis.hget(keys.schedules(), id))
      if (text === null) return void (await translated(redis.zrem(keys.dueSchedules(), id)))
      const schedule = parse(text)
      const now = await this.#now()
      const decided = await this.#decide(schedule, now)
      const reply = await this.#put(id, text, decided ?? schedule, now)
      if (reply === 'ok' && !decided) return
    }
  }

  /** The schedule after one more decision; undefined when there is nothing to decide now. */
  async #decide(schedule: Schedule, now: number): Promise<Schedule | undefined> {
    const { rule, overlap, catchUpS, after, waiting, isPaused } = schedule
    if (isPaused) return undefined
    const isFree = await this.#isOver(schedule.last)
    const [first] = waiting
    if (first !== undefined && isFree) return this.#started({ ...schedule, waiting: waiting.slice(1) }, first)
    const instant = nextInstant(rule, after)
    if (instant === null || instant > now) return undefined
    const oldest = now - catchUpS * 1000
    if (instant < oldest)
      return noted({ ...schedule, after: oldest - 1 }, { instant, is: 'missed', session: null, said: 'nobody was there in time' })
    const next = { ...schedule, after: instant }
    if (overlap === 'allow' || (isFree && waiting.length === 0)) return this.#started(next, instant)
    if (overlap === 'replace') {
      await this.#parts.store.control(schedule.last ?? '', 'cancel')
      return this.#started(next, instant)
    }
    const left = (is: 'skipped' | 'waiting', said: string): Schedule => noted(next, { instant, is, session: null, said })
    if (overlap === 'skip') return left('skipped', `session ${schedule.last} had not ended`)
    if (waiting.length >= mostWaiting) return left('skipped', `${mostWaiting} occurrences wait already`)
    return { ...left('waiting', `session ${schedule.last} had not ended`), waiting: [...waiting, instant] }
  }

  /** Makes the session of an instant; the same one, however often this is done. */
  async #started(schedule: Schedule, instant: number): Promise<Schedule> {
    const { submissions, keyStore, at } = this.#parts
    const { id, keyId } = schedule
    if ((await keyStore.shutOut([keyId])).size > 0)
      return noted(schedule, { instant, is: 'refused', session: null, said: 'its API key is let in no more' })
    try {
      const submission = { ...submissionOf(schedule), idempotencyKey: `schedule:${id}:${instant}` }
      const { session } = await submissions.start({ ...submission, tags: [...submission.tags, `schedule:${id}`] })
      at?.('schedule.started', id)
      return noted({ ...schedule, last: session.id }, { instant, is: 'started', session: session.id, said: null })
    } catch (error) {
      if (!(error instanceof DarkroomError) || error.class === 'transient' || error.class === 'resource') throw error
      return noted(schedule, { instant, is: 'refused', session: null, said: `${error.message} (${error.code})` })
    }
  }

  async #isOver(session: string | null): Promise<boolean> {
    const found = session === null ? undefined : await this.#parts.reads.get(session)
    return !found || ended.has(found.status)
  }

  async #now(): Promise<number> {
    return (await tellTime(this.#parts.redis, keys.schedulesClock())).wall
  }

  async #text(id: string, sight: Sight): Promise<string> {
    const text = await translated(this.#parts.redis.hget(keys.schedules(), id))
    if (text !== null && (sight === null || parse(text).keyId === sight)) return text
    throw scheduleError('unknown', `there is no schedule ${JSON.stringify(id.slice(0, 64))}`)
  }

  async #put(id: string, known: string, schedule: Schedule | undefined, now: number): Promise<string> {
    const due = schedule && dueAt(schedule, now)
    const args = [id, known, schedule ? JSON.stringify(schedule) : '', most, due ?? '', '']
    return (await runScript(this.#parts.redis, 'putRecord', keys.schedules(), args))[0]
  }
}

const parse = (text: string): Schedule => Schedule.parse(JSON.parse(text))

/** When there is something to decide; undefined: never. */
function dueAt({ rule, after, waiting, isPaused }: Schedule, now: number): number | undefined {
  if (isPaused) return undefined
  const instant = nextInstant(rule, after) ?? undefined
  return waiting.length > 0 ? Math.min(instant ?? Infinity, now + lookMs) : instant
}

const noted = (schedule: Schedule, occurrence: Occurrence): Schedule => ({
  ...schedule,
  occurrences: [occurrence, ...schedule.occurrences.filter(({ instant }) => instant !== occurrence.instant)].slice(0, keptOccurrences),
})

const submissionOf = ({ submission, keyId, mayOperate }: Pick<Schedule, 'submission' | 'keyId' | 'mayOperate'>) => ({
  ...submission,
  keyId,
  mayOperate,
})
