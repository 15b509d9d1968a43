/**
 * Which sessions have changed, for all live connections of one API together: a record is read once however many of them
 * show it. What a lost message would have told is found by looking at the newest sessions now and then.
 */
import { tolerant } from '../stream.ts'
import type { Session } from '../../engine/session.ts'
import type { Logger } from '../../log.ts'
import { Ticker } from '../../ticker.ts'
import type { EnginePort } from '../context.ts'

const lookMs = 2000
const looked = 200
/** A record that nothing told of is read again after so long, ms. */
const freshMs = 1000

/** What a session's progress does not change. */
export const stateOf = ({ version, status, waiting }: Session): string => `${version} ${status} ${waiting}`

export interface Listener {
  changed(id: string): void
  /** What it has shown may be old: it begins anew. */
  anew(): void
}

export class Changes {
  readonly #engine: EnginePort
  readonly #listeners = new Set<Listener>()
  readonly #read = new Map<string, { at: number; session: Promise<Session | undefined> }>()
  readonly #ticker: Ticker
  /** State of the newest sessions at the last look. */
  #known = new Map<string, string>()
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

  /** The session as it is now; undefined when it is not there. @throws DarkroomError `redis.unavailable` */
  get(id: string): Promise<Session | undefined> {
    const now = performance.now()
    const known = this.#read.get(id)
    if (known && now - known.at < freshMs) return known.session
    const session = this.#engine.get(id)
    this.#read.set(id, { at: now, session })
    session.catch(() => this.#read.delete(id))
    return session
  }

  async close(): Promise<void> {
    await this.#ticker.stop()
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
    this.#known.clear()
    this.#read.clear()
    void stop?.then((end) => end()).catch(() => undefined)
  }

  #changed(id: string): void {
    this.#read.delete(id)
    for (const listener of this.#listeners) listener.changed(id)
  }

  async #look(): Promise<void> {
    if (this.#listeners.size === 0) return
    const now = performance.now()
    for (const [id, { at }] of this.#read) if (now - at > freshMs) this.#read.delete(id)
    const page = await tolerant(() => this.#engine.list({ keyId: null, limit: looked }))
    if (!page) return
    const before = this.#known
    this.#known = new Map(page.sessions.map((session) => [session.id, stateOf(session)]))
    if (before.size === 0) return
    for (const [id, state] of this.#known) if (before.get(id) !== state) this.#changed(id)
    // Gone, or no longer among the newest: who shows it finds out.
    for (const id of before.keys()) if (!this.#known.has(id)) this.#changed(id)
  }
}
