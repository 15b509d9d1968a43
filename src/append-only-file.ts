/**
 * Syncs the append-only file of a private Redis to the disk each second. Redis could do it itself (`appendfsync
 * everysec`), but while its sync runs it holds writes back for up to two seconds and answers them all the same: a `kill
 * -9` then loses answered writes. With `appendfsync no` every write is with the kernel before its answer, so only a
 * crash of the machine can lose it. Source: `flushAppendOnlyFile` in Redis' `aof.c`.
 */
import { open, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { Ticker } from './ticker.ts'

const tickMs = 1000

export class AppendOnlyFile {
  readonly #folder: string
  readonly #ticker: Ticker
  /** Bytes of each file that are on the disk, by path. */
  readonly #synced = new Map<string, number>()

  /** @param failed called once for a failure, and again only after a sync has succeeded meanwhile */
  constructor(folder: string, failed: (error: Error) => void) {
    this.#folder = folder
    let isFailing = false
    this.#ticker = new Ticker(
      tickMs,
      async () => {
        await this.sync()
        isFailing = false
      },
      (error) => {
        if (!isFailing) failed(error as Error)
        isFailing = true
      },
    )
    this.#ticker.start()
  }

  /** Bytes of all its parts that are on the disk. */
  get syncedBytes(): number {
    return [...this.#synced.values()].reduce((sum, bytes) => sum + bytes, 0)
  }

  /** Syncs the parts that have grown since. @throws NodeJS.ErrnoException */
  async sync(): Promise<void> {
    const paths = await this.#parts()
    for (const path of this.#synced.keys()) if (!paths.includes(path)) this.#synced.delete(path)
    for (const path of paths) {
      // A rewrite may remove parts at any time; the next turn syncs those that replace them.
      const file = await open(path).catch(unlessGone)
      if (!file) continue
      try {
        const { size } = await file.stat()
        if (size === this.#synced.get(path)) continue
        await file.datasync()
        this.#synced.set(path, size)
      } finally {
        await file.close()
      }
    }
  }

  /** One file up to Redis 6, several in a folder of their own from 7 on. */
  async #parts(): Promise<string[]> {
    const folder = join(this.#folder, 'appendonlydir')
    const names = (await readdir(folder).catch(unlessGone)) ?? []
    return [join(this.#folder, 'appendonly.aof'), ...names.map((name) => join(folder, name))]
  }

  /** Resolves when the sync that runs has ended. */
  stop(): Promise<void> {
    return this.#ticker.stop()
  }
}

function unlessGone(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error
}
