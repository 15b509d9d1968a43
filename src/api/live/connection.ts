/**
 * One live connection. It keeps what its caller wants and what has changed of it, never what it would say: that is read
 * when the caller can take it. So a caller who reads slowly is told less often, and holds no more memory than others.
 */
import { Bell } from '../../bell.ts'
import type { Caller } from '../../api-keys.ts'
import { fieldProblems, invalidFields, apiError, type DarkroomError } from '../../errors.ts'
import { matches } from '../../engine/reads.ts'
import type { Progress, Session } from '../../engine/session.ts'
import type { ApiParts } from '../context.ts'
import { presentDevice, presentStatus } from '../devices/views.ts'
import { seesAll, sightOf } from '../policy.ts'
import { describe } from '../problem.ts'
import { presentEvent, presentProgress, presentSession } from '../sessions/views.ts'
import { tolerant } from '../stream.ts'
import { stateOf, type Changes } from './changes.ts'
import { LiveRequest, type LiveFrame } from './views.ts'

/** Between two messages, ms. */
const paceMs = 200
/** The workers publish once a second. */
const devicesMs = 1000
const historyPage = 500
/** More that has changed at once is told by a new snapshot. */
const maxChanged = 500
/** Sessions of which it is remembered how they were shown; beyond them a change is told whole. */
const maxShown = 10_000

/** What a connection needs of its socket. */
export interface Outlet {
  /** Whether the caller has taken what was sent. */
  isFree(): boolean
  send(text: string): void
}

export interface ConnectionParts extends Pick<ApiParts, 'engine'> {
  changes: Changes
  caller: Caller
  requestId: string
  outlet: Outlet
}

interface Followed {
  after: number
  hasMore: boolean
}

const written = (frame: LiveFrame): string => JSON.stringify(frame)

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

export class Connection {
  readonly #parts: ConnectionParts
  readonly #bell = new Bell()
  readonly #changed = new Set<string>()
  readonly #shown = new Map<string, string>()
  readonly #followed = new Map<string, Followed>()
  #wanted: LiveRequest = LiveRequest.parse({})
  #isAnew = false
  #refusal: DarkroomError | undefined
  #devicesAt = Number.NEGATIVE_INFINITY
  #devices = ''

  constructor(parts: ConnectionParts) {
    this.#parts = parts
  }

