/**
 * What happens to a session, told at once. A message may be lost: a reader that must not miss an entry also polls the
 * history.
 */
import { keys } from '../keys.ts'
import type { Logger } from '../log.ts'
import { translated, type Redis } from '../redis.ts'
import type { Progress } from './session.ts'

export interface Watcher {
  /** The history has grown. */
  entry(): void
  progress(progress: Progress): void
}

export class Feed {
  readonly #subscriber: Redis
  readonly #log: Logger
  readonly #watchers = new Map<string, Set<Watcher>>()

  /** The connection is the feed's own: a subscriber can do nothing else. */
  constructor(subscriber: Redis, log: Logger) {
    this.#subscriber = subscriber
    this.#log = log
    subscriber.on('message', (channel: string, message: string) => this.#wake(channel, message))
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
