/**
 * The worker's cache of model weights in RAM: whole files under no name, in shared memory that the Python child maps.
 * It outlives a child and ends with its worker, however that dies. Nothing in it is ever changed: an entry counts once
 * all its files are read and still what they were, and is replaced by none but a new one.
 */
import { constants, type Stats } from 'node:fs'
import { open, realpath, statfs, type FileHandle } from 'node:fs/promises'
import { resolve } from 'node:path'
import { memoryError } from '../../domains/memory/errors.ts'
import type { CachedModel, ModelCacheReport } from '../../domains/model/cached.ts'
import { deferred } from '../../promises.ts'
import { modelError } from '../../models/errors.ts'
import type { Entry } from '../../models/entry.ts'
import type { FileState } from '../../models/found.ts'
import { isUnchanged } from '../../models/made.ts'
import type { Kind } from '../../models/verdict.ts'
import { drawnFiles } from '../../models/weights.ts'
import type { CachedFile } from '../python/protocol.ts'
import { systemRam } from './ram.ts'

/** Read at a time, bytes, and by how many readers. */
const pieceBytes = 4 << 20
const readers = 4
/** Of what is free, the automatic limit takes this share. */
const automaticShare = 0.5
/** open(2): a file without a name. */
const nameless = 0o20000000 | constants.O_DIRECTORY
/** `f_type` of statfs(2). */
const tmpfs = 0x01021994

/** A model as it is asked for, with its body hash. */
export interface Cacheable {
  id: string
  kind: Kind
  bodyHash: string
  entry: Pick<Entry, 'path' | 'real' | 'isFolder' | 'files' | 'state' | 'made'>
}

interface Cached extends Cacheable {
  files: { handle: FileHandle; file: CachedFile }[]
  bytes: number
  /** Loads that read it. */
  uses: number
  cachedAt: number
  usedAt: number
}

/** A model that is being read. */
interface Filling {
  bytes: number
  read: number
  stop: AbortController
  done: Promise<Cached>
  listeners: Set<(done: number, total: number) => void>
}

export interface ModelCacheOptions {
  /** Bytes; null: by what RAM is free. 0 turns it off. */
  limit: number | null
  /** Where shared memory is. */
  folder?: string
  /**
   * Runs `act`, which takes RAM bit by bit, while what is `left` of it is promised to nobody else.
   * @throws DarkroomError `memory.exhausted`
   */
  promise<T>(bytes: number, left: () => number, act: () => Promise<T>): Promise<T>
  /** The Python child must not keep these mapped. */
  onEvicted(inodes: number[]): void
  /** A model that nobody waits for was not read. */
  onSkipped(id: string, error: unknown): void
  /** For tests: reads no faster than this, bytes a second. */
  bytesPerS?: number
}

