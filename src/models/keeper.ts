/**
 * Keeps the shelf of its host: walks the folders, watches them, hashes what is asked for, and writes what has changed.
 * Every process that has the folders has a keeper; the one that holds the lease works, the others stand by.
 */
import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { Bell } from '../bell.ts'
import type { Logger } from '../log.ts'
import { deferred } from '../promises.ts'
import { Ticker } from '../ticker.ts'
import type { Entry } from './entry.ts'
import { Hasher, identityFiles, identityOf, pathOf, type FileHashes } from './hash.ts'
import { Scanner, type Changes } from './scanner.ts'
import { everything, keeperMs, type Shelf } from './shelf.ts'
import { FolderWatch } from './watch.ts'

/** Between two looks at everything, ms: of what no watch tells. */
const rescanMs = 60_000
/** How long a change is left alone, ms: most come in bursts. */
const settleMs = 200
/** How often it looks for hashes that are asked for, ms. */
const turnMs = 300
const publishMs = 10_000
/** How long a model that changed while it was hashed is left alone, ms. */
const changingMs = 2000
/**
 * Models that draw are hashed unasked as long as they are no more bytes than this in all: it takes less than the start
 * of a worker, and spares their first session a step.
 */
const eagerBytes = 32 * 1024 * 1024

export interface KeeperParts {
  shelf: Shelf
  host: string
  folders: readonly string[]
  log: Logger
  /** Something was written. */
  onWritten: () => void
}

export class Keeper {
  readonly #parts: KeeperParts
  readonly #token = randomUUID()
  readonly #bell = new Bell()
  readonly #hasher = new Hasher()
  readonly #lease: Ticker
  readonly #watch: FolderWatch
  readonly #hashing = new Map<string, Promise<void>>()
  #scanner: Scanner | undefined
  #series = ''
  #version = 0
  #scannedAt: number | null = null
  /** By `performance.now()`. */
  #lookedAt = -Infinity
  #publishedAt = -Infinity
  #wantsLook = false
  #isHolding = false
  #isStopped = false
  #work: Promise<void> = Promise.resolve()
  #hasToldOfWatch = false
  readonly #firstLook = deferred<void>()

  /** Resolves when the folders have been looked at once, here or by another process. */
  readonly firstLook = this.#firstLook.promise

