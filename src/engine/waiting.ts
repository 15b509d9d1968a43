/** The queue as people see and move it: who waits at which place, why, and for about how long. */
import type { WorkerRecord } from '../farm/record.ts'
import { shardOf, splitStepKey } from '../keys.ts'
import { sessionError, unknownSession } from '../errors.ts'
import { counted } from '../limits.ts'
import type { Admission } from './admission.ts'
import { noModel } from './nearness.ts'
import { forItsTurn, type Lines, type Standing } from './lines.ts'
import { isAllPaused, isOpenTo, type PauseEntry, type Pauses } from './pauses.ts'
import type { Reads } from './reads.ts'
import { recent } from './recent.ts'
import type { Session } from './session.ts'
import { isUrgent } from './preemption.ts'
import { Slots } from './slots.ts'
import { Turns, type Line } from './turns.ts'

/** Why one waits that nothing keeps back but its turn. */
const busy = 'all devices that could draw it are busy'

/** The step of a session that is not there. */
const newcomer = '.'

/** How long what was read of the lines serves for what people see, ms. */
const freshMs = 500

/** One session in line. Position 1 is let in next. */
export interface Place {
  session: string
  position: number
  /** As it was given, and with what waiting has added. */
  priority: number
  level: number
  keyId: string | null
  /** Since when it counts as waiting, and for how long that is. */
  order: number
  waitedMs: number
  /** Where its step would go: a class, a device, those of a class with a model. */
  queue: string
  why: string
  /** About how long until a device begins it, ms; null where nothing was measured, or nobody is let in. */
  startsInMs: number | null
}

/** The place that one would have which came now. */
export interface Newcomer extends Pick<Place, 'queue' | 'position' | 'startsInMs'> {
  /** Why it would wait; null: it is let in at once. */
  why: string | null
}

export interface QueueView {
  places: Place[]
  pauses: PauseEntry[]
  /** Steps that run on devices, and those that come next. */
  running: number
  next: number
}

export interface WaitingParts {
  lines: Lines
  admission: Admission
  pauses: Pauses
  reads: Pick<Reads, 'mustGet' | 'now'>
  workers: () => Promise<WorkerRecord[]>
}

export class WaitingSessions {
  readonly #parts: WaitingParts
  readonly #recent: () => Promise<QueueView & { bySession: ReadonlyMap<string, Place> }>

  constructor(parts: WaitingParts) {
    this.#parts = parts
    this.#recent = recent(freshMs, async () => {
      const view = await this.#look()
      const bySession = new Map<string, Place>()
      for (const place of view.places) if (!bySession.has(place.session)) bySession.set(place.session, place)
      return { ...view, bySession }
    })
  }

  /** All of it, half a second old at most. */
  view(): Promise<QueueView> {
    return this.#recent()
  }

  /** As it is now. */
  latest(): Promise<QueueView> {
    return this.#look()
  }

  /** The place of a session; undefined of one that waits for no turn. */
  async placeOf({ id, waiting }: Pick<Session, 'id' | 'waiting'>): Promise<Place | undefined> {
    return waiting === forItsTurn ? (await this.#recent()).bySession.get(id) : undefined
  }

  /** Where one would stand that came now with this queue, priority and concurrency key. */
  async ofNewcomer({
    queue,
    priority,
    keyId,
    group,
  }: Pick<Line, 'queue' | 'priority' | 'group'> & { keyId: string | null }): Promise<Newcomer> {
    const waiter = { stepKey: newcomer, order: 0, waitedMs: 0 }
    const line: Line = { name: '', shard: 0, queue, priority, key: counted(keyId), group, model: noModel, length: 1, head: [waiter] }
    const { places, standing, open } = await this.#look(line)
    const { position = 1, startsInMs = null, why = '' } = places.find(({ session }) => session === splitStepKey(newcomer).sessionId) ?? {}
    const isLetIn = position === 1 && new Slots(open, standing.holders).fits(queue, isUrgent(line)) && why.startsWith(busy)
    return isLetIn ? { queue, position, startsInMs: 0, why: null } : { queue, position, startsInMs, why }
  }

  async #look(more?: Line): Promise<QueueView & { standing: Standing; open: WorkerRecord[] }> {
    const { lines, admission, pauses, workers } = this.#parts
    const [standing, paused, all, rules] = await Promise.all([lines.read(Infinity), pauses.list(), workers(), admission.rules()])
    const ready = all.filter(({ status }) => status === 'ready')
    const turns = new Turns([...standing.lines, ...(more ? [more] : [])], standing.shares, rules)
    const open = ready.filter((worker) => isOpenTo(paused, worker))
    const estimate = new Estimate(standing, open)
    const slots = { ready: new Slots(ready, []), open: new Slots(open, []) }
    const ceilings = await admission.ceilings(more ? { ...standing, lines: [...standing.lines, more] } : standing)
    const places: Place[] = []
    for (let choice = turns.next(() => true); choice; choice = turns.next(() => true)) {
      const { line, waiter, level } = choice
      const { priority, key, queue } = line
      const startsInMs = estimate.next(queue)
      const why = reason(line, paused, slots, ceilings.reached(line), places.length)
      const { sessionId: session } = splitStepKey(waiter.stepKey)
      const keyId = key === counted(null) ? null : key
      const { order, waitedMs } = waiter
      places.push({ session, position: places.length + 1, priority, level, keyId, order, waitedMs, queue, why, startsInMs })
    }
    const ids = new Set(ready.map(({ id }) => id))
    const running = standing.holders.filter(({ holder }) => ids.has(holder)).length
    return { places, pauses: paused, running, next: standing.holders.length - running, standing, open }
  }

  // ---- moves ----

  /**
   * First of what waits of its API key: it gets the priority of the one that was first, and a place before it.
   * @throws DarkroomError `session.unknown`, `session.not_waiting`, `session.ended`
   */
  front(id: string): Promise<void> {
    return this.#move(id, (others) => {
      const first = others.toSorted((a, b) => b.level - a.level || b.waitedMs - a.waitedMs)[0]
      return first && { priority: first.priority, order: first.order - 1 }
    })
  }

  /** Last of what waits of its API key. @throws as `front` */
  back(id: string): Promise<void> {
    return this.#move(id, (others, now) => {
      const last = others.toSorted((a, b) => a.priority - b.priority || a.waitedMs - b.waitedMs)[0]
      return last && { priority: last.priority, order: Math.max(now, last.order + 1) }
    })
  }

  /**
   * Directly before another one of its API key: it gets the priority of that one, and a place between it and the one
   * that was before it.
   * @throws as `front`; DarkroomError `session.other_key`
   */
  async before(id: string, next: string): Promise<void> {
    if (id === next) return
    const { places } = await this.#look()
    const [own, target] = [this.#inLine(places, id), this.#inLine(places, next)]
    if (!own) throw await this.#notWaiting(id)
    if (!target) throw await this.#notWaiting(next, 'session')
    if (own.keyId !== target.keyId)
      throw sessionError('other_key', `session ${next} is of another API key than ${id}`, { field: 'session' })
    for (const place of placesBefore(own, target, places))
      await this.#moved(place.session, await this.#parts.lines.move(place.session, place.priority, place.order))
  }

  /** Of what runs it counts for the steps to come. @throws DarkroomError `session.unknown`, `session.ended` */
  async prioritize(id: string, priority: number): Promise<void> {
    await this.#moved(id, await this.#parts.lines.move(id, priority, undefined))
  }

  async #move(id: string, to: (others: Place[], now: number) => { priority: number; order: number } | undefined): Promise<void> {
    const { places } = await this.#look()
    const own = this.#inLine(places, id)
    if (!own) throw await this.#notWaiting(id)
    const others = places.filter(({ session, keyId }) => keyId === own.keyId && session !== id)
    const place = to(others, await this.#parts.reads.now(shardOf(id)))
    if (place) await this.#moved(id, await this.#parts.lines.move(id, place.priority, place.order))
  }

  #inLine(places: readonly Place[], id: string): Place | undefined {
    return places.find(({ session }) => session === id)
  }

  /** @throws DarkroomError `session.unknown` */
  async #notWaiting(id: string, field?: string): Promise<Error> {
    const { status } = await this.#parts.reads.mustGet(id)
    const details = { details: { status }, ...(field !== undefined && { field }) }
    return sessionError('not_waiting', `session ${id} is ${status}, and waits for no turn on a device`, details)
  }

  async #moved(id: string, reply: Awaited<ReturnType<Lines['move']>>): Promise<void> {
    if (reply.is === 'missing') throw unknownSession(id)
    if (reply.is === 'ended') throw sessionError('ended', `session ${id} has ${reply.status}`, { details: { status: reply.status } })
    await this.#parts.admission.wake()
  }
}

