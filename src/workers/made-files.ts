/** The files that the Python child has made for a step: they come into the store beside what follows. */
import { link, open } from 'node:fs/promises'
import type { OpenFile } from '../domains/operation.ts'
import { allDone } from '../promises.ts'
import type { FileMade } from './python/protocol.ts'

/** In one piece: `readFile` asks the disk for half a megabyte at a time. */
async function read({ path, bytes }: FileMade): Promise<Buffer> {
  await using file = await open(path)
  const content = Buffer.allocUnsafeSlow(bytes)
  return content.subarray(0, (await file.read(content, 0, bytes, 0)).bytesRead)
}

export class MadeFiles {
  readonly #made = new Map<string, FileMade>()
  readonly #storing: Promise<void>[] = []
  /** Keeps one as a scratch artifact. @throws DarkroomError `disk.full` */
  readonly store: (file: FileMade) => Promise<void>

  constructor(store: (file: FileMade) => Promise<void>) {
    this.store = store
  }

  /** Begins to store files. Returns the SHA-256 that the child said of each. */
  keep(files: Record<string, FileMade>): Record<string, string> {
    for (const file of Object.values(files)) {
      const storing = this.store(file)
      // Heard by `stored`.
      storing.catch(() => undefined)
      this.#made.set(file.sha256, file)
      this.#storing.push(storing)
    }
    return Object.fromEntries(Object.entries(files).map(([name, { sha256 }]) => [name, sha256]))
  }

  /** When the store has all of them. @throws DarkroomError as `store` */
  async stored(): Promise<void> {
    await allDone(this.#storing)
  }

  /**
   * Bytes of one, for the session's next step on this worker: the store may not have them yet. Undefined for an
   * artifact that is none of them, or has no file any more.
   */
  async read(sha256: string): Promise<Buffer | undefined> {
    const made = this.#made.get(sha256)
    return made && read(made).catch(() => undefined)
  }

  /** As `read`, its file. */
  async open(sha256: string): Promise<OpenFile | undefined> {
    const made = this.#made.get(sha256)
    const file = made && (await open(made.path).catch(() => undefined))
    return file && { fd: file.fd, bytes: made.bytes, [Symbol.asyncDispose]: () => file.close() }
  }

  /** Gives one a second path. False for an artifact that is none of them, or has no file any more. */
  async link(sha256: string, path: string): Promise<boolean> {
    const made = this.#made.get(sha256)
    return (
      made !== undefined &&
      link(made.path, path).then(
        () => true,
        () => false,
      )
    )
  }

  /** When none is being read any more. */
  async settled(): Promise<void> {
    await Promise.allSettled(this.#storing)
  }
}
