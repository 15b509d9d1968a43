/**
 * A list of sessions, for all live connections that want the same one and see alike: what changes of it is read,
 * compared and written once for all of them. A connection that cannot be told just now keeps which sessions it has
 * missed, never what it would have said.
 */
import type { Caller } from '../../api-keys.ts'
import { matches } from '../../engine/reads.ts'
import type { Standing } from '../../engine/newest.ts'
import type { Progress, Session } from '../../engine/session.ts'
import type { Logger } from '../../log.ts'
import { sightOf } from '../policy.ts'
import { presentProgress, presentSession } from '../sessions/views.ts'
import { tolerant } from '../stream.ts'
import type { Records } from './rounds.ts'
import type { LiveFrame, LiveRequest } from './views.ts'

/** What a session's progress does not change. */
export const stateOf = ({ version, status, waiting }: Standing): string => `${version} ${status} ${waiting}`

/** More that has changed at once is told by a new snapshot. */
export const maxChanged = 500
/** Sessions of which it is remembered how they were shown; beyond them a change is told whole. */
const maxShown = 10_000

export type Wanted = NonNullable<LiveRequest['list']>

export const written = (frame: LiveFrame): string => JSON.stringify(frame)

/** Frames of one record, which all connections are told: written once for all of them. */
class Written {
  readonly #frames = new WeakMap<Session, string>()
  readonly #frameOf: (session: Session) => LiveFrame

  constructor(frameOf: (session: Session) => LiveFrame) {
    this.#frameOf = frameOf
  }

  of(session: Session): string {
    const known = this.#frames.get(session) ?? written(this.#frameOf(session))
    this.#frames.set(session, known)
    return known
  }
}
const wholes = new Written((session) => ({ type: 'session', session: presentSession(session) }))
const advances = new Written(({ id, progress }) => ({ type: 'progress', id, progress: presentProgress(progress as Progress) }))

/** What is said of a session that was shown in another state, or in this one; undefined: nothing. */
export const frameOf = (session: Session, before: string | undefined): string | undefined => {
  if (before !== stateOf(session)) return wholes.of(session)
  return session.progress ? advances.of(session) : undefined
}

export const gone = (id: string): string => written({ type: 'gone', id })

/** Frames that many are told, with commas between them. */
export class Shared {
  readonly #frames: string
  #message: Buffer | undefined

  constructor(frames: string) {
    this.#frames = frames
  }

  toString(): string {
    return this.#frames
  }

  /** The whole message, for who is told nothing else: its bytes are made once. */
  get message(): Buffer {
    this.#message ??= Buffer.from(`[${this.#frames}]`)
    return this.#message
  }
}

export interface Member {
  /** Whether it would say now what it is told. */
  isFree(): boolean
  /** What is to be said of these sessions. */
  told(ids: string[], frames: Shared): void
  /** What it has shown may be old: it begins anew. */
  anew(): void
}

export class SharedList {
  readonly #records: Records
  readonly #failed: (error: unknown) => void
  readonly #filter: Parameters<typeof matches>[1]
  readonly #members = new Set<Member>()
  /** States, of which all members were told. */
  readonly #shown = new Map<string, string>()
  #pending = new Set<string>()
  #round: ReadonlySet<string> | undefined
  #isTelling = false

  constructor(records: Records, filter: Parameters<typeof matches>[1], failed: (error: unknown) => void) {
    this.#records = records
    this.#filter = filter
    this.#failed = failed
  }

  get isEmpty(): boolean {
    return this.#members.size === 0
  }

  join(member: Member): void {
    this.#members.add(member)
  }

  leave(member: Member): void {
    this.#members.delete(member)
  }

  isFree(): boolean {
    return [...this.#members].some((member) => member.isFree())
  }

  /** Of a round, which each member passes on. */
  changed(ids: ReadonlySet<string>): void {
    if (ids === this.#round) return
    this.#round = ids
    for (const id of ids) this.#pending.add(id)
    if (this.#pending.size > maxChanged) this.anew()
    else void this.catchUp()
  }

  anew(): void {
    this.#pending.clear()
    this.#shown.clear()
    for (const member of this.#members) member.anew()
  }

  /** Tells the members what has changed, when one of them can hear it. */
  async catchUp(): Promise<void> {
    if (this.#isTelling || this.#pending.size === 0 || !this.isFree()) return
    this.#isTelling = true
    const ids = [...this.#pending]
    this.#pending = new Set()
    try {
      const found = await tolerant(() => this.#records.get(ids))
      if (found) this.#tell(ids, found)
      // Redis is away: asked again with what changes next, or by a member.
      else for (const id of ids) this.#pending.add(id)
    } catch (error) {
      this.#failed(error)
    } finally {
      this.#isTelling = false
    }
  }

  /** What is the case with sessions that a member was not told of in time; undefined while Redis is away. */
  async whatIs(ids: string[]): Promise<string[] | undefined> {
    const found = await tolerant(() => this.#records.get(ids))
    return found?.map((session, i) => (session && matches(session, this.#filter) ? wholes.of(session) : gone(ids[i] ?? '')))
  }

  /** A member's snapshot shows these. One that another was shown otherwise is told whole when it changes. */
  show(sessions: Session[]): void {
    for (const session of sessions) {
      const [before, state] = [this.#shown.get(session.id), stateOf(session)]
      if (before === undefined && this.#shown.size >= maxShown) continue
      this.#shown.set(session.id, before === undefined || before === state ? state : '')
    }
  }

  #tell(ids: string[], found: (Session | undefined)[]): void {
    const told: string[] = []
    const frames: string[] = []
    for (const [i, id] of ids.entries()) {
      const frame = this.#next(id, found[i])
      if (frame === undefined) continue
      told.push(id)
      frames.push(frame)
    }
    if (told.length === 0) return
    const shared = new Shared(frames.join(','))
    for (const member of this.#members) member.told(told, shared)
  }

  #next(id: string, session: Session | undefined): string | undefined {
    if (!session || !matches(session, this.#filter)) return this.#shown.delete(id) ? gone(id) : undefined
    const before = this.#shown.get(id)
    if (before !== undefined || this.#shown.size < maxShown) this.#shown.set(id, stateOf(session))
    return frameOf(session, before)
  }
}

/** The lists that are wanted now. */
export class SharedLists {
  readonly #records: Records
  readonly #log: Logger
  readonly #lists = new Map<string, SharedList>()

  constructor(records: Records, log: Logger) {
    this.#records = records
    this.#log = log
  }

  join(wanted: Wanted, caller: Caller, member: Member): { list: SharedList; leave: () => void } {
    // How long a snapshot is concerns its reader alone.
    const filter = { ...wanted, limit: undefined, keyId: sightOf(caller) }
    const name = JSON.stringify(filter)
    const list =
      this.#lists.get(name) ?? new SharedList(this.#records, filter, (error) => this.#log.error({ err: error }, 'a list could not be told'))
    this.#lists.set(name, list)
    list.join(member)
    const leave = (): void => {
      list.leave(member)
      if (list.isEmpty) this.#lists.delete(name)
    }
    return { list, leave }
  }
}
