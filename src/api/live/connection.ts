/**
 * One live connection. Of its list it is told what it is to say, which all who want the same share; while its caller
 * reads too slowly, it keeps which sessions have changed, and what is the case is read when the caller can take it. So
 * such a caller is told less often, and holds no more memory than others.
 */
import { Bell } from '../../bell.ts'
import type { Caller } from '../../api-keys.ts'
import { fieldProblems, invalidFields, apiError, type DarkroomError } from '../../errors.ts'
import type { Session } from '../../engine/session.ts'
import type { ApiParts } from '../context.ts'
import { seesAll, sightOf } from '../policy.ts'
import { describe } from '../problem.ts'
import { presentEvent, presentSession } from '../sessions/views.ts'
import { tolerant } from '../stream.ts'
import type { Changes, Group } from './changes.ts'
import type { Devices } from './devices.ts'
import { paceMs } from './rounds.ts'
import { frameOf, gone, maxChanged, Shared, stateOf, written, type Member, type SharedLists } from './shared-list.ts'
import type { Turns } from './turns.ts'
import { LiveRequest } from './views.ts'

/** Rounds come this much early or late, ms. */
const slackMs = 20
/** The workers publish once a second. */
const devicesMs = 1000
const historyPage = 500
/** What a connection needs of its socket. */
export interface Outlet {
  /** Whether the caller has taken what was sent. */
  isFree(): boolean
  send(message: string | Buffer): void
}

export interface ConnectionParts extends Pick<ApiParts, 'engine'> {
  changes: Changes
  group: Group
  turns: Turns
  devices: Devices
  caller: Caller
  requestId: string
  outlet: Outlet
}

interface Followed {
  after: number
  hasMore: boolean
}

