/**
 * What keeps Redis and the artifact folder bounded: once a second one process of the farm removes ended sessions that are older than
 * `DARKROOM_KEEP_S`, and the oldest of more than `DARKROOM_KEEP_SESSIONS`, as DELETE does. Their pictures lose a reference, and the
 * collector takes what nobody names. An idempotency record stays for its own time, so a late repeat makes no second session.
 *
 * | session | goes |
 * | --- | --- |
 * | open | never |
 * | ended | when its time is over, after the children it left |
 * | a child whose parent is there, open or ended | with its parent |
 * | a child whose parent was deleted | when its time is over |
 *
 * Due are the first of the index of ends; nothing is searched for. Two processes at once do no harm: each removal is one script, and who
 * comes second finds nothing.
 */
import type { Engine } from './engine.ts'
import { Ticker } from '../ticker.ts'

const tickMs = 1000
/** Sessions removed at most in one tick of a shard, and how many of them at a time. */
const batch = 500
const atOnce = 50
/** How often ends are compared with their index, ms. */
const compareMs = 60_000

export class Retention {
  readonly #engine: Engine
  readonly #ticker: Ticker
  readonly #comparedAt = new Map<number, number>()

  constructor(engine: Engine) {
    this.#engine = engine
    this.#ticker = new Ticker(
      tickMs,
      () => this.#turn(),
      (error) => engine.log.debug({ err: error }, 'retention interrupted'),
    )
  }

  start(): void {
    const { keepS, keepSessions } = this.#engine.config
    if (keepS > 0 || keepSessions > 0) this.#ticker.start()
  }

  stop(): Promise<void> {
    return this.#ticker.stop()
  }

  async #turn(): Promise<void> {
    // A holder that dies is waited for no longer than a tick.
    if (await this.#engine.store.takeTurn(tickMs - 100)) await this.sweep()
  }

  /** Removes what is due, `batch` sessions of each shard at most. Returns how many went. */
  async sweep(): Promise<number> {
    const { store, config, log } = this.#engine
    const most = config.keepSessions === 0 ? Infinity : Math.ceil(config.keepSessions / store.shards)
    let removed = 0
    for (let shard = 0; shard < store.shards && !this.#ticker.isStopped; shard++) {
      await this.#compare(shard)
      const due = await store.outlived(shard, config.keepS, most, batch)
      let left = batch
      for (let from = 0; from < due.length && left > 0 && !this.#ticker.isStopped; from += atOnce) {
        const some = due.slice(from, from + atOnce)
        const share = Math.ceil(left / some.length)
        const counts = await Promise.allSettled(some.map((id) => this.#engine.retire(id, share)))
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
    const { store } = this.#engine
    const now = performance.now()
    if (now - (this.#comparedAt.get(shard) ?? -Infinity) < compareMs) return
    this.#comparedAt.set(shard, now)
    const written = (await store.endsMissing(shard)) > 0 ? await store.indexEnds(shard) : 0
    if (written > 0) this.#engine.log.info({ shard, written }, 'indexed the ends of sessions of an older version')
  }
}