  constructor(parts: KeeperParts) {
    this.#parts = parts
    const { log } = parts
    this.#lease = new Ticker(
      keeperMs / 3,
      () => this.#hold(),
      (error) => log.debug({ err: error }, 'the lease of the shelf could not be renewed'),
    )
    this.#watch = new FolderWatch(
      () => this.#bell.ring(),
      (error) => {
        if (!this.#hasToldOfWatch) log.warn({ err: error }, 'a model folder is not watched; it is looked at once a minute')
        this.#hasToldOfWatch = true
      },
    )
  }

  start(): void {
    this.#work = this.#run()
    void this.#hold().catch((error: unknown) => this.#parts.log.debug({ err: error }, 'the lease of the shelf could not be taken'))
    this.#lease.start()
  }

  /** Looks for what is asked for at once. */
  ring(): void {
    this.#bell.ring()
  }

  /** Looks at everything again now. */
  lookAgain(): void {
    this.#wantsLook = true
    this.#bell.ring()
  }

  async #hold(): Promise<void> {
    const { shelf } = this.#parts
    const isHolding = await shelf.hold(this.#token)
    if (!isHolding && (await shelf.record())?.scannedAt) this.#firstLook.resolve()
    if (isHolding === this.#isHolding) return
    this.#isHolding = isHolding
    if (!isHolding) this.#giveUp()
    this.#bell.ring()
  }

  /** Another process keeps the shelf now. */
  #giveUp(): void {
    this.#isHolding = false
    this.#scanner = undefined
    this.#watch.close()
  }

  async #run(): Promise<void> {
    while (!this.#isStopped) {
      try {
        if (this.#isHolding) await this.#turn()
      } catch (error) {
        this.#parts.log.warn({ err: error }, 'the shelf of models was not brought up to date; it is tried again')
      }
      if (!this.#isStopped) await this.#bell.wait(turnMs)
    }
  }

  async #turn(): Promise<void> {
    const scanner = (this.#scanner ??= await this.#open())
    if (!scanner) return
    if (this.#wantsLook || performance.now() - this.#lookedAt > rescanMs || (await scanner.hasNewRoot())) {
      this.#wantsLook = false
      this.#watch.take()
      await this.#note(scanner, await scanner.scan())
      this.#scannedAt = Date.now()
      this.#lookedAt = performance.now()
      await this.#publish(scanner)
      this.#firstLook.resolve()
    } else if (this.#watch.hasChanges) {
      await delay(settleMs)
      await this.#note(scanner, await scanner.scanAgain(this.#watch.take()))
    }
    if (performance.now() - this.#publishedAt > publishMs) await this.#publish(scanner)
    for (const path of await this.#parts.shelf.wanted()) {
      if (path !== everything) this.#hash(scanner, path)
      else {
        this.lookAgain()
        await this.#parts.shelf.unwant(path)
      }
    }
  }

  /** Goes on from what is in Redis. */
  async #open(): Promise<Scanner | undefined> {
    const { shelf, folders } = this.#parts
    const { record, entries } = await shelf.load()
    // Readers begin anew with a keeper: what it removes is told to those who read on.
    this.#series = randomUUID()
    if (!record) await shelf.clear()
    const version = await shelf.write(this.#token, [], [])
    if (version === undefined) return undefined
    this.#version = version
    this.#scannedAt = record?.scannedAt ?? null
    this.#lookedAt = -Infinity
    return new Scanner(folders, entries)
  }

  async #note(scanner: Scanner, { changed, removed }: Changes): Promise<void> {
    await this.#watch.update(scanner.watched)
    if (changed.length === 0 && removed.length === 0) return
    await this.#recall(changed)
    await this.#write(scanner, changed, removed)
    this.#hashEagerly(scanner)
  }

  async #write(scanner: Scanner, changed: readonly Entry[], removed: readonly string[]): Promise<void> {
    const { shelf } = this.#parts
    const version = await shelf.write(this.#token, changed, removed)
    if (version === undefined) {
      this.#giveUp()
      return
    }
    this.#version = version
    await this.#publish(scanner)
  }

  async #publish({ problems }: Scanner): Promise<void> {
    const { shelf, host, folders, onWritten } = this.#parts
    this.#publishedAt = performance.now()
    await shelf.publish({
      host,
      series: this.#series,
      version: this.#version,
      folders: [...folders],
      problems: [...problems],
      scannedAt: this.#scannedAt,
    })
    onWritten()
  }

  // ---- hashes ----

  /** Fills in what is known of files that have not changed. */
  async #recall(entries: readonly Entry[]): Promise<void> {
    const { shelf } = this.#parts
    for (const entry of entries) entry.identity ??= null
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

  #hashEagerly(scanner: Scanner): void {
    let bytes = 0
    for (const path of clashes(scanner.entries.values())) this.#hash(scanner, path)
    const open = [...scanner.entries.values()].filter(({ drawing, identity }) => drawing && !identity).toSorted((a, b) => a.bytes - b.bytes)
    for (const entry of open) {
      bytes += entry.bytes
      if (bytes > eagerBytes) return
      this.#hash(scanner, entry.path)
    }
  }

  /** Hashes a model, once at a time. */
  #hash(scanner: Scanner, path: string): void {
    if (this.#hashing.has(path)) return
    const { log } = this.#parts
    const work = this.#hashModel(scanner, path)
      .catch((error: unknown) => log.warn({ model: path, err: error }, 'a model was not hashed; it is tried again'))
      .finally(() => this.#hashing.delete(path))
    this.#hashing.set(path, work)
  }

  async #hashModel(scanner: Scanner, path: string): Promise<void> {
    const { shelf } = this.#parts
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
        const { hashes, state } = await this.#hasher.hash(at, (bytes) => tell(at, bytes))
        if (state.size !== file.size || state.modifiedMs !== file.modifiedMs || state.inode !== file.inode) throw new Changed()
        tell(at, file.size)
        await shelf.noteHashes(at, state, hashes)
        return hashes
      }),
    )
    // It may have changed meanwhile, and then it is another entry.
    const now = scanner.entries.get(path)
    if (this.#scanner !== scanner || now?.state !== entry.state) return
    const failure = outcomes.find((outcome) => outcome.status === 'rejected')?.reason as Error | undefined
    if (failure instanceof Changed || this.#isStopped) {
      this.lookAgain()
      // One that is being written is not read again and again.
      await delay(changingMs, undefined, { ref: false })
      return
    }
    const hashes = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []))
    if (failure) now.unhashable = failure.message
    else now.identity = identityOf(now.isFolder, files, hashes)
    await this.#write(scanner, [now], [])
    await shelf.unwant(path)
  }

  async stop(): Promise<void> {
    this.#isStopped = true
    void this.#lease.stop()
    this.#bell.ring()
    await this.#hasher.close()
    await this.#work
    this.#watch.close()
    if (this.#isHolding) await this.#parts.shelf.letGo(this.#token).catch(() => undefined)
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
    byName.set(key, [...(byName.get(key) ?? []), entry])
  }
  return [...byName.values()].flatMap((same) => (same.length > 1 ? same.filter(({ identity }) => !identity).map(({ path }) => path) : []))
}
