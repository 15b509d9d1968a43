/**
 * The models of the farm: the shelves of all hosts in one, read from Redis. Each process has a catalogue, and keeps the
 * shelf of its own folders by turns with the others of its host.
 */
import { closest, distance } from 'fastest-levenshtein'
import type { DarkroomError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { within } from '../promises.ts'
import type { Redis } from '../redis.ts'
import { Ticker } from '../ticker.ts'
import type { Entry, Model } from './entry.ts'
import { modelError } from './errors.ts'
import { Keeper } from './keeper.ts'
import { inOrder, listing, type Listed } from './listing.ts'
import { hostId, shelfId } from './roots.ts'
import { everything, readChanges, readShelves, Shelf, type ShelfCopy, type ShelfRecord } from './shelf.ts'
import { lookAgain } from './found.ts'

/** Between two looks at what has changed, ms. */
const refreshMs = 500
/** How long a request waits for the first look at the folders, ms. */
const firstLookMs = 15_000
const stopMs = 2000

/** A model as somebody asks for it; without a body hash, whatever has the name. */
export interface Wanted {
  id: string
  bodyHash: string | null
}

/**
 * Whether a shelf has a model: `unhashed`, it may, for it has one of that name whose hash is not known; `other`, it has
 * one of that name, and that is another.
 */
export type Holding = 'yes' | 'unhashed' | 'other' | 'no'

/** Entries of a shelf by what is asked for. */
interface Indexed {
  byHash: Map<string, Entry>
  byName: Map<string, Entry[]>
}

export interface CatalogueParts {
  redis: Redis
  /** Model folders of this process. */
  folders: readonly string[]
  log: Logger
}

export class Catalogue {
  /** Id of this process's shelf. */
  readonly shelf: string
  readonly #redis: Redis
  readonly #log: Logger
  readonly #own: Shelf
  readonly #keeper: Keeper
  readonly #ticker: Ticker
  #copies = new Map<string, ShelfCopy>()
  readonly #indexed = new WeakMap<ReadonlyMap<string, Entry>, Indexed>()
  #listed: { listed: readonly Listed[]; byId: ReadonlyMap<string, Listed[]> } | undefined
  #refreshing: Promise<void> | undefined
  #hasRead: Promise<void> | undefined

  constructor({ redis, folders, log }: CatalogueParts) {
    this.shelf = shelfId(folders)
    this.#redis = redis
    this.#log = log
    this.#own = new Shelf(redis, this.shelf)
    this.#keeper = new Keeper({ shelf: this.#own, host: hostId(), folders, log, onWritten: () => void this.#refreshSoon() })
    this.#ticker = new Ticker(
      refreshMs,
      () => this.refresh(),
      (error) => log.debug({ err: error }, 'the shelves were not read'),
    )
  }

  start(): void {
    this.#keeper.start()
    this.#ticker.start()
  }

  /** Once the folders of this host have been looked at, or `ms` have passed. */
  async looked(ms: number): Promise<void> {
    await within(ms, this.#keeper.firstLook, undefined)
    await this.read()
    await this.refresh()
  }

  /** Ends within moments, whether Redis and the folders answer or not. */
  async stop(): Promise<void> {
    void this.#ticker.stop()
    await within(stopMs, this.#keeper.stop(), undefined)
  }

  /** Reads what has changed on any shelf. */
  refresh(): Promise<void> {
    this.#refreshing ??= this.#refresh().finally(() => (this.#refreshing = undefined))
    return this.#refreshing
  }

  /** Once the shelves have been read at all. */
  read(): Promise<void> {
    this.#hasRead ??= this.refresh().catch((error: unknown) => {
      this.#hasRead = undefined
      throw error
    })
    return this.#hasRead
  }

  async #refreshSoon(): Promise<void> {
    await this.#refreshing?.catch(() => undefined)
    await this.refresh().catch((error: unknown) => this.#log.debug({ err: error }, 'the shelves were not read'))
  }

  async #refresh(): Promise<void> {
    const copies = new Map<string, ShelfCopy>()
    let isChanged = false
    for (const record of await readShelves(this.#redis)) {
      const before = this.#copies.get(record.id)
      const copy = await readChanges(this.#redis, record, before)
      isChanged ||= copy.entries !== before?.entries
      copies.set(record.id, copy)
    }
    isChanged ||= copies.size !== this.#copies.size
    this.#copies = copies
    if (isChanged) this.#listed = undefined
  }

  // ---- what there is ----

  /** What the hosts say of their folders, this process's own first. */
  get shelves(): ShelfRecord[] {
    return [...this.#copies.values()]
      .map(({ record }) => record)
      .toSorted((a, b) => this.#order(a.id) - this.#order(b.id) || (a.id < b.id ? -1 : 1))
  }

  #order(shelf: string): number {
    return shelf === this.shelf ? 0 : 1
  }

  /** Every model, in the order of their names. */
  list(): readonly Listed[] {
    return this.#listing.listed
  }

  get #listing(): { listed: readonly Listed[]; byId: ReadonlyMap<string, Listed[]> } {
    this.#listed ??= listing(this.shelves.flatMap(({ id }) => this.#copies.get(id) ?? []))
    return this.#listed
  }

  /**
   * Those of that id: one, or one of each kind; such as draw come first. Waits for the first look when there are none.
   */
  async find(id: string): Promise<readonly Listed[]> {
    await this.read()
    const found = this.#listing.byId.get(id)
    if (found) return found
    await within(firstLookMs, this.#keeper.firstLook, undefined)
    await this.refresh()
    return this.#listing.byId.get(id) ?? []
  }

  /**
   * The model that a request names, for pictures. Its hash is asked for when it is not known.
   * @throws DarkroomError `model.unknown`, `model.unusable`
   */
  async model(id: string, field = 'input.model'): Promise<Model> {
    const [found] = await this.find(id)
    if (!found) throw modelError('unknown', `there is no model ${JSON.stringify(id)}${this.#nearest(id)}`, { field })
    const { entry, bodyHash } = found
    if (!entry.drawing) {
      const { reason } = entry.verdict
      const why = entry.obstacle ?? 'it does not draw'
      throw modelError('unusable', `model ${JSON.stringify(id)} cannot be used: ${why}${this.#nearest(id)}`, {
        field,
        ...(reason && { remedy: reason.remedy }),
      })
    }
    if (bodyHash === null && found.id !== entry.name)
      throw modelError('unusable', `model ${JSON.stringify(id)} has the name of another one, and has not been hashed yet`, {
        field,
        remedy: 'Try again in a moment, by the name with the hash that GET /v1/models then shows.',
      })
    const model = { id: found.id, bodyHash, path: entry.path, ...entry.drawing }
    if (bodyHash === null) await this.want(model)
    return model
  }

  /**
   * An error as it counts for what was accepted before: that no host has told of any model, at the start of a farm or
   * after all of its hosts were away, is no answer yet, and passes.
   */
  ofAccepted(error: DarkroomError): DarkroomError {
    if (error.code !== 'model.unknown' || this.#listing.listed.length > 0) return error
    return modelError('unlisted', error.message, { field: 'input.model' })
  }

  /** The usable names nearest to one that is not, as the end of a sentence. */
  #nearest(id: string): string {
    const usable = this.#listing.listed.filter(({ entry }) => entry.drawing).map((listed) => listed.id)
    if (usable.length === 0) return '; none can be used here'
    const near = usable.length > maxNear ? [closest(id, usable)] : usable.toSorted((a, b) => distance(id, a) - distance(id, b)).slice(0, 5)
    return usable.length <= 5 ? `; usable are: ${usable.join(', ')}` : `; usable are, among ${usable.length}: ${near.join(', ')}`
  }

  // ---- who has what ----

  /** Whether that shelf has the model, as far as was read. */
  holds(shelf: string, wanted: Wanted): Holding {
    const copy = this.#copies.get(shelf)
    if (!copy) return 'no'
    const { byHash, byName } = this.#index(copy.entries)
    const named = byName.get(nameOf(wanted.id)) ?? []
    if (wanted.bodyHash === null) return named.length > 0 ? 'yes' : 'no'
    if (byHash.has(wanted.bodyHash)) return 'yes'
    if (named.some(({ identity, unhashable }) => identity === null && unhashable === null)) return 'unhashed'
    return named.length > 0 ? 'other' : 'no'
  }

  /** Whether any shelf of the farm has it, or may have it. */
  isSomewhere(wanted: Wanted): boolean {
    return [...this.#copies.keys()].some((shelf) => ['yes', 'unhashed'].includes(this.holds(shelf, wanted)))
  }

  /** Asks every host that may have the model to hash it. */
  async want({ id }: Pick<Wanted, 'id'>): Promise<void> {
    for (const [shelf, { entries }] of this.#copies) {
      const named = this.#index(entries).byName.get(nameOf(id)) ?? []
      const open = named.filter(({ identity, unhashable }) => identity === null && unhashable === null)
      await new Shelf(this.#redis, shelf).want(open.map(({ path }) => path))
    }
    this.#keeper.ring()
  }

  /** Asks every host to look at its folders again; returns the ids of their shelves. */
  async rescan(): Promise<string[]> {
    await this.read()
    const ids = this.shelves.map(({ id }) => id)
    await Promise.all(ids.map((id) => new Shelf(this.#redis, id).want([everything])))
    this.#keeper.ring()
    return ids
  }

  #index(entries: ReadonlyMap<string, Entry>): Indexed {
    const known = this.#indexed.get(entries)
    if (known) return known
    const byHash = new Map<string, Entry>()
    const byName = new Map<string, Entry[]>()
    for (const entry of inOrder(entries)) {
      if (!entry.drawing) continue
      if (entry.identity && !byHash.has(entry.identity.bodyHash)) byHash.set(entry.identity.bodyHash, entry)
      byName.set(entry.name, [...(byName.get(entry.name) ?? []), entry])
    }
    this.#indexed.set(entries, { byHash, byName })
    return { byHash, byName }
  }

  // ---- this host's own ----

  /** The models of this host, as far as was read. */
  own(): Entry[] {
    return [...(this.#copies.get(this.shelf)?.entries.values() ?? [])]
  }

  /**
   * The model in this host's folders, as it lies there now.
   * @throws DarkroomError `model.missing` when it is not there, or not in the state that the shelf knows
   */
  async here(wanted: Wanted): Promise<Entry & { drawing: NonNullable<Entry['drawing']> }> {
    await this.read()
    const copy = this.#copies.get(this.shelf)
    const { byHash, byName } = this.#index(copy?.entries ?? new Map())
    const entry = wanted.bodyHash === null ? byName.get(nameOf(wanted.id))?.[0] : byHash.get(wanted.bodyHash)
    if (!entry?.drawing) throw modelError('missing', `the folders of this worker have no model ${described(wanted)} now`)
    if (!(await this.isAsKnown(entry))) throw modelError('missing', `the files of model ${wanted.id} have changed, and are looked at again`)
    return entry as Entry & { drawing: NonNullable<Entry['drawing']> }
  }

  /** Whether the files are still those that the entry is of; when not, they are looked at again. */
  async isAsKnown({ path, files, state }: Entry): Promise<boolean> {
    if ((await lookAgain(path, files)) === state) return true
    this.#keeper.lookAgain()
    return false
  }

  /**
   * The identity of a model of this host, once it has been hashed.
   * @param progress told how many bytes are done, of how many
   * @throws DarkroomError `model.missing`, `model.unreadable`; what `signal` aborts with
   */
  async hashed(id: string, progress: (done: number, total: number) => void, signal: AbortSignal): Promise<Entry> {
    const look = 150
    for (;;) {
      signal.throwIfAborted()
      const entry = await this.here({ id, bodyHash: null })
      if (entry.identity) return entry
      if (entry.unhashable !== null)
        throw modelError('unreadable', `model ${id} cannot be read: ${entry.unhashable}`, { field: 'input.model' })
      await this.#own.want([entry.path])
      this.#keeper.ring()
      const far = await this.#own.progress(entry.path)
      if (far) progress(far.done, far.total)
      await new Promise((resolve) => setTimeout(resolve, look))
      await this.refresh()
    }
  }
}

/** More names than this are not put in order for a message. */
const maxNear = 2000

/** Name of a model whose id tells it apart from others of that name. */
const nameOf = (id: string): string => id.replace(/ \[[0-9a-f]{10}\]$/, '')

export const described = ({ id, bodyHash }: Wanted): string => (bodyHash === null ? id : `${id} with body ${bodyHash.slice(0, 10)}`)
