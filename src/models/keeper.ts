/**
 * Keeps the shelf of its host: walks the folders, watches them, has models hashed, and writes what has changed.
 * Every process that has the folders has a keeper; the one that holds the lease works, the others stand by.
 */
import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { Bell } from '../bell.ts'
import type { Logger } from '../log.ts'
import { deferred } from '../promises.ts'
import { Ticker } from '../ticker.ts'
import { Composer } from './composer.ts'
import { indexFormat } from './entry.ts'
import { Hashing, type IdleTime } from './hashing.ts'
import { Judges } from './judges.ts'
import { Scanner, type Changes } from './scanner.ts'
import { everything, keeperMs, type Shelf, type ShelfCopy, type ShelfRecord } from './shelf.ts'
import { FolderWatch } from './watch.ts'

/** How long a change is left alone, ms: most come in bursts. */
const settleMs = 200
/** How often it looks for hashes that are asked for, ms. */
const turnMs = 300
const publishMs = 10_000

export interface KeeperParts {
  shelf: Shelf
  host: string
  folders: readonly string[]
  /** Between two looks at everything, ms: of what no watch tells. */
  rescanMs: number
  /** Folders of configurations for models that are files. */
  configs: readonly string[]
  log: Logger
  idle: IdleTime
  /** What this process has read of the shelf, if anything: both hold the same entries then. */
  copy: () => Promise<ShelfCopy | undefined>
  /** This was written, after what the shelf was at version `since`. */
  onWritten: (written: Written) => void
}

export interface Written extends Changes {
  record: ShelfRecord
  since: number
}

export class Keeper {
  readonly #parts: KeeperParts
  readonly #token = randomUUID()
  readonly #bell = new Bell()
  readonly #composer: Composer
  readonly #hashing: Hashing
  readonly #judges = new Judges()
  readonly #lease: Ticker
  readonly #watch: FolderWatch
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
  #writing: Promise<void> = Promise.resolve()
  #hasToldOfWatch = false
  readonly #firstLook = deferred<void>()

  /** Resolves when the folders have been looked at once, here or by another process. */
  readonly firstLook = this.#firstLook.promise

