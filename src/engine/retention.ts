/**
 * Bounds for Redis and the artifact folder: once a second one process of the farm removes ended sessions that are older
 * than `DARKROOM_KEEP_S`, and the oldest of more than `DARKROOM_KEEP_SESSIONS`, as DELETE does. Their pictures lose a
 * reference, and the collector takes what no session names. An idempotency record stays for its own time, so a late
 * repeat makes no second session.
 *
 * | session | goes |
 * | --- | --- |
 * | open | never |
 * | ended | when its time is over, after the children it left |
 * | a child whose parent is there, open or ended | with its parent |
 * | a child whose parent was deleted | when its time is over |
 *
 * Due are the first of the index of ends; nothing is searched for. Two processes at once do no harm: each removal is
 * one script, and the second one finds nothing.
 */
import { takeTurn } from '../clock.ts'
import type { Config } from '../config.ts'
import { sessionError, unknownSession } from '../errors.ts'
import { keys } from '../keys.ts'
import type { Logger } from '../log.ts'
import type { Redis } from '../redis.ts'
import { Ticker } from '../ticker.ts'
import type { Children } from './children.ts'
import type { Commits } from './commit.ts'
import { Ends } from './ends.ts'
import type { Reads } from './reads.ts'
import type { Undoings } from './undoing.ts'
import { ended, type Session } from './session.ts'
import { indexesOf, type Store } from './store.ts'

const tickMs = 1000
/** Sessions removed at most in one tick of a shard, and how many of them at a time. */
const batch = 500
const atOnce = 50
/** Children looked up at a time. */
const childrenAtOnce = 50
/** How often ends are compared with their index, ms. */
const compareMs = 60_000

export interface RetentionParts {
  redis: Redis
  store: Store
  reads: Reads
  commits: Commits
  children: Children
  undoings: Undoings
  config: Pick<Config, 'keepS' | 'keepSessions' | 'shards'>
  log: Logger
}

export class Retention {
  readonly #parts: RetentionParts
  readonly #ends: Ends
  readonly #ticker: Ticker
  readonly #comparedAt = new Map<number, number>()

  constructor(parts: RetentionParts) {
    this.#parts = parts
    this.#ends = new Ends(parts.redis, parts.reads)
    this.#ticker = new Ticker(
      tickMs,
      () => this.#turn(),
      (error) => parts.log.debug({ err: error }, 'retention interrupted'),
    )
  }

  start(): void {
    const { keepS, keepSessions } = this.#parts.config
    if (keepS > 0 || keepSessions > 0) this.#ticker.start()
  }

  stop(): Promise<void> {
    return this.#ticker.stop()
  }

  async #turn(): Promise<void> {
    // One process of the farm a tick; a holder that dies is waited for no longer than that.
    if (await takeTurn(this.#parts.redis, keys.retention(), tickMs - 100)) await this.sweep()
  }

  /** Removes what is due, `batch` sessions of each shard at most. Returns how many went. */
  async sweep(): Promise<number> {
    const { config, log } = this.#parts
    const keep = config.keepSessions === 0 ? Infinity : Math.ceil(config.keepSessions / config.shards)
    let removed = 0
    for (let shard = 0; shard < config.shards && !this.#ticker.isStopped; shard++) {
      await this.#compare(shard)
      const due = await this.#ends.outlived(shard, config.keepS, keep, batch)
      let left = batch
      for (let from = 0; from < due.length && left > 0 && !this.#ticker.isStopped; from += atOnce) {
        const some = due.slice(from, from + atOnce)
        const share = Math.ceil(left / some.length)
        const counts = await Promise.allSettled(some.map((id) => this.retire(id, share)))
        for (const [i, count] of counts.entries()) {
          if (count.status === 'fulfilled') left -= count.value
          else log.warn({ session: some[i], err: count.reason as unknown }, 'left to the next sweep')
        }
      }
      removed += batch - left
    }
    if (removed > 0) log.info({ removed }, 'removed ended sessions that are no longer kept')
    return removed
  }

  /** Sessions that ended without an entry in the index of ends, under an older version of Darkroom, get theirs. */
  async #compare(shard: number): Promise<void> {
    const now = performance.now()
    if (now - (this.#comparedAt.get(shard) ?? -Infinity) < compareMs) return
    this.#comparedAt.set(shard, now)
    const written = await this.#ends.complete(shard)
    if (written > 0) this.#parts.log.info({ shard, written }, 'indexed the ends of sessions of an older version')
  }

  /**
   * Removes an ended session, and its children before it.
   * @throws DarkroomError `session.unknown`, `session.not_ended`
   */
  async remove(session: Session): Promise<void> {
    if ((await this.#removeTree(session, Infinity, false)) === 0) throw unknownSession(session.id)
  }

  /**
   * Removes an ended session that is kept no longer, and its children before it, `max` sessions at most; a child whose
   * parent is there is left to it. Returns how many went.
   */
  async retire(id: string, max: number): Promise<number> {
    const { reads } = this.#parts
    const session = await reads.get(id)
    if (!session) await this.#ends.forget(id)
    else if (session.parent !== null && (await reads.fields(session.parent, 'status')).status !== null) await this.#ends.spare(id)
    else return this.#removeTree(session, max, true)
    return 0
  }

  async #removeTree(session: Session, max: number, keepsKey: boolean): Promise<number> {
    const { store, reads, commits, children, undoings } = this.#parts
    const { id, parent, status } = session
    if (!ended.has(status)) throw sessionError('not_ended', `session ${id} is ${status}`)
    if (parent !== null && !(await children.part(id)))
      throw sessionError('not_ended', `session ${id} has ${status}, but its parent ${parent} rests and has yet to take that in`)
    let gone = 0
    while (gone < max) {
      const some = await reads.children(id, Math.min(childrenAtOnce, max - gone))
      const share = Math.ceil((max - gone) / some.length)
      const counts = await Promise.all(some.map((child) => this.#removeChild(child, share, keepsKey)))
      const removed = counts.reduce((sum, count) => sum + count, 0)
      if (removed === 0) break
      gone += removed
    }
    if (gone >= max) return gone
    const indexes = indexesOf(session)
    let reply = await store.remove(id, indexes, keepsKey)
    while (reply === 'untold') {
      await children.tell(id)
      await undoings.begin(id)
      reply = await store.remove(id, indexes, keepsKey)
    }
    commits.forget(id)
    return reply === 'ok' ? gone + 1 : gone
  }

  /** Its parent has ended, so it is cancelled by now, or about to be. */
  async #removeChild(id: string, max: number, keepsKey: boolean): Promise<number> {
    const { store, reads } = this.#parts
    await store.control(id, 'cancel')
    const session = await reads.get(id)
    return session ? this.#removeTree(session, max, keepsKey) : 0
  }
}
