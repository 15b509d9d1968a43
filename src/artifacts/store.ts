/**
 * Artifacts: immutable bytes named by their SHA-256, the same for every node.
 *
 * | kind | what | durable |
 * | --- | --- | --- |
 * | `image` | pictures, uploads | fsync before its name is given out |
 * | `scratch` | step tensors, checkpoints | no: a lost one is made again |
 *
 * A picture's thumbnail, and what classifiers said of it, have no names of their own: they lie beside the picture, and
 * go after it.
 */
import { createHash, randomUUID, webcrypto } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { copyFile, link, mkdir, open, readFile, readdir, rename, rm, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Readable } from 'node:stream'
import { onDisk, requireRoom } from '../disk.ts'
import { artifactError } from '../errors.ts'
import { IndexMark } from './index-mark.ts'

export type ArtifactKind = 'image' | 'scratch'

/** Bytes that are written while they are made. */
export interface Writing {
  /**
   * Writes them into an open file that is empty, and returns their SHA-256, 64 hex digits.
   * @throws as the disk does, with its `code`; and why they cannot be made
   */
  writeTo(fd: number): Promise<string>
  /** How many there are, once they are written. */
  readonly byteLength: number
  /** All of them, once they are written. */
  whole(): Uint8Array
}

export interface ArtifactStore {
  /** Equal for two stores only when they hold the same bytes. */
  id(): Promise<string>
  /** Writes a file and removes it. Rejects with the reason when the store takes none. */
  probe(): Promise<void>
  /** Which Redis has indexed it, and how far. */
  readonly mark: IndexMark
  /**
   * Keeps the bytes and returns their SHA-256, 64 hex digits. Putting present bytes again makes them young.
   * @throws DarkroomError `disk.full`, and as `writeTo`; then nothing is left behind
   */
  put(bytes: Uint8Array | Writing, kind: ArtifactKind): Promise<string>
  /**
   * Keeps a copy of a file as scratch, under the SHA-256 that whoever wrote it says: whether that is true shows when it
   * is read.
   * @throws DarkroomError `disk.full`; then nothing is left behind
   */
  putFile(path: string, sha256: string): Promise<void>
  /** Makes present bytes young, so that the collector spares them. False when they are gone. */
  refresh(sha256: string): Promise<boolean>
  /** @throws DarkroomError `artifact.missing`, or `artifact.corrupt` when the bytes no longer match their name. */
  read(sha256: string): Promise<Buffer>
  open(sha256: string): Promise<{ size: number; stream: ReadableStream<Uint8Array> } | undefined>
  has(sha256: string): Promise<boolean>
  /**
   * Keeps the thumbnail of a picture, durably; one that is there is replaced.
   * @throws DarkroomError `disk.full`; then nothing is left behind
   */
  putThumbnail(sha256: string, bytes: Uint8Array): Promise<void>
  openThumbnail(sha256: string): Promise<{ size: number; stream: ReadableStream<Uint8Array> } | undefined>
  /** Keeps what classifiers said of a picture, as `putThumbnail`. @throws DarkroomError `disk.full` */
  putScores(sha256: string, bytes: Uint8Array): Promise<void>
  /** Undefined where there is nothing of it. */
  readScores(sha256: string): Promise<Buffer | undefined>
  /** @throws DarkroomError `disk.full` where so many bytes would not fit; `why`: what they are for */
  requireRoom(bytes: number, why: string): Promise<void>
  /** Removes what killed writers have left behind, a quarter of an hour later. Returns how many files went. */
  sweep(): Promise<number>
  /** Removes what is older than `olderThanMs` and `isNamed` denies. Returns how many files went. */
  collect(isNamed: (sha256: string) => Promise<boolean>, olderThanMs: number): Promise<number>
}

export const sha256Of = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

/** The same off the event loop, which megabytes would hold up. */
async function hashBeside(bytes: Uint8Array): Promise<string> {
  return Buffer.from(await webcrypto.subtle.digest('SHA-256', bytes)).toString('hex')
}

export const artifactIdPattern = /^[0-9a-f]{64}$/

/** Behind a picture's name: its thumbnail, and the scores that classifiers gave it. */
const endings = { thumbnail: '.thumbnail', scores: '.scores' } as const
/** The picture that a file belongs to, which may be the file. */
const ownerOf = (name: string): string => {
  const ending = Object.values(endings).find((each) => name.endsWith(each)) ?? ''
  return name.slice(0, name.length - ending.length)
}

/** Gives a file the time that it has now by its store's own clock. */
async function rejuvenate(path: string, bytes: number): Promise<void> {
  const file = await open(path, 'r+')
  try {
    await file.truncate(bytes)
  } finally {
    await file.close()
  }
}

