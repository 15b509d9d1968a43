/**
 * Which sessions have changed, for all live connections of one API together. They are told in rounds, a group of them
 * at a time, and a record is read once however many of them show it. What a lost message would have told is found by
 * looking at the newest sessions now and then.
 */
import { tolerant } from '../stream.ts'
import type { Session } from '../../engine/session.ts'
import type { Logger } from '../../log.ts'
import { Ticker } from '../../ticker.ts'
import type { EnginePort } from '../context.ts'
import { Rounds } from './rounds.ts'
import { SharedLists, stateOf } from './shared-list.ts'

/** Groups of connections: what all of 500 say at once takes so long that a request would wait for it. */
const groups = 20
const lookMs = 2000
const looked = 200
/** A record that nothing told of is read again after so long, ms. */
const freshMs = 1000

/** Connections that are told in the same rounds, and of the same lists. */
export interface Group {
  rounds: Rounds
  lists: SharedLists
}

interface Reading {
  at: number
  session: Promise<Session | undefined>
  /** What was read, once it was; `undefined` in it: the session is not there. */
  found?: [Session | undefined]
}

export class Changes {
  readonly #engine: EnginePort
  readonly #groups: readonly Group[]
  /** Connections that listen. */
  #listening = 0
  readonly #read = new Map<string, Reading>()
  readonly #ticker: Ticker
  /** Of sessions that were read or looked at, and may be among the newest. */
  readonly #known = new Map<string, { state: string; createdAt: number }>()
  #hasLooked = false
  #stop: Promise<() => void> | undefined

  constructor(engine: EnginePort, log: Logger) {
    this.#engine = engine
    this.#groups = Array.from({ length: groups }, (_, i) => ({ rounds: new Rounds(i / groups, this), lists: new SharedLists(this, log) }))
    this.#ticker = new Ticker(
      lookMs,
      () => this.#look(),
      (error) => log.debug({ err: error }, 'the newest sessions are looked at again'),
    )
    this.#ticker.start()
  }

  /** The group that a new connection belongs to: one that has the fewest. */
  group(): Group {
    return this.#groups.reduce((least, each) => (each.rounds.size < least.rounds.size ? each : least))
  }

  /** Hears of what changes while connections listen. @throws DarkroomError `redis.unavailable` */
  async listen(): Promise<() => void> {
    if (++this.#listening === 1) this.#begin()
    const leave = (): void => {
      if (--this.#listening === 0) this.#end()
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
    for (const { rounds } of this.#groups) rounds.clear()
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
        for (const { rounds } of this.#groups) rounds.anew()
      },
    })
  }

  #end(): void {
    const stop = this.#stop
    this.#stop = undefined
    for (const { rounds } of this.#groups) rounds.clear()
    this.#known.clear()
    this.#hasLooked = false
    this.#read.clear()
    void stop?.then((end) => end()).catch(() => undefined)
  }

  #changed(id: string): void {
    this.#read.delete(id)
    for (const { rounds } of this.#groups) rounds.changed(id)
  }

  async #look(): Promise<void> {
    if (this.#listening === 0) return
    const now = performance.now()
    for (const [id, { at }] of this.#read) if (now - at > freshMs) this.#read.delete(id)
    const found = await tolerant(() => this.#engine.newest(looked))
    if (!found || this.#listening === 0) return
    const oldest = found.length < looked ? Number.NEGATIVE_INFINITY : (found.at(-1)?.createdAt ?? 0)
    const newest = new Set(found.map(({ id }) => id))
    for (const session of found) {
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