export class ModelCache {
  readonly #options: ModelCacheOptions
  readonly #folder: string
  /** By body hash, the one used longest ago first. */
  readonly #cached = new Map<string, Cached>()
  readonly #filling = new Map<string, Filling>()
  readonly #counts = {
    hits: 0,
    misses: 0,
    filled: 0,
    evicted: 0,
    evictedBytes: 0,
    evictedFor: { limit: 0, pressure: 0, asked: 0, changed: 0 },
  }
  readonly #ending = new AbortController()

  constructor(options: ModelCacheOptions) {
    this.#options = options
    this.#folder = options.folder ?? '/dev/shm'
  }

  get bytes(): number {
    return [...this.#cached.values()].reduce((sum, { bytes }) => sum + bytes, 0)
  }

  /** How much it may hold, bytes. */
  get limit(): number {
    if (this.#options.limit !== null) return this.#options.limit
    const { total, used } = systemRam()
    return Math.floor((Math.max(0, total - used) + this.bytes) * automaticShare)
  }

  get report(): ModelCacheReport {
    const { evictedFor, ...counts } = this.#counts
    const all = counts.hits + counts.misses
    return {
      limit: this.limit,
      bytes: this.bytes,
      ...counts,
      evictedFor: { ...evictedFor },
      hitRate: all === 0 ? null : counts.hits / all,
      reading: [...this.#filling.values()].map(({ bytes, read }) => ({ bytes, read })),
      models: [...this.#cached.values()].map(describe),
    }
  }

  /**
   * Files of a model for the child, which is about to load it; none when it is not cached as it lies on disk now. Waits
   * for one that is being read.
   */
  async filesOf({ bodyHash, entry }: Cacheable): Promise<CachedFile[]> {
    await this.#filling.get(bodyHash)?.done.catch(() => undefined)
    const cached = this.#cached.get(bodyHash)
    if (cached && cached.entry.state !== entry.state) this.#drop([cached], 'changed')
    const held = this.#cached.get(bodyHash)
    if (!held) return []
    this.#touch(held)
    return held.files.map(({ file }) => file)
  }

  has(bodyHash: string): boolean {
    return this.#cached.has(bodyHash) || this.#filling.has(bodyHash)
  }

  /** The child has loaded a model, from the cache or from disk: then it is read while the system has its files. */
  loaded(model: Cacheable, isHit: boolean): void {
    this.#counts[isHit ? 'hits' : 'misses']++
    const held = this.#cached.get(model.bodyHash)
    if (held && isHit) held.uses++
    if (!isHit) this.prefetch(model)
  }

  /** Reads a model that is wanted soon, if there is room for it; nobody waits for it. */
  prefetch(model: Cacheable): void {
    if (this.limit === 0 || this.#ending.signal.aborted || this.has(model.bodyHash)) return
    this.fill(model, this.#ending.signal).catch((error: unknown) => this.#options.onSkipped(model.id, error))
  }

  /**
   * Reads a model into RAM; at once when it is there.
   * @throws DarkroomError `memory.exhausted` when it does not fit, `model.changed` when its files are others meanwhile;
   * what `signal` aborts with, once nobody else waits for it
   */
  async fill(model: Cacheable, signal: AbortSignal, progress: (done: number, total: number) => void = () => {}): Promise<CachedModel> {
    signal.throwIfAborted()
    const held = this.#cached.get(model.bodyHash)
    if (held && held.entry.state === model.entry.state) {
      this.#touch(held)
      return describe(held)
    }
    if (held) this.#drop([held], 'changed')
    const filling = this.#filling.get(model.bodyHash) ?? this.#begin(model)
    filling.listeners.add(progress)
    const stop = (): void => {
      filling.listeners.delete(progress)
      if (filling.listeners.size === 0) filling.stop.abort(signal.reason)
    }
    const { promise: stopped, reject } = deferred<never>()
    const onAbort = (): void => {
      stop()
      reject(signal.reason as Error)
    }
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      return describe(await Promise.race([filling.done, stopped]))
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }

  /** Lets go of a model, in every body; of every kind without one, of all models without a name. Returns what went. */
  evict(id?: string, kind?: Kind): CachedModel[] {
    const gone = [...this.#cached.values()].filter(
      (cached) => (id === undefined || cached.id === id) && (kind === undefined || cached.kind === kind),
    )
    this.#drop(gone, 'asked')
    return gone.map(describe)
  }

  /** Lets go of the model used longest ago, for RAM is short; null without one. */
  evictOldest(): CachedModel | null {
    const [oldest] = this.#cached.values()
    if (!oldest) return null
    this.#drop([oldest], 'pressure')
    return describe(oldest)
  }

  /** Lets go of all, and of what is being read. */
  async close(): Promise<void> {
    const reason = memoryError('closed', 'the worker ends')
    this.#ending.abort(reason)
    const filling = [...this.#filling.values()]
    for (const { stop } of filling) stop.abort(reason)
    await Promise.allSettled(filling.map(({ done }) => done))
    for (const cached of this.#cached.values()) await closeAll(cached.files)
    this.#cached.clear()
  }

  #begin(model: Cacheable): Filling {
    const files = drawnFiles(model.entry)
    const bytes = files.reduce((sum, { size }) => sum + size, 0)
    const stop = new AbortController()
    const filling: Filling = { bytes, read: 0, stop, done: Promise.resolve(null as never), listeners: new Set() }
    filling.done = this.#fill(model, files, filling).finally(() => this.#filling.delete(model.bodyHash))
    // Whoever waits is told; nobody has to.
    filling.done.catch(() => undefined)
    this.#filling.set(model.bodyHash, filling)
    return filling
  }

  async #fill(model: Cacheable, states: readonly FileState[], filling: Filling): Promise<Cached> {
    const { bytes, stop } = filling
    await this.#makeRoom(model.id, bytes)
    const left = (): number => bytes - filling.read
    return this.#options.promise(bytes, left, async () => {
      const files: Cached['files'] = []
      try {
        for (const state of states) files.push(await this.#read(model, state, filling))
        // A file that changed while it was read is neither what it was nor what it is.
        if (!(await isUnchanged(model.entry))) throw changed(model.id)
        stop.signal.throwIfAborted()
        this.#ending.signal.throwIfAborted()
      } catch (error) {
        await closeAll(files)
        throw error
      }
      const now = Date.now()
      const cached = { ...model, files, bytes, uses: 0, cachedAt: now, usedAt: now }
      this.#cached.set(model.bodyHash, cached)
      this.#counts.filled++
      return cached
    })
  }

  /** @throws DarkroomError `memory.exhausted` */
  async #makeRoom(id: string, bytes: number): Promise<void> {
    const { limit } = this
    const refuse = (why: string, figures: Record<string, number>): never => {
      throw memoryError('exhausted', `model ${id} of ${bytes} bytes does not fit into the cache: ${why}`, {
        field: 'input.model',
        details: { need: bytes, ...figures },
        remedy: 'Raise DARKROOM_MODEL_CACHE, free RAM on this host, or go on without: models load from disk as well.',
      })
    }
    if (bytes > limit) refuse(`its limit is ${limit} bytes`, { limit })
    const { type } = await statfs(this.#folder).catch(() => ({ type: 0 }))
    if (type !== tmpfs) refuse(`${this.#folder} of this host is no shared memory`, { limit: 0 })
    for (;;) {
      const reading = [...this.#filling.values()].reduce((sum, each) => sum + each.bytes, 0)
      const { bavail, bsize } = await statfs(this.#folder)
      const isWithin = this.bytes + reading <= limit
      if (isWithin && bytes <= bavail * bsize) return
      const [oldest] = this.#cached.values()
      if (oldest) this.#drop([oldest], 'limit')
      else refuse(isWithin ? `${this.#folder} has ${bavail * bsize} bytes free` : 'others are being read', { limit, free: bavail * bsize })
    }
  }

  async #read({ id, entry }: Cacheable, state: FileState, filling: Filling): Promise<Cached['files'][number]> {
    const path = await realpath(resolve(entry.real, state.path))
    await using source = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
    if (!isSame(await source.stat(), state)) throw changed(id)
    const handle = await open(this.#folder, nameless | constants.O_RDWR, 0o600)
    try {
      await this.#copy(source, handle, state.size, filling)
      await handle.chmod(0o400)
      const { ino } = await handle.stat()
      return { handle, file: { path, mapping: `/proc/${process.pid}/fd/${handle.fd}`, bytes: state.size, inode: ino } }
    } catch (error) {
      await handle.close()
      throw error
    }
  }

  /** Several pieces at a time, each to its place. */
  async #copy(source: FileHandle, target: FileHandle, size: number, filling: Filling): Promise<void> {
    const { bytesPerS } = this.#options
    let next = 0
    const reader = async (): Promise<void> => {
      const piece = Buffer.allocUnsafeSlow(Math.min(pieceBytes, size))
      while (next < size) {
        filling.stop.signal.throwIfAborted()
        const at = next
        const bytes = Math.min(piece.length, size - at)
        next += bytes
        for (let done = 0; done < bytes;) {
          const { bytesRead } = await source.read(piece, done, bytes - done, at + done)
          if (bytesRead === 0) throw modelError('changed', 'a file of weights ended while it was read')
          done += bytesRead
        }
        for (let done = 0; done < bytes;) done += (await target.write(piece, done, bytes - done, at + done)).bytesWritten
        if (bytesPerS !== undefined) await new Promise((resolve) => setTimeout(resolve, (bytes / bytesPerS) * 1000))
        filling.read += bytes
        for (const listener of filling.listeners) listener(filling.read, filling.bytes)
      }
    }
    await Promise.all(Array.from({ length: readers }, reader))
  }

  #touch(held: Cached): void {
    this.#cached.delete(held.bodyHash)
    this.#cached.set(held.bodyHash, held)
    held.usedAt = Date.now()
  }

  #drop(gone: readonly Cached[], why: keyof ModelCacheReport['evictedFor']): void {
    for (const cached of gone) {
      this.#cached.delete(cached.bodyHash)
      this.#counts.evicted++
      this.#counts.evictedBytes += cached.bytes
      this.#counts.evictedFor[why]++
      // The memory goes with the last who maps it.
      void closeAll(cached.files)
    }
    if (gone.length > 0) this.#options.onEvicted(gone.flatMap(({ files }) => files.map(({ file }) => file.inode)))
  }
}

const isSame = ({ size, mtimeMs, ino }: Stats, state: FileState): boolean =>
  size === state.size && mtimeMs === state.modifiedMs && ino === state.inode

const describe = ({ id, kind, bodyHash, bytes, uses, cachedAt, usedAt }: Cached): CachedModel => ({
  id,
  kind,
  bodyHash,
  bytes,
  uses,
  cachedAt,
  usedAt,
})

const changed = (id: string) =>
  modelError('changed', `the files of model ${id} changed while they were read into RAM`, { field: 'input.model' })

async function closeAll(files: readonly { handle: FileHandle }[]): Promise<void> {
  await Promise.allSettled(files.map(({ handle }) => handle.close()))
}