/** A file that nobody has written to for so long has no writer any more, ms: a picture's step has ten minutes. */
const abandonedMs = 15 * 60_000

/**
 * Files under `<folder>/<first two digits>/<SHA-256>`, visible by rename only: what is not whole yet lies under
 * `<folder>/parts`.
 */
export class FileArtifactStore implements ArtifactStore {
  readonly #folder: string
  readonly #parts: string
  readonly mark: IndexMark
  /** The store's time when it was first asked for, and when that was by this process' own monotonic clock. */
  #first: { time: number; at: number } | undefined

  constructor(folder: string) {
    this.#folder = folder
    this.#parts = join(folder, 'parts')
    this.mark = new IndexMark(folder)
  }

  async id(): Promise<string> {
    const file = join(this.#folder, 'store-id')
    const known = await readFile(file, 'utf8').catch(() => '')
    if (known !== '') return known.trim()
    // Two first users may race: a link is made by one of them only, and only to a file that is whole.
    await this.#part(async (part) => {
      await this.#write(part, Buffer.from(randomUUID()), false)
      await link(part, file).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'EEXIST') throw error
      })
      await rm(part)
    })
    return (await readFile(file, 'utf8')).trim()
  }

  async probe(): Promise<void> {
    // A folder that is gone, or not mounted, is not made anew: the bytes that are named would be missing in it.
    await stat(this.#folder)
    await this.#part(async (part) => {
      await this.#write(part, Buffer.from('x'), false)
      await rm(part)
    })
  }

  #path(sha256: string): string {
    if (!artifactIdPattern.test(sha256)) throw artifactError('unknown', 'an artifact id is 64 hex digits', { field: 'sha256' })
    return join(this.#folder, sha256.slice(0, 2), sha256)
  }

  async put(bytes: Uint8Array | Writing, kind: ArtifactKind): Promise<string> {
    const isDurable = kind === 'image'
    // A disk takes longer to have bytes for good than a processor to hash them.
    const hashing = bytes instanceof Uint8Array ? hashBeside(bytes) : undefined
    if (hashing && !isDurable && (await this.#isWhole(await hashing, bytes.byteLength))) return hashing
    // A picture that is present may be scratch.
    return this.#part(async (part) => {
      const written = await this.#write(part, bytes, isDurable)
      const sha256 = written ?? (await hashing) ?? ''
      await this.#place(part, this.#path(sha256), isDurable)
      return sha256
    })
  }

  async putFile(path: string, sha256: string): Promise<void> {
    await this.#part(async (part) => {
      await inFolder(this.#parts, () => copyFile(path, part))
      await this.#place(part, this.#path(sha256), false)
    })
  }

  /** Whether so many bytes of that name are there and whole; then they are young. */
  async #isWhole(sha256: string, bytes: number): Promise<boolean> {
    const path = this.#path(sha256)
    const known = await stat(path).catch(() => undefined)
    const present = known?.size === bytes ? await readFile(path).catch(() => undefined) : undefined
    return present !== undefined && sha256Of(present) === sha256 && this.refresh(sha256)
  }

  async putThumbnail(sha256: string, bytes: Uint8Array): Promise<void> {
    await this.#publish(this.#path(sha256) + endings.thumbnail, bytes, true)
  }

  async putScores(sha256: string, bytes: Uint8Array): Promise<void> {
    await this.#publish(this.#path(sha256) + endings.scores, bytes, true)
  }

  readScores(sha256: string): Promise<Buffer | undefined> {
    return readFile(this.#path(sha256) + endings.scores).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return undefined
      throw error
    })
  }

  async #publish(path: string, bytes: Uint8Array, isDurable: boolean): Promise<void> {
    await this.#part(async (part) => {
      await this.#write(part, bytes, isDurable)
      await this.#place(part, path, isDurable)
    })
  }

  async #place(part: string, path: string, isDurable: boolean): Promise<void> {
    const shelf = dirname(path)
    await inFolder(shelf, () => rename(part, path))
    if (isDurable) await syncFolder(shelf)
  }

  async refresh(sha256: string): Promise<boolean> {
    const path = this.#path(sha256)
    const known = await stat(path).catch(() => undefined)
    return (
      known !== undefined &&
      (await rejuvenate(path, known.size).then(
        () => true,
        () => false, // collected just now
      ))
    )
  }

  /** Makes a file, under this path at first; whatever fails, no part of it stays. */
  async #part<T>(make: (part: string) => Promise<T>): Promise<T> {
    const part = join(this.#parts, `${randomUUID()}.part`)
    return onDisk(this.#folder, make(part)).catch(async (error: unknown) => {
      await rm(part, { force: true })
      throw error
    })
  }

  /** Returns the SHA-256 where whoever writes says it. */
  async #write(part: string, bytes: Uint8Array | Writing, isDurable: boolean): Promise<string | undefined> {
    await using file = await inFolder(this.#parts, () => open(part, 'wx', 0o600))
    const sha256 = bytes instanceof Uint8Array ? await file.writeFile(bytes) : await bytes.writeTo(file.fd)
    if (isDurable) await file.sync()
    return sha256 ?? undefined
  }

  requireRoom(bytes: number, why: string): Promise<void> {
    return requireRoom(this.#folder, bytes, why)
  }

  async sweep(): Promise<number> {
    const parts = await readdir(this.#parts).catch(() => [])
    if (parts.length === 0) return 0
    // By the clock of the file system: this process's own may be another one, or wrong.
    const now = await this.#now()
    const ages = await Promise.all(parts.map((name) => stat(join(this.#parts, name)).catch(() => undefined)))
    const abandoned = parts.filter((_, i) => now - (ages[i]?.mtimeMs ?? now) > abandonedMs)
    for (const name of abandoned) await rm(join(this.#parts, name), { force: true })
    return abandoned.length
  }

  async read(sha256: string): Promise<Buffer> {
    const bytes = await readFile(this.#path(sha256)).catch((error: NodeJS.ErrnoException) => {
      throw artifactError('missing', `artifact ${sha256} is not in the store`, { cause: error })
    })
    if (sha256Of(bytes) !== sha256) throw artifactError('corrupt', `artifact ${sha256} holds other bytes than its name says`)
    return bytes
  }

  open(sha256: string): Promise<{ size: number; stream: ReadableStream<Uint8Array> } | undefined> {
    return this.#open(this.#path(sha256))
  }

  openThumbnail(sha256: string): Promise<{ size: number; stream: ReadableStream<Uint8Array> } | undefined> {
    return this.#open(this.#path(sha256) + endings.thumbnail)
  }

  async #open(path: string): Promise<{ size: number; stream: ReadableStream<Uint8Array> } | undefined> {
    const known = await stat(path).catch(() => undefined)
    if (!known?.isFile()) return undefined
    return { size: known.size, stream: Readable.toWeb(createReadStream(path)) as ReadableStream<Uint8Array> }
  }

  async has(sha256: string): Promise<boolean> {
    return (await stat(this.#path(sha256)).catch(() => undefined))?.isFile() ?? false
  }

  /**
   * The time of the store's own clock, which gives files their times, ms: that of a file just written. Where that clock
   * was set forward meanwhile, the time by which it went on.
   */
  async #now(): Promise<number> {
    const probe = join(this.#parts, `${randomUUID()}.part`)
    await mkdir(this.#parts, { recursive: true, mode: 0o700 })
    await onDisk(this.#folder, writeFile(probe, '', { mode: 0o600 }))
    try {
      const { mtimeMs } = await stat(probe)
      this.#first ??= { time: mtimeMs, at: performance.now() }
      return Math.min(mtimeMs, this.#first.time + performance.now() - this.#first.at)
    } finally {
      await rm(probe, { force: true })
    }
  }

  async collect(isNamed: (sha256: string) => Promise<boolean>, olderThanMs: number): Promise<number> {
    const before = (await this.#now()) - olderThanMs
    const isOld = async (path: string): Promise<boolean> => {
      const known = await stat(path).catch(() => undefined)
      return known !== undefined && known.mtimeMs <= before
    }
    let removed = 0
    for (const shelf of await readdir(this.#folder).catch(() => [])) {
      if (!/^[0-9a-f]{2}$/.test(shelf)) continue
      // In order, so that a picture is looked at before what lies beside it.
      const names = await readdir(join(this.#folder, shelf)).catch((): string[] => [])
      for (const name of names.toSorted()) {
        const path = join(this.#folder, shelf, name)
        const sha256 = ownerOf(name)
        const isOurs = artifactIdPattern.test(sha256)
        if ((!isOurs && !name.endsWith('.part')) || !(await isOld(path))) continue
        if (isOurs && (sha256 === name ? await isNamed(sha256) : await this.has(sha256))) continue
        // Out of the way first: a `put` of the same bytes either finds no file, and writes one, or has made this one
        // young again.
        const taken = isOurs ? `${path}.${randomUUID()}.part` : path
        if (isOurs) await rename(path, taken)
        if (await isOld(taken)) {
          await rm(taken, { force: true })
          removed++
        } else await rename(taken, path)
      }
    }
    return removed
  }
}

/** Does it again once the folder is made, where that is not there yet. */
async function inFolder<T>(folder: string, act: () => Promise<T>): Promise<T> {
  return act().catch(async (error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
    await mkdir(folder, { recursive: true, mode: 0o700 })
    return act()
  })
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