/**
 * New priorities and orders for `own` to stand directly before `target`. Those that wait since the same millisecond as
 * `target` and stand before it have no room behind them: they move forward a little with it.
 */
export function placesBefore(own: Place, target: Place, places: readonly Place[]): Pick<Place, 'session' | 'priority' | 'order'>[] {
  const line = places.filter(
    ({ keyId, priority, session }) => keyId === own.keyId && priority === target.priority && session !== own.session,
  )
  const tied = line.filter(({ order, position }) => order === target.order && position < target.position)
  const from = Math.max(target.order - 1, ...line.flatMap(({ order }) => (order < target.order ? [order] : [])))
  const moved = [...tied, own]
  const gap = (target.order - from) / (moved.length + 1)
  return moved.map(({ session }, i) => ({ session, priority: target.priority, order: from + (i + 1) * gap }))
}

/** Why the next one of a queue is not let in yet. */
function reason(
  { queue }: Line,
  pauses: readonly PauseEntry[],
  { ready, open }: { ready: Slots; open: Slots },
  limit: string | undefined,
  before: number,
): string {
  if (isAllPaused(pauses)) return 'the queue is paused'
  if (ready.workersOf(queue).length === 0) return 'no ready worker takes from its queue now'
  if (open.workersOf(queue).length === 0) return 'every device that could draw it is paused'
  if (limit !== undefined) return limit
  return before === 0 ? `${busy}; it is next` : `${busy}; ${before} before it`
}

/** When those in line begin, from how long sessions of their queue took of late. */
class Estimate {
  readonly #standing: Standing
  readonly #slots: Slots
  readonly #before = new Map<string, number>()

  constructor(standing: Standing, open: readonly WorkerRecord[]) {
    this.#standing = standing
    this.#slots = new Slots(open, standing.holders)
  }

  /** Of the next one in that queue, ms. What runs is half done on average. */
  next(queue: string): number | null {
    const before = this.#before.get(queue) ?? 0
    this.#before.set(queue, before + 1)
    const workers = this.#slots.workersOf(queue)
    const paceMs = this.#standing.paceMs.get(queue)
    if (workers.length === 0 || paceMs === undefined) return null
    const { holders } = this.#standing
    const running = holders.filter(({ holder }) => workers.includes(holder)).length
    const next = holders.filter(({ holder }) => this.#slots.workersOf(holder).some((id) => workers.includes(id))).length
    return Math.max(0, Math.round((paceMs * (before + next + running / 2)) / workers.length))
  }
}