export class Connection {
  readonly #parts: ConnectionParts
  readonly #bell = new Bell()
  #wanted: LiveRequest = LiveRequest.parse({})
  #refusal: DarkroomError | undefined
  #list: ReturnType<SharedLists['join']> | undefined
  /** Whether the list is to be told anew, and whether it is read for that. */
  #isAnew = false
  #isReading = false
  /** Frames for the list, not yet sent, and sessions of it that could not be told of when they changed. */
  #told: Shared[] = []
  readonly #missed = new Set<string>()
  readonly #followed = new Map<string, Followed>()
  /** Of those that are followed. */
  readonly #changed = new Set<string>()
  readonly #shown = new Map<string, string>()
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
      if (JSON.stringify(wanted.list) !== JSON.stringify(this.#wanted.list)) this.#takeList(wanted.list)
      this.#followed.clear()
      this.#shown.clear()
      for (const [id, after] of Object.entries(wanted.sessions)) {
        this.#followed.set(id, { after, hasMore: true })
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

  /** Tells the caller what there is until the signal aborts. @throws DarkroomError of a defect alone */
  async run(over: AbortSignal): Promise<void> {
    const { changes, group, outlet, turns } = this.#parts
    const pause = new Bell()
    let leave: (() => void) | undefined
    let quit: (() => void) | undefined
    try {
      quit = group.rounds.join({
        isFree: () => outlet.isFree(),
        changed: (ids) => {
          this.#list?.list.changed(ids)
          for (const [id, followed] of this.#followed) if (ids.has(id)) this.#note(id, followed)
        },
        anew: () => {
          this.#beginAnew()
          for (const [id, followed] of this.#followed) this.#note(id, followed)
        },
      })
      leave = await changes.listen()
      while (!over.aborted) {
        await turns.take()
        const startedAt = performance.now()
        const frames = outlet.isFree() ? await this.#frames() : []
        const [first] = frames
        if (first !== undefined) outlet.send(frames.length === 1 && first instanceof Shared ? first.message : `[${frames.join(',')}]`)
        await this.#bell.wait(outlet.isFree() ? devicesMs : paceMs, over)
        const rest = paceMs - slackMs - (performance.now() - startedAt)
        if (rest > 0) await pause.wait(rest, over)
      }
    } finally {
      leave?.()
      quit?.()
      this.#list?.leave()
    }
  }

  #takeList(wanted: LiveRequest['list']): void {
    this.#list?.leave()
    this.#list = wanted && this.#parts.group.lists.join(wanted, this.#parts.caller, this.#member)
    this.#told = []
    this.#missed.clear()
    this.#isAnew = wanted !== undefined
  }

  readonly #member: Member = {
    isFree: () => this.#parts.outlet.isFree(),
    told: (ids, frames) => {
      // What is read now may have been read before.
      if (this.#isReading || !this.#parts.outlet.isFree()) for (const id of ids) this.#missed.add(id)
      else if (!this.#isAnew) this.#told.push(frames)
      if (this.#missed.size > maxChanged) this.#beginAnew()
      this.#bell.ring()
    },
    anew: () => this.#beginAnew(),
  }

  #beginAnew(): void {
    this.#isAnew = this.#wanted.list !== undefined
    this.#told = []
    this.#missed.clear()
    this.#bell.ring()
  }

  #note(id: string, followed: Followed): void {
    followed.hasMore = true
    this.#changed.add(id)
    this.#bell.ring()
  }

  /** Frames as JSON. */
  async #frames(): Promise<(string | Shared)[]> {
    const frames: (string | Shared)[] = []
    if (this.#refusal) frames.push(written({ type: 'problem', problem: describe(this.#refusal, this.#parts.requestId) }))
    this.#refusal = undefined
    if (this.#isAnew) frames.push(...(await this.#snapshot()))
    await this.#list?.list.catchUp()
    frames.push(...this.#told.splice(0))
    if (this.#missed.size > 0) frames.push(...(await this.#late()))
    if (this.#changed.size > 0) frames.push(...(await this.#changes()))
    for (const [id, followed] of this.#followed) if (followed.hasMore) frames.push(...(await this.#history(id, followed)))
    if (this.#wanted.devices && performance.now() - this.#devicesAt >= devicesMs) frames.push(...(await this.#devicesNow()))
    return frames
  }

  async #snapshot(): Promise<string[]> {
    const { list } = this.#wanted
    if (!list) return []
    this.#isAnew = false
    this.#isReading = true
    const page = await tolerant(() => this.#parts.engine.list({ ...list, keyId: sightOf(this.#parts.caller) })).finally(
      () => (this.#isReading = false),
    )
    // The caller may want another list by now.
    if (this.#isAnew || !page) {
      this.#isAnew = true
      return []
    }
    this.#list?.list.show(page.sessions)
    return [written({ type: 'list', sessions: page.sessions.map((session) => presentSession(session)), next: page.next })]
  }

  async #late(): Promise<string[]> {
    const ids = [...this.#missed]
    this.#missed.clear()
    const frames = await this.#list?.list.whatIs(ids)
    if (!frames && this.#list) for (const id of ids) this.#missed.add(id)
    return frames ?? []
  }

  async #changes(): Promise<string[]> {
    const ids = [...this.#changed]
    this.#changed.clear()
    const found = await tolerant(() => this.#parts.changes.get(ids))
    if (found) return ids.map((id, i) => this.#frameOf(id, found[i])).filter((frame) => frame !== undefined)
    for (const id of ids) this.#changed.add(id)
    return []
  }

  /** Of a session that is followed. */
  #frameOf(id: string, session: Session | undefined): string | undefined {
    const { caller } = this.#parts
    if (!this.#followed.has(id)) return undefined
    if (!session || !(seesAll(caller) || session.keyId === caller.keyId)) {
      this.#followed.delete(id)
      return gone(id)
    }
    const before = this.#shown.get(id)
    this.#shown.set(id, stateOf(session))
    return frameOf(session, before)
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
    const { devices, caller } = this.#parts
    this.#devicesAt = performance.now()
    const published = await tolerant(() => devices.of(caller))
    if (!published || published.state === this.#devices) return []
    this.#devices = published.state
    return [published.frame]
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
