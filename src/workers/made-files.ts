/** The files that the Python child has made for a step: they come into the store beside what follows. */
import { link, open } from 'node:fs/promises'
import { workerError } from '../errors.ts'
import { allDone } from '../promises.ts'
import type { FileMade } from './python/protocol.ts'

/** In one piece: `readFile` asks the disk for half a megabyte at a time. */
async function read({ path, bytes }: FileMade, content: Buffer = Buffer.allocUnsafeSlow(bytes)): Promise<Buffer> {
  await using file = await open(path)
  return content.subarray(0, (await file.read(content, 0, bytes, 0)).bytesRead)
}

export class MadeFiles {
  readonly #made = new Map<string, FileMade>()
  readonly #storing: Promise<void>[] = []
  readonly #put: (bytes: Uint8Array) => Promise<string>

  /** `put` keeps bytes as a scratch artifact, and returns their SHA-256. */
  constructor(put: (bytes: Uint8Array) => Promise<string>) {
    this.#put = put
  }

  /** Begins to store files. Returns the SHA-256 that the child said of each; `stored` tells whether that was true. */
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

  /** @throws DarkroomError `disk.full`; `worker.protocol` where the child said another SHA-256 */
  async store(file: FileMade): Promise<void> {
    const sha256 = await this.#put(await read(file))
    if (sha256 !== file.sha256) throw workerError('protocol', `the child's file ${file.path} has SHA-256 ${sha256}, it said ${file.sha256}`)
  }

  /** When the store has all of them. @throws DarkroomError as `store` */
  async stored(): Promise<void> {
    await allDone(this.#storing)
  }

  /**
   * Bytes of one, for the session's next step on this worker: the store may not have them yet. In memory that threads
   * share. Undefined for an artifact that is none of them, or has no file any more.
   */
  async read(sha256: string): Promise<Buffer | undefined> {
    const made = this.#made.get(sha256)
    return made && read(made, Buffer.from(new SharedArrayBuffer(made.bytes))).catch(() => undefined)
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
