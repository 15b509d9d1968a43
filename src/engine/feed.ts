/**
 * What happens to a session, told at once. A message may be lost: a reader that must not miss an entry also polls the
 * history.
 */
import { keys, sessionOfChannel } from '../keys.ts'
import type { Logger } from '../log.ts'
import { translated, type Redis } from '../redis.ts'
import type { Progress } from './session.ts'

export interface Watcher {
  /** The history has grown. */
  entry(): void
  progress(progress: Progress): void
}

/** Of all sessions. */
export interface Overseer {
  /** Something of this session has changed: its record, its history, its progress; or it is gone. */
  changed(id: string): void
  /** Messages may have been lost. */
  missed(): void
}

export class Feed {
  readonly #subscriber: Redis
  readonly #log: Logger
  readonly #watchers = new Map<string, Set<Watcher>>()
  readonly #overseers = new Set<Overseer>()

  /** The connection is the feed's own: a subscriber can do nothing else. */
  constructor(subscriber: Redis, log: Logger) {
    this.#subscriber = subscriber
    this.#log = log
    subscriber.on('message', (channel: string, message: string) => this.#wake(channel, message))
    subscriber.on('pmessage', (_pattern: string, channel: string) => {
      const id = sessionOfChannel(channel)
      for (const overseer of this.#overseers) overseer.changed(id)
    })
    subscriber.on('ready', () => this.#overseers.forEach((overseer) => overseer.missed()))
  }

  /** Calls back at each change of any session, until the returned function is called. */
  async oversee(overseer: Overseer): Promise<() => void> {
    this.#overseers.add(overseer)
    if (this.#overseers.size === 1) await translated(this.#subscriber.psubscribe(keys.everyEvents()))
    return () => {
      if (!this.#overseers.delete(overseer) || this.#overseers.size > 0) return
      this.#subscriber.punsubscribe(keys.everyEvents()).catch((error: unknown) => this.#log.debug({ err: error }, 'unsubscribe failed'))
    }
  }

  /** Calls back at each new history entry and progress frame, until the returned function is called. */
  async watch(id: string, watcher: Watcher): Promise<() => void> {
    const channel = keys.events(id)
    const watchers = this.#watchers.get(channel) ?? new Set()
    watchers.add(watcher)
    this.#watchers.set(channel, watchers)
    if (watchers.size === 1) await translated(this.#subscriber.subscribe(channel))
    return () => {
      watchers.delete(watcher)
      if (watchers.size > 0 || !this.#watchers.delete(channel)) return
      this.#subscriber.unsubscribe(channel).catch((error: unknown) => this.#log.debug({ err: error }, 'unsubscribe failed'))
    }
  }

  #wake(channel: string, message: string): void {
    for (const watcher of this.#watchers.get(channel) ?? []) {
      if (message === '') watcher.entry()
      else watcher.progress(JSON.parse(message) as Progress)
    }
  }
}
