/**
 * Tells which folders have changed. One watch a folder and none a file: the walk knows the folders already, and a
 * library such as chokidar would read the tree a second time and watch each file, of which a user may watch some
 * thousand in all. A folder of a network file system is not watched: it does not tell what others change, and to begin
 * a watch of one that hangs would stop this process. The slow rescan looks there.
 */
import { watch, type FSWatcher } from 'node:fs'
import { statfs } from 'node:fs/promises'
import { basename } from 'node:path'

/** Magic numbers of file systems that are reached over a network or through another process (statfs(2)). */
const remote = new Set([0x6969, 0x517b, 0xfe534d42, 0xff534d42, 0x65735546, 0x01021997, 0x00c36400, 0x5346414f, 0x0bd00bd0, 0x73757245])

export class FolderWatch {
  readonly #changed: () => void
  readonly #failed: (error: Error) => void
  /** By path; null where it is not watched. */
  readonly #watchers = new Map<string, FSWatcher | null>()
  readonly #folderOf = new Map<string, string>()
  readonly #dirty = new Set<string>()

  /** `changed` is called at each change, often many times in a row. */
  constructor(changed: () => void, failed: (error: Error) => void) {
    this.#changed = changed
    this.#failed = failed
  }

  /** Whether something has changed since the last `take`. */
  get hasChanges(): boolean {
    return this.#dirty.size > 0
  }

  /** Folders that have changed since the last call. */
  take(): string[] {
    const folders = [...this.#dirty]
    this.#dirty.clear()
    return folders
  }

  /** Begins to watch a folder, before it is read: nothing is missed that comes after. Its changes concern `folder`. */
  async arrive(path: string, folder: string): Promise<void> {
    this.#folderOf.set(path, folder)
    if (this.#watchers.has(path)) return
    const watcher = await this.#start(path)
    if (watcher !== undefined) this.#watchers.set(path, watcher)
  }

  /** From now on these and no others. */
  async update(watched: Iterable<{ path: string; folder: string }>): Promise<void> {
    const now = new Map(Array.from(watched, ({ path, folder }) => [path, folder]))
    for (const path of this.#folderOf.keys()) {
      if (now.has(path)) continue
      this.#folderOf.delete(path)
      this.#watchers.get(path)?.close()
      this.#watchers.delete(path)
    }
    for (const [path, folder] of now) {
      if (this.#watchers.has(path)) continue
      await this.arrive(path, folder)
      // What came between the look at it and the start of its watch.
      if (this.#watchers.get(path)) this.#note(path)
    }
  }

  /** null where nothing is to be watched; undefined when it failed, and is tried again. */
  async #start(path: string): Promise<FSWatcher | null | undefined> {
    try {
      if (remote.has((await statfs(path)).type)) return null
      const end = (): void => {
        watcher.close()
        this.#watchers.delete(path)
        this.#note(path)
      }
      const watcher = watch(path, { persistent: false }, (what, name) => {
        // So Linux tells that the folder itself is gone: one that takes its place is another.
        if (what === 'rename' && name === basename(path)) end()
        else this.#note(path)
      })
      watcher.on('error', end)
      return watcher
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') this.#failed(error as Error)
      return undefined
    }
  }

  #note(path: string): void {
    const folder = this.#folderOf.get(path)
    if (folder === undefined) return
    this.#dirty.add(folder)
    this.#changed()
  }

  close(): void {
    for (const watcher of this.#watchers.values()) watcher?.close()
    this.#watchers.clear()
    this.#folderOf.clear()
    this.#dirty.clear()
  }
}
