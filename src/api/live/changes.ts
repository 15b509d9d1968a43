/**
 * Which sessions have changed, for all live connections of one API together. They are told in rounds, and a record is
 * read once a round however many of them show it. What a lost message would have told is found by looking at the newest
 * sessions now and then.
 */
import { tolerant } from '../stream.ts'
import type { Session } from '../../engine/session.ts'
import type { Logger } from '../../log.ts'
import { Ticker } from '../../ticker.ts'
import type { EnginePort } from '../context.ts'

/** Between two rounds, ms: a connection tells its caller no more often. */
export const paceMs = 200
const lookMs = 2000
const looked = 200
/** A record that nothing told of is read again after so long, ms. */
const freshMs = 1000

/** What a session's progress does not change. */
export const stateOf = ({ version, status, waiting }: Session): string => `${version} ${status} ${waiting}`

export interface Listener {
  /** Whether it would say now what it is told. */
  isFree(): boolean
  changed(ids: ReadonlySet<string>): void
  /** What it has shown may be old: it begins anew. */
  anew(): void
}

interface Reading {
  at: number
  session: Promise<Session | undefined>
  /** What was read, once it was; `undefined` in it: the session is not there. */
  found?: [Session | undefined]
}

export class Changes {
  readonly #engine: EnginePort
  readonly #listeners = new Set<Listener>()
  readonly #read = new Map<string, Reading>()
  readonly #ticker: Ticker
  /** What changed since the last round. */
  #pending = new Set<string>()
  #round: NodeJS.Timeout | undefined
  #roundAt = Number.NEGATIVE_INFINITY
  /** Of sessions that were read or looked at, and may be among the newest. */
  readonly #known = new Map<string, { state: string; createdAt: number }>()
  #hasLooked = false
  #stop: Promise<() => void> | undefined

  constructor(engine: EnginePort, log: Logger) {
    this.#engine = engine
    this.#ticker = new Ticker(
      lookMs,
      () => this.#look(),
      (error) => log.debug({ err: error }, 'the newest sessions are looked at again'),
    )
    this.#ticker.start()
  }

  /** @throws DarkroomError `redis.unavailable` */
  async listen(listener: Listener): Promise<() => void> {
    this.#listeners.add(listener)
    if (this.#listeners.size === 1) this.#begin()
    const leave = (): void => {
      if (this.#listeners.delete(listener) && this.#listeners.size === 0) this.#end()
    }
    await this.#stop?.catch((error: unknown) => {
      leave()
      throw error
    })
    return leave
  }

  /** The sessions as they are now; undefined for one that is not there. @throws DarkroomError `redis.unavailable` */
  async get(ids: string[]): Promise<(Session | undefined)[]> {
    const readings = ids.map((id) => this.#reading(id))
    // Most were read already: to wait for each of them, for each connection, would take longer than all else.
    return readings.every(({ found }) => found)
      ? readings.map(({ found }) => found?.[0])
      : Promise.all(readings.map(({ session }) => session))
  }

  async close(): Promise<void> {
    clearTimeout(this.#round)
    await this.#ticker.stop()
  }

  #reading(id: string): Reading {
    const now = performance.now()
    const known = this.#read.get(id)
    if (known && now - known.at < freshMs) return known
    const reading: Reading = { at: now, session: this.#engine.get(id) }
    this.#read.set(id, reading)
    reading.session
      .then((session) => {
        reading.found = [session]
        if (session) this.#known.set(id, { state: stateOf(session), createdAt: session.createdAt })
        else this.#known.delete(id)
      })
      .catch(() => this.#read.delete(id))
    return reading
  }

  #begin(): void {
    this.#stop = this.#engine.oversee({
      changed: (id) => this.#changed(id),
      missed: () => {
        this.#read.clear()
        for (const listener of this.#listeners) listener.anew()
      },
    })
  }

  #end(): void {
    const stop = this.#stop
    this.#stop = undefined
    clearTimeout(this.#round)
    this.#round = undefined
    this.#pending.clear()
    this.#known.clear()
    this.#hasLooked = false
    this.#read.clear()
    void stop?.then((end) => end()).catch(() => undefined)
  }

  #changed(id: string): void {
    this.#read.delete(id)
    this.#pending.add(id)
    this.#round ??= setTimeout(() => void this.#tell(), Math.max(0, this.#roundAt + paceMs - performance.now())).unref()
  }

  async #tell(): Promise<void> {
    this.#roundAt = performance.now()
    this.#round = undefined
    const ids = this.#pending
    this.#pending = new Set()
    // A Redis that is away is asked again by the connections.
    if ([...this.#listeners].some((listener) => listener.isFree())) await this.get([...ids]).catch(() => undefined)
    for (const listener of this.#listeners) listener.changed(ids)
  }

  async #look(): Promise<void> {
    if (this.#listeners.size === 0) return
    const now = performance.now()
    for (const [id, { at }] of this.#read) if (now - at > freshMs) this.#read.delete(id)
    const page = await tolerant(() => this.#engine.list({ keyId: null, limit: looked }))
    if (!page || this.#listeners.size === 0) return
    const oldest = page.next === null ? Number.NEGATIVE_INFINITY : (page.sessions.at(-1)?.createdAt ?? 0)
    const newest = new Set(page.sessions.map(({ id }) => id))
    for (const session of page.sessions) {
      const state = stateOf(session)
      if (this.#hasLooked && this.#known.get(session.id)?.state !== state) this.#changed(session.id)
      this.#known.set(session.id, { state, createdAt: session.createdAt })
    }
    this.#hasLooked = true
    for (const [id, { createdAt }] of this.#known) {
      if (newest.has(id)) continue
      this.#known.delete(id)
      // It is gone, or only no longer among the newest.
      if (createdAt > oldest) this.#changed(id)
    }
  }
}