  /** Takes what the caller wants from now on. What cannot be meant is refused, and changes nothing. */
  take(text: string): void {
    try {
      const wanted = readRequest(text)
      // A list that is told already goes on.
      if (JSON.stringify(wanted.list) !== JSON.stringify(this.#wanted.list)) {
        this.#isAnew = wanted.list !== undefined
        this.#shown.clear()
      }
      this.#followed.clear()
      for (const [id, after] of Object.entries(wanted.sessions)) {
        this.#followed.set(id, { after, hasMore: true })
        this.#shown.delete(id)
        this.#changed.add(id)
      }
      if (!this.#wanted.devices) this.#devices = ''
      this.#wanted = wanted
      this.#refusal = undefined
    } catch (error) {
      this.#refusal = error as DarkroomError
    }
    this.#bell.ring()
  }

  /** Tells the caller what there is until one of the signals aborts. @throws DarkroomError of a defect alone */
  async run(...over: AbortSignal[]): Promise<void> {
    const leave = await this.#parts.changes.listen({
      changed: (id) => this.#note(id),
      anew: () => {
        this.#isAnew = this.#wanted.list !== undefined
        for (const id of this.#followed.keys()) this.#note(id)
        this.#bell.ring()
      },
    })
    try {
      while (!over.some((signal) => signal.aborted)) {
        const frames = this.#parts.outlet.isFree() ? await this.#frames() : []
        if (frames.length > 0) this.#parts.outlet.send(`[${frames.join(',')}]`)
        const startedAt = performance.now()
        await this.#bell.wait(this.#parts.outlet.isFree() ? devicesMs : paceMs, ...over)
        const rest = paceMs - (performance.now() - startedAt)
        if (rest > 0) await new Bell().wait(rest, ...over)
      }
    } finally {
      leave()
    }
  }

  #note(id: string): void {
    const followed = this.#followed.get(id)
    if (followed) followed.hasMore = true
    else if (!this.#wanted.list || this.#isAnew) return
    this.#changed.add(id)
    if (this.#changed.size > maxChanged && this.#wanted.list) {
      this.#isAnew = true
      this.#changed.clear()
      for (const each of this.#followed.keys()) this.#changed.add(each)
    }
    this.#bell.ring()
  }

  /** Frames as JSON. */
  async #frames(): Promise<string[]> {
    const frames: string[] = []
    if (this.#refusal) frames.push(written({ type: 'problem', problem: describe(this.#refusal, this.#parts.requestId) }))
    this.#refusal = undefined
    if (this.#isAnew) frames.push(...(await this.#snapshot()))
    frames.push(...(await this.#changes()))
    for (const [id, followed] of this.#followed) if (followed.hasMore) frames.push(...(await this.#history(id, followed)))
    if (this.#wanted.devices && performance.now() - this.#devicesAt >= devicesMs) frames.push(...(await this.#devicesNow()))
    return frames
  }

  async #snapshot(): Promise<string[]> {
    const { list } = this.#wanted
    if (!list) return []
    this.#isAnew = false
    const page = await tolerant(() => this.#parts.engine.list({ ...list, keyId: sightOf(this.#parts.caller) }))
    if (!page) {
      this.#isAnew = true
      return []
    }
    this.#shown.clear()
    for (const session of page.sessions) this.#shown.set(session.id, stateOf(session))
    return [written({ type: 'list', sessions: page.sessions.map((session) => presentSession(session)), next: page.next })]
  }

  async #changes(): Promise<string[]> {
    const ids = [...this.#changed]
    this.#changed.clear()
    const found = await tolerant(() => Promise.all(ids.map((id) => this.#parts.changes.get(id))))
    if (found) return ids.flatMap((id, i) => this.#frameOf(id, found[i]))
    for (const id of ids) this.#changed.add(id)
    return []
  }

  #frameOf(id: string, session: Session | undefined): string[] {
    const { caller } = this.#parts
    const isVisible = session !== undefined && (seesAll(caller) || session.keyId === caller.keyId)
    const followed = this.#followed.has(id)
    if (!isVisible || !(followed || this.#isListed(session))) {
      const wasShown = this.#shown.delete(id)
      if (!isVisible) this.#followed.delete(id)
      return wasShown || followed ? [written({ type: 'gone', id })] : []
    }
    const [before, state] = [this.#shown.get(id), stateOf(session)]
    if (before !== undefined || this.#shown.size < maxShown) this.#shown.set(id, state)
    if (before !== state) return [wholes.of(session)]
    return session.progress ? [advances.of(session)] : []
  }

  #isListed(session: Session): boolean {
    const { list } = this.#wanted
    return list !== undefined && matches(session, { ...list, keyId: null })
  }

  async #history(id: string, followed: Followed): Promise<string[]> {
    followed.hasMore = false
    const entries = await tolerant(() => this.#parts.engine.history(id, followed.after, historyPage))
    // A full page has more behind it; Redis may be away for a moment.
    followed.hasMore = entries === undefined || entries.length === historyPage
    followed.after = entries?.at(-1)?.id ?? followed.after
    if (followed.hasMore) this.#bell.ring()
    return (entries ?? []).map(({ id: number, event }) => written({ type: 'event', session: id, id: number, event: presentEvent(event) }))
  }

  /** As their workers published them; nothing when they have published nothing new. */
  async #devicesNow(): Promise<string[]> {
    const { engine, caller } = this.#parts
    this.#devicesAt = performance.now()
    const found = await tolerant(() => Promise.all([engine.workers(), engine.devices.default(caller.keyId)]))
    if (!found) return []
    const [workers, own] = found
    const state = workers.map((worker) => `${worker.id} ${worker.status} ${worker.report.sampledAt} ${worker.running.length}`).join('\n')
    if (state === this.#devices) return []
    this.#devices = state
    const devices = workers
      .toSorted((a, b) => (a.device.id < b.device.id ? -1 : 1))
      .map((worker) => {
        const { vitals, running } = presentStatus(worker, caller)
        return { ...presentDevice(worker, own), vitals, running }
      })
    return [written({ type: 'devices', devices })]
  }
}

/** @throws DarkroomError `api.malformed`, `api.invalid` */
function readRequest(text: string): LiveRequest {
  let told: unknown
  try {
    told = JSON.parse(text)
  } catch (error) {
    throw apiError('malformed', 'the message is not well-formed JSON', { cause: error })
  }
  const read = LiveRequest.safeParse(told)
  if (!read.success) throw invalidFields(fieldProblems(read.error.issues, 'message'))
  return read.data
}
