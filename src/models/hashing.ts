/**
 * The hashes of a shelf's models: what a session asks for at once; small ones and those that only hashes tell apart
 * unasked; the others, slowly, while the host has nothing to do.
 */
import { setTimeout as delay } from 'node:timers/promises'
import type { Logger } from '../log.ts'
import type { Entry } from './entry.ts'
import { Hasher, identityFiles, identityOf, pathOf, type FileHashes } from './hash.ts'
import type { Scanner } from './scanner.ts'
import type { Shelf } from './shelf.ts'

/** How long a model that changed while it was hashed is left alone, ms. */
const changingMs = 2000
/**
 * Models that draw are hashed unasked as long as they are no more bytes than this in all: it takes less than the start
 * of a worker, and spares their first session a step.
 */
const eagerBytes = 32 * 1024 * 1024
/** How long the host has done nothing before its idle time is used, and at least between two models then, ms. */
const quietMs = 3000
const betweenMs = 100
/** How long what idle time has found is gathered before it is written, ms: every reader makes its list anew then. */
const gatherMs = 5000

export interface IdleTime {
  /** Bytes a second that are hashed in it; 0 for none. */
  pace: number
  /** Whether something runs on this host. */
  isBusy: () => Promise<boolean>
}

export interface HashingParts {
  shelf: Shelf
  idle: IdleTime
  log: Logger
  /** Writes entries that have been hashed; their scanner may be none that is kept any more. */
  write: (scanner: Scanner, entries: readonly Entry[]) => Promise<void>
  /** The files are others than the last look saw. */
  changed: () => void
  /** A model is done that nobody asked for. */
  done: () => void
}

export class Hashing {
  readonly #parts: HashingParts
  readonly #asked = new Hasher()
  /** One at a time, for idle time. */
  readonly #unasked = new Hasher(1)
  readonly #hashing = new Map<string, Promise<void>>()
  /** Hashed in idle time now. */
  #slow: string | undefined
  /** It has been asked for meanwhile. */
  #isUrgent = false
  /** What is left for it, the next one last; undefined when that is to be found out. */
  #left: string[] | undefined
  /** Hashed in idle time and not written yet. */
  #gathered: Entry[] = []
  /** By `performance.now()`. */
  #gatheredAt = 0
  #busyAt = performance.now()
  #isStopped = false

  constructor(parts: HashingParts) {
    this.#parts = parts
  }

  /** Fills in what is known of files that have not changed. */
  async recall(entries: readonly Entry[]): Promise<void> {
    const { shelf } = this.#parts
    this.#left = undefined
    const open = entries.filter(({ identity, fault }) => identity === null && fault === null)
    for (let i = 0; i < open.length; i += 200) {
      const some = open.slice(i, i + 200).map((entry) => ({ entry, files: identityFiles(entry) }))
      const hashes = await shelf.hashesOf(
        some.flatMap(({ entry, files }) => files.map((file) => ({ ...file, at: pathOf(entry.path, file) }))),
      )
      let at = 0
      for (const { entry, files } of some) {
        const known = hashes.slice(at, (at += files.length))
        if (files.length > 0 && known.every((each) => each !== undefined)) entry.identity = identityOf(entry.isFolder, files, known)
      }
    }
  }

  eagerly(scanner: Scanner): void {
    let bytes = 0
    for (const path of clashes(scanner.entries.values())) this.hash(scanner, path)
    const open = [...scanner.entries.values()].filter(({ drawing, identity }) => drawing && !identity).toSorted((a, b) => a.bytes - b.bytes)
    for (const entry of open) {
      bytes += entry.bytes
      if (bytes > eagerBytes) return
      this.hash(scanner, entry.path)
    }
  }

