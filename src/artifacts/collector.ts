/**
 * Removes artifacts that no session names any more: every ten minutes, in one process of the farm at a time. What
 * killed writers have left is removed at the start and once a minute.
 */
import { takeTurn } from '../clock.ts'
import { keys } from '../keys.ts'
import type { Logger } from '../log.ts'
import type { Redis } from '../redis.ts'
import { Ticker } from '../ticker.ts'
import { checkIndex, countTurn } from './index-mark.ts'
import type { ArtifactStore } from './store.ts'

const collectMs = 600_000
const sweepMs = 60_000
/** Unnamed artifacts stay this long, ms: a session about to name them has put them within it. */
export const collectAgeMs = 3_600_000

/** What is named, by whom does not matter here. */
export interface Names {
  /** SHA-256 of the artifacts that are named, in pages. */
  named(): AsyncIterable<string[]>
  /** Whether this one is named as a result now. */
  isNamed(sha256: string): Promise<boolean>
}

/**
 * Removes artifacts that nothing has named for an hour. Returns how many.
 * @throws DarkroomError `artifact.index_lost`, `artifact.not_shared` when this Redis is not the index of that store
 */
export async function collectArtifacts(redis: Redis, artifacts: ArtifactStore, names: Names): Promise<number> {
  await countTurn(redis, artifacts)
  const named = new Set<string>()
  for await (const some of names.named()) for (const sha256 of some) named.add(sha256)
  // An index that was lost while it was read has named too little.
  await checkIndex(redis, artifacts)
  // Asked again just before the file goes: a retry may have named it since.
  return artifacts.collect(async (sha256) => named.has(sha256) || (await names.isNamed(sha256)), collectAgeMs)
}

export interface CollectorParts {
  redis: Redis
  artifacts: ArtifactStore
  names: Names
  log: Logger
}

export class Collector {
  readonly #parts: CollectorParts
  readonly #tickers: readonly Ticker[]

  constructor(parts: CollectorParts) {
    this.#parts = parts
    this.#tickers = [new Ticker(collectMs, () => this.#turn(), this.#failed), new Ticker(sweepMs, () => this.#sweep(), this.#failed)]
  }

  readonly #failed = (error: unknown): void => this.#parts.log.warn({ err: error }, 'artifacts were not collected')

  start(): void {
    this.#sweep().catch(this.#failed)
    for (const ticker of this.#tickers) ticker.start()
  }

  async stop(): Promise<void> {
    await Promise.all(this.#tickers.map((ticker) => ticker.stop()))
  }

  async #sweep(): Promise<void> {
    const removed = await this.#parts.artifacts.sweep()
    if (removed > 0) this.#parts.log.info({ removed }, 'removed what killed writers had left in the artifact folder')
  }

  async #turn(): Promise<void> {
    const { redis, artifacts, names, log } = this.#parts
    if (!(await takeTurn(redis, keys.collector(), collectMs / 2))) return
    const removed = await collectArtifacts(redis, artifacts, names)
    if (removed > 0) log.info({ removed }, 'removed artifacts that no session names')
  }
}