  constructor(parts: KeeperParts) {
    this.#parts = parts
    this.#composer = new Composer(parts.configs)
    const { idle, log, shelf } = parts
    this.#hashing = new Hashing({
      shelf,
      idle,
      log,
      write: async (scanner, entries) => {
        if (this.#scanner === scanner) await this.#write(scanner, { changed: entries.map((entry) => scanner.keep(entry)), removed: [] })
      },
      changed: () => this.lookAgain(),
      done: () => this.#bell.ring(),
    })
    this.#lease = new Ticker(
      keeperMs / 3,
      () => this.#hold(),
      (error) => log.debug({ err: error }, 'the lease of the shelf could not be renewed'),
    )
    this.#watch = new FolderWatch(
      () => this.#bell.ring(),
      (error) => {
        if (!this.#hasToldOfWatch)
          log.warn({ err: error, everyMs: parts.rescanMs }, 'a model folder is not watched; it is looked at by turns')
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
    this.#hashing.halt()
    this.#watch.close()
  }

  async #run(): Promise<void> {
    while (!this.#isStopped) {
      try {
        if (this.#isHolding) await this.#turn()
      } catch (error) {
        if (!this.#isStopped) this.#parts.log.warn({ err: error }, 'the shelf of models was not brought up to date; it is tried again')
      }
      if (!this.#isStopped) await this.#bell.wait(turnMs)
    }
  }

  async #turn(): Promise<void> {
    const scanner = (this.#scanner ??= await this.#open())
    if (!scanner) return
    if (this.#wantsLook || performance.now() - this.#lookedAt > this.#parts.rescanMs || (await scanner.hasNewRoot())) {
      this.#wantsLook = false
      this.#watch.take()
      await scanner.scan((changes) => this.#note(scanner, changes))
      await this.#looked(scanner)
      this.#scannedAt = Date.now()
      this.#lookedAt = performance.now()
      await this.#publish(scanner)
      this.#firstLook.resolve()
    } else if (this.#watch.hasChanges) {
      await delay(settleMs)
      await scanner.scanAgain(this.#watch.take(), (changes) => this.#note(scanner, changes))
      await this.#looked(scanner)
    }
    if (performance.now() - this.#publishedAt > publishMs) await this.#publish(scanner)
    for (const path of await this.#parts.shelf.wanted()) {
      if (path !== everything) this.#hashing.hash(scanner, path)
      else {
        this.lookAgain()
        await this.#parts.shelf.unwant(path)
      }
    }
    await this.#hashing.inIdleTime(scanner)
  }

  /** Goes on from what is in Redis. */
  async #open(): Promise<Scanner | undefined> {
    const { copy, shelf, folders } = this.#parts
    const record = await shelf.record()
    const isOurs = record?.format === indexFormat
    // What was begun anew is told to those who read on.
    this.#series = isOurs ? record.series : randomUUID()
    if (!isOurs) await shelf.clear()
    const version = await shelf.write(this.#token, [], [])
    if (version === undefined) return undefined
    this.#version = version
    this.#scannedAt = isOurs ? record.scannedAt : null
    this.#lookedAt = -Infinity
    const read = await copy()
    const known = read?.record.series === this.#series && read.version === version ? read.entries : await shelf.load()
    return new Scanner(folders, { known, judge: this.#judges.judge, arrive: (path, folder) => this.#watch.arrive(path, folder) })
  }

  async #note(scanner: Scanner, changes: Changes): Promise<void> {
    if (changes.changed.length === 0 && changes.removed.length === 0) return
    await this.#hashing.recall(changes.changed)
    await this.#write(scanner, changes)
  }

  /** After a look at folders. */
  async #looked(scanner: Scanner): Promise<void> {
    await this.#watch.update(scanner.watched)
    // Models that are made of files follow from all that is there.
    await this.#note(scanner, { changed: await this.#composer.compose(scanner.entries), removed: [] })
    this.#hashing.eagerly(scanner)
  }

  /** One after another: each write is told with the version before it. */
  #inTurn(act: () => Promise<void>): Promise<void> {
    const turn = this.#writing.then(act)
    // What was not written is found again, from what Redis has.
    this.#writing = turn.catch(() => void (this.#scanner = undefined))
    return turn
  }

  #write(scanner: Scanner, changes: Changes): Promise<void> {
    return this.#inTurn(() => this.#writeNow(scanner, changes))
  }

  async #writeNow(scanner: Scanner, { changed, removed }: Changes): Promise<void> {
    const { shelf } = this.#parts
    const since = this.#version
    const version = await shelf.write(this.#token, changed, removed)
    if (version === undefined) {
      this.#giveUp()
      return
    }
    this.#version = version
    await this.#publishNow(scanner, { changed, removed, since })
  }

  #publish(scanner: Scanner): Promise<void> {
    return this.#inTurn(() => this.#publishNow(scanner, { changed: [], removed: [], since: this.#version }))
  }

  async #publishNow({ problems }: Scanner, written: Omit<Written, 'record'>): Promise<void> {
    const { shelf, host, folders, onWritten } = this.#parts
    this.#publishedAt = performance.now()
    const record = await shelf.publish({
      host,
      series: this.#series,
      version: this.#version,
      folders: [...folders],
      problems: [...problems],
      scannedAt: this.#scannedAt,
    })
    onWritten({ record, ...written })
  }

  async stop(): Promise<void> {
    this.#isStopped = true
    void this.#lease.stop()
    this.#bell.ring()
    await Promise.all([this.#hashing.stop(), this.#judges.close()])
    await this.#work
    this.#watch.close()
    if (this.#isHolding) await this.#parts.shelf.letGo(this.#token).catch(() => undefined)
  }
}