  /** Hashes a model, once at a time. */
  hash(scanner: Scanner, path: string): void {
    this.#busyAt = performance.now()
    if (this.#slow === path) this.#isUrgent = true
    this.#keepPace(false)
    if (!this.#hashing.has(path)) this.#begin(scanner, path, this.#asked)
  }

  #begin(scanner: Scanner, path: string, hasher: Hasher): void {
    const { log } = this.#parts
    const work = this.#hashModel(scanner, path, hasher)
      .catch((error: unknown) => log.warn({ model: path, err: error }, 'a model was not hashed; it is tried again'))
      .finally(() => this.#hashing.delete(path))
    this.#hashing.set(path, work)
  }

  /** Goes on in idle time. Whatever is asked for goes first, and what is done slowly waits meanwhile. */
  async inIdleTime(scanner: Scanner): Promise<void> {
    const { idle, done } = this.#parts
    if (performance.now() - this.#gatheredAt >= gatherMs || !this.#left?.length) await this.#writeGathered(scanner)
    if (idle.pace === 0 || (this.#left?.length === 0 && this.#slow === undefined)) return
    const others = this.#hashing.size - (this.#slow === undefined ? 0 : 1)
    if (others > 0 || (await idle.isBusy())) this.#busyAt = performance.now()
    const isIdle = performance.now() - this.#busyAt >= quietMs
    this.#keepPace(isIdle)
    if (!isIdle || this.#slow !== undefined) return
    const path = (this.#left ??= leftOf(scanner)).pop()
    if (path === undefined || this.#hashing.has(path)) return
    this.#slow = path
    this.#isUrgent = false
    this.#begin(scanner, path, this.#unasked)
    void this.#begun(path, done)
  }

  async #writeGathered(scanner: Scanner): Promise<void> {
    const entries = this.#gathered.filter(({ path, state }) => scanner.entries.get(path)?.state === state)
    this.#gathered = []
    if (entries.length > 0) await this.#parts.write(scanner, entries)
  }

  /** Until it is done, and a moment more. */
  async #begun(path: string, done: () => void): Promise<void> {
    await this.#hashing.get(path)
    await delay(betweenMs, undefined, { ref: false })
    this.#slow = undefined
    done()
  }

  /** Another process goes on with it. */
  halt(): void {
    this.#isUrgent = false
    this.#keepPace(false)
  }

  #keepPace(isIdle: boolean): void {
    this.#unasked.pace = this.#isUrgent ? Infinity : isIdle ? this.#parts.idle.pace : 0
  }

  async #hashModel(scanner: Scanner, path: string, hasher: Hasher): Promise<void> {
    const { shelf, write, changed } = this.#parts
    const entry = scanner.entries.get(path)
    if (!entry || entry.identity || entry.unhashable !== null || entry.fault) return shelf.unwant(path)
    const files = identityFiles(entry)
    const total = files.reduce((sum, { size }) => sum + size, 0)
    const done = new Map<string, number>()
    let toldAt = 0
    const tell = (at: string, bytes: number): void => {
      done.set(at, bytes)
      if (performance.now() - toldAt < 200) return
      toldAt = performance.now()
      const sum = [...done.values()].reduce((a, b) => a + b, 0)
      shelf.tell(path, sum, total).catch(() => undefined)
    }
    const known = await shelf.hashesOf(files.map((file) => ({ ...file, at: pathOf(path, file) })))
    const outcomes = await Promise.allSettled(
      files.map(async (file, i): Promise<FileHashes> => {
        const at = pathOf(path, file)
        const before = known[i]
        if (before) return before
        const { hashes, state } = await hasher.hash(at, (bytes) => tell(at, bytes))
        if (state.size !== file.size || state.modifiedMs !== file.modifiedMs || state.inode !== file.inode) throw new Changed()
        tell(at, file.size)
        await shelf.noteHashes(at, state, hashes)
        return hashes
      }),
    )
    // It may have changed meanwhile, and then it is another entry.
    const now = scanner.entries.get(path)
    if (now?.state !== entry.state || now.made !== entry.made || this.#isStopped) return
    const failure = outcomes.find((outcome) => outcome.status === 'rejected')?.reason as Error | undefined
    if (failure instanceof Changed) {
      changed()
      // One that is being written is not read again and again.
      await delay(changingMs, undefined, { ref: false })
      return
    }
    const hashes = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []))
    const found = failure ? { ...now, unhashable: failure.message } : { ...now, identity: identityOf(now.isFolder, files, hashes) }
    if (hasher === this.#unasked && !this.#isUrgent) {
      if (this.#gathered.push(found) === 1) this.#gatheredAt = performance.now()
      return
    }
    await write(scanner, [found])
    await shelf.unwant(path)
  }

  async stop(): Promise<void> {
    this.#isStopped = true
    await Promise.all([this.#asked.close(), this.#unasked.close()])
  }
}

/** The file is not the one that the last look saw. */
class Changed extends Error {}

/** Models of one kind that have the same name: their hashes tell them apart. */
function clashes(entries: Iterable<Entry>): string[] {
  const byName = new Map<string, Entry[]>()
  for (const entry of entries) {
    if (entry.verdict.reason) continue
    const key = `${entry.verdict.kind}\n${entry.name}`
    const same = byName.get(key)
    if (same) same.push(entry)
    else byName.set(key, [entry])
  }
  return [...byName.values()].flatMap((same) => (same.length > 1 ? same.filter(({ identity }) => !identity).map(({ path }) => path) : []))
}

/** Sound models that have not been hashed, the next one last: such as draw first, then the small ones. */
const leftOf = ({ entries }: Scanner): string[] =>
  [...entries.values()]
    .filter(({ verdict, identity, unhashable, fault }) => !verdict.reason && !identity && unhashable === null && !fault)
    .toSorted((a, b) => Number(a.drawing !== null) - Number(b.drawing !== null) || b.bytes - a.bytes)
    .map(({ path }) => path)
