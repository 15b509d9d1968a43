/**
 * Artifacts: immutable bytes named by their SHA-256, the same for every node.
 *
 * | kind | what | durable |
 * | --- | --- | --- |
 * | `image` | pictures, uploads | fsync before its name is given out |
 * | `scratch` | step tensors, checkpoints | no: a lost one is made again |
 */
import { createHash, randomUUID } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, open, readFile, readdir, rename, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { artifactError } from '../errors.ts'
import { keys } from '../keys.ts'
import { translated, type Redis } from '../redis.ts'

export type ArtifactKind = 'image' | 'scratch'

export interface ArtifactStore {
  /** Equal for two stores only when they hold the same bytes. */
  id(): Promise<string>
  /** Writes a file and removes it. Rejects with the reason when the store takes none. */
  probe(): Promise<void>
  /** Keeps the bytes and returns their SHA-256, 64 hex digits. Putting present bytes again makes them young. */
  put(bytes: Uint8Array, kind: ArtifactKind): Promise<string>
  /** @throws DarkroomError `artifact.missing`, or `artifact.corrupt` when the bytes no longer match their name. */
  read(sha256: string): Promise<Buffer>
  open(sha256: string): Promise<{ size: number; stream: ReadableStream<Uint8Array> } | undefined>
  has(sha256: string): Promise<boolean>
  /** Removes what is older than `olderThanMs` and `isNamed` denies. Returns how many files went. */
  collect(isNamed: (sha256: string) => Promise<boolean>, olderThanMs: number): Promise<number>
}

export const sha256Of = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

export const artifactIdPattern = /^[0-9a-f]{64}$/

/** Files under `<folder>/<first two digits>/<SHA-256>`, visible by rename only. */
export class FileArtifactStore implements ArtifactStore {
  readonly #folder: string

  constructor(folder: string) {
    this.#folder = folder
  }

  async id(): Promise<string> {
    const file = join(this.#folder, 'store-id')
    await mkdir(this.#folder, { recursive: true, mode: 0o700 })
    // Two first users may race: `wx` lets one of them write it, both read the same.
    await writeFile(file, randomUUID(), { flag: 'wx', mode: 0o600 }).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error
    })
    return (await readFile(file, 'utf8')).trim()
  }

  async probe(): Promise<void> {
    const file = join(this.#folder, `probe-${randomUUID()}`)
    try {
      await writeFile(file, 'x', { flag: 'wx', mode: 0o600 })
    } finally {
      await rm(file, { force: true })
    }
  }

  #path(sha256: string): string {
    if (!artifactIdPattern.test(sha256)) throw artifactError('unknown', 'an artifact id is 64 hex digits', { field: 'sha256' })
    return join(this.#folder, sha256.slice(0, 2), sha256)
  }

  async put(bytes: Uint8Array, kind: ArtifactKind): Promise<string> {
    const sha256 = sha256Of(bytes)
    const path = this.#path(sha256)
    const known = await stat(path).catch(() => undefined)
    if (known?.size === bytes.byteLength) {
      const present = await readFile(path).catch(() => undefined)
      if (present && sha256Of(present) === sha256) {
        const now = new Date()
        const isThere = await utimes(path, now, now).then(
          () => true,
          () => false, // collected just now
        )
        if (isThere) return sha256
      }
    }
    await mkdir(join(this.#folder, sha256.slice(0, 2)), { recursive: true, mode: 0o700 })
    const part = `${path}.${randomUUID()}.part`
    const file = await open(part, 'wx', 0o600)
    try {
      await file.writeFile(bytes)
      if (kind === 'image') await file.sync()
    } finally {
      await file.close()
    }
    await rename(part, path)
    if (kind === 'image') await syncFolder(join(this.#folder, sha256.slice(0, 2)))
    return sha256
  }

  async read(sha256: string): Promise<Buffer> {
    const bytes = await readFile(this.#path(sha256)).catch((error: NodeJS.ErrnoException) => {
      throw artifactError('missing', `artifact ${sha256} is not in the store`, { cause: error })
    })
    if (sha256Of(bytes) !== sha256) throw artifactError('corrupt', `artifact ${sha256} holds other bytes than its name says`)
    return bytes
  }

  async open(sha256: string): Promise<{ size: number; stream: ReadableStream<Uint8Array> } | undefined> {
    const path = this.#path(sha256)
    const known = await stat(path).catch(() => undefined)
    if (!known?.isFile()) return undefined
    return { size: known.size, stream: Readable.toWeb(createReadStream(path)) as ReadableStream<Uint8Array> }
  }

  async has(sha256: string): Promise<boolean> {
    return (await stat(this.#path(sha256)).catch(() => undefined))?.isFile() ?? false
  }

  async collect(isNamed: (sha256: string) => Promise<boolean>, olderThanMs: number): Promise<number> {
    const before = Date.now() - olderThanMs
    const isOld = async (path: string): Promise<boolean> => {
      const known = await stat(path).catch(() => undefined)
      return known !== undefined && known.mtimeMs <= before
    }
    let removed = 0
    for (const shelf of await readdir(this.#folder).catch(() => [])) {
      if (!/^[0-9a-f]{2}$/.test(shelf)) continue
      for (const name of await readdir(join(this.#folder, shelf)).catch(() => [])) {
        const path = join(this.#folder, shelf, name)
        const isOurs = artifactIdPattern.test(name)
        if ((!isOurs && !name.endsWith('.part')) || !(await isOld(path)) || (isOurs && (await isNamed(name)))) continue
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

/** Every node of a farm must see the same artifacts. @throws DarkroomError `artifact.not_shared` */
export async function checkStore(redis: Redis, artifacts: ArtifactStore): Promise<void> {
  const own = await artifacts.id()
  await translated(redis.setnx(keys.storeId(), own))
  const farm = await translated(redis.get(keys.storeId()))
  if (farm !== own) throw artifactError('not_shared', `this artifact folder is store ${own}, the farm uses ${farm}`)
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}
