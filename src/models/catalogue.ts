/**
 * The models of the farm: the shelves of all hosts in one, read from Redis. Each process has a catalogue, and keeps the
 * shelf of its own folders by turns with the others of its host.
 */
import type { Logger } from '../log.ts'
import { within } from '../promises.ts'
import type { Redis } from '../redis.ts'
import { Ticker } from '../ticker.ts'
import { Annotations, type Annotation } from './annotations.ts'
import { pictureBeside, type PictureFile } from './beside.ts'
import { Benchmarks } from './benchmarks.ts'
import type { Entry, Model, VaePin } from './entry.ts'
import { modelError } from './errors.ts'
import { judge } from './judge.ts'
import { Keeper, type Written } from './keeper.ts'
import { listing, type Listed } from './listing.ts'
import { meant, type Meant } from './meant.ts'
import { hostId, isOnThisHost, resolveRoots, shelfId } from './roots.ts'
import { everything, readChanges, readShelves, Shelf, type ShelfCopy, type ShelfRecord } from './shelf.ts'
import { isUnchanged } from './made.ts'
import { vaeFor } from './own-vae.ts'
import { unhashed, unknown, unlisted, usable } from './usable.ts'
import { validate, type Validation } from './validate.ts'
import type { Kind } from './verdict.ts'
import { described, holdingOf, indexed, isOf, kindAndName, nameOf, type Holding, type Wanted } from './wanted.ts'

/** Between two looks at what has changed, ms. */
const refreshMs = 500
/** How long a request waits for the first look at the folders, ms. */
const firstLookMs = 15_000
const stopMs = 2000

export interface CatalogueParts {
  redis: Redis
  /** Model folders of this process. */
  folders: readonly string[]
  /** Folders of configurations for models that are files. */
  configs: readonly string[]
  /** Between two looks at everything in the folders, ms. */
  rescanMs: number
  log: Logger
  /** Bytes a second of models that nobody asked for that are hashed while no worker of this host runs a step. */
  idleHash: number
  /** Workers that live. */
  workers: () => Promise<readonly { shelf: string; running: readonly unknown[] }[]>
}

type Tell = (done: number, total: number) => void

export class Catalogue {
  /** Id of this process's shelf. */
  readonly shelf: string
  /** What models did where, when it was measured. */
  readonly benchmarks: Benchmarks
  readonly #annotations: Annotations
  readonly #redis: Redis
  readonly #log: Logger
  readonly #workers: CatalogueParts['workers']
  readonly #own: Shelf
  readonly #folders: readonly string[]
  readonly #keeper: Keeper
  readonly #ticker: Ticker
  #copies = new Map<string, ShelfCopy>()
  #listed: { listed: readonly Listed[]; byId: ReadonlyMap<string, Listed[]> } | undefined
  #refreshing: Promise<void> | undefined
  #hasRead: Promise<void> | undefined

  constructor({ redis, folders, configs, rescanMs, log, idleHash, workers }: CatalogueParts) {
    this.shelf = shelfId([...folders, ...configs])
    this.#redis = redis
    this.benchmarks = new Benchmarks(redis)
    this.#annotations = new Annotations(redis)
    this.#log = log
    this.#folders = folders
    this.#workers = workers
    this.#own = new Shelf(redis, this.shelf)
    this.#keeper = new Keeper({
      shelf: this.#own,
      host: hostId(),
      folders,
      configs,
      rescanMs,
      log,
      idle: {
        pace: idleHash,
        isBusy: async () => (await workers()).some(({ shelf, running }) => isOnThisHost(shelf) && running.length > 0),
      },
      copy: () => this.read().then(() => this.#copies.get(this.shelf)),
      onWritten: (written) => this.#apply(written),
    })
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

  /** What this process has written needs not be read again. */
  #apply({ record, since, changed, removed }: Written): void {
    const copy = this.#copies.get(record.id)
    if (copy?.record.series !== record.series || copy.version !== since) return void this.#refreshSoon()
    if (changed.length === 0 && removed.length === 0) {
      this.#copies.set(record.id, { ...copy, record })
      return
    }
    const entries = new Map(copy.entries)
    for (const entry of changed) entries.set(entry.path, entry)
    for (const path of removed) entries.delete(path)
    this.#copies.set(record.id, { record, version: record.version, entries })
    this.#listed = undefined
  }

  async #refreshSoon(): Promise<void> {
    await this.#refreshing?.catch(() => undefined)
    await this.refresh().catch((error: unknown) => this.#log.debug({ err: error }, 'the shelves were not read'))
  }

  async #refresh(): Promise<void> {
    const copies = new Map<string, ShelfCopy>()
    let isChanged = await this.#annotations.refresh()
    for (const record of await readShelves(this.#redis)) {
      const before = this.#copies.get(record.id)
      const copy = await readChanges(this.#redis, record, before)
      isChanged ||= copy.entries !== before?.entries
      copies.set(record.id, copy)
    }
    // Written meanwhile by this process.
    const [own, read] = [this.#copies.get(this.shelf), copies.get(this.shelf)]
    if (own && read?.record.series === own.record.series && own.version > read.version) copies.set(this.shelf, own)
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
    this.#listed ??= listing(
      this.shelves.flatMap(({ id }) => this.#copies.get(id) ?? []),
      (bodyHash) => this.#annotations.of(bodyHash),
    )
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
   * @throws DarkroomError `model.unknown`, `model.unusable`; `model.unlisted` while a host has not told what it has
   */
  async model(id: string, kind?: Kind, field = 'input.model'): Promise<Model> {
    const same = await this.find(id)
    const found = kind === undefined ? same[0] : meant(same, id, kind, field)
    if (!found && !(await this.#isWhole())) throw unlisted(id, field)
    if (!found) throw unknown(id, this.list(), field)
    const model = usable(found, this.list(), id, field)
    if (model.bodyHash === null) {
      await this.want({ id, kind })
      // Without a hash a name is all that a worker has, and of several that draw it takes the first.
      if (found !== same[0]) throw unhashed(id, found.entry.verdict.kind, field)
    }
    return model
  }

  /**
   * A model of any kind that a request names, whether it draws or not; `meant` says which of several kinds.
   * @throws DarkroomError `model.unknown`, `model.ambiguous`; `model.unlisted` while a host has not told what it has
   */
  async named(id: string, kind?: Meant, field = 'input.model'): Promise<Listed> {
    const found = meant(await this.find(id), id, kind, field)
    if (found) return found
    if (!(await this.#isWhole())) throw unlisted(id, field)
    throw modelError('unknown', `there is no model ${JSON.stringify(id.slice(0, 200))}`, {
      field,
      remedy: 'Name one that GET /v1/models lists; `darkroom models WORDS` searches them.',
    })
  }

  /**
   * Whether all hosts have looked at their folders and told of it: those of the workers, and this one. An empty list of
   * a farm without workers is that of hosts which are away.
   */
  async #isWhole(): Promise<boolean> {
    const workers = await this.#workers()
    if (workers.length === 0 && this.#listing.listed.length === 0) return false
    return [this.shelf, ...workers.map(({ shelf }) => shelf)].every((shelf) => {
      const scannedAt = this.#copies.get(shelf)?.record.scannedAt
      return scannedAt !== null && scannedAt !== undefined
    })
  }

  // ---- who has what ----

  /** Whether that shelf has the model, as far as was read. */
  holds(shelf: string, wanted: Wanted): Holding {
    const copy = this.#copies.get(shelf)
    if (!copy) return 'no'
    return holdingOf(copy.entries, wanted)
  }

  /** Whether any shelf of the farm has it, or may have it. */
  isSomewhere(wanted: Wanted): boolean {
    return [...this.#copies.keys()].some((shelf) => ['yes', 'unhashed'].includes(this.holds(shelf, wanted)))
  }

  /** Asks every host that may have the model to hash it. */
  async want({ id, kind }: Pick<Wanted, 'id' | 'kind'>): Promise<void> {
    for (const [shelf, { entries }] of this.#copies) {
      const { byName, ofKind } = indexed(entries)
      const named = (kind ? ofKind.get(kindAndName(kind, id)) : byName.get(nameOf(id))) ?? []
      const open = named.filter(({ identity, unhashable }) => identity === null && unhashable === null)
      await new Shelf(this.#redis, shelf).want(open.map(({ path }) => path))
    }
    this.#keeper.ring()
  }

  /**
   * Says this of a model from now on, for every one of that body; null: nothing any more.
   * @throws DarkroomError `model.unhashed`, `model.annotations_full`
   */
  async annotate({ id, bodyHash, entry }: Listed, annotation: Annotation | null): Promise<void> {
    if (bodyHash === null) {
      // What nobody can read is not hashed either.
      if (!entry.verdict.reason) await this.want(entry.drawing ? { id } : { id, kind: entry.verdict.kind })
      throw modelError('unhashed', `model ${JSON.stringify(id)} has not been hashed, and what is said of a model follows its bytes`)
    }
    await this.#annotations.write(bodyHash, annotation)
    this.#listed = undefined
  }

  /**
   * The VAE that somebody means for a model, by its id or body hash.
   * @throws DarkroomError `model.unknown`, `model.unusable`, `model.unhashed`
   */
  async vaeOf(model: Listed, said: string, field: string): Promise<VaePin> {
    const { id, bodyHash, holders } = vaeFor(model, said, this.list(), field)
    if (bodyHash !== null) return { id, bodyHash }
    for (const { shelf, entry } of holders) await new Shelf(this.#redis, shelf).want([entry.path])
    this.#keeper.ring()
    const remedy = 'Try again in a moment: it is being hashed.'
    throw modelError('unhashed', `the VAE ${JSON.stringify(id)} has not been hashed yet`, { field, remedy })
  }

  /** Asks every host to look at its folders again; returns the ids of their shelves. */
  async rescan(): Promise<string[]> {
    await this.read()
    const ids = this.shelves.map(({ id }) => id)
    await Promise.all(ids.map((id) => new Shelf(this.#redis, id).want([everything])))
    this.#keeper.ring()
    return ids
  }

  // ---- this host's own ----

  /** The picture that lies beside a model in this host's folders. @throws SilentFolder */
  async pictureBeside({ holders }: Pick<Listed, 'holders'>): Promise<PictureFile | undefined> {
    const own = holders.find(({ shelf }) => shelf === this.shelf)
    return own && pictureBeside(own.entry, (await resolveRoots(this.#folders)).roots)
  }

  /** The models of this host, as far as was read. */
  own(): Entry[] {
    return [...(this.#copies.get(this.shelf)?.entries.values() ?? [])]
  }

  /** As it lies in this host's folders now. @throws DarkroomError `model.missing`, also when it has changed */
  async here(wanted: Wanted): Promise<Entry & { drawing: NonNullable<Entry['drawing']> }> {
    const { byHash, byName } = await this.#indexed()
    const entry = wanted.bodyHash === null ? byName.get(nameOf(wanted.id))?.[0] : byHash.get(wanted.bodyHash)
    return (await this.#unchanged(entry?.drawing ? entry : undefined, wanted)) as Entry & { drawing: NonNullable<Entry['drawing']> }
  }

  /** What this host has of that kind and name, whether it draws or not. @throws DarkroomError `model.missing` */
  async shelved(wanted: Wanted & { kind: Kind }): Promise<Entry> {
    const named = (await this.#indexed()).ofKind.get(kindAndName(wanted.kind, wanted.id))
    const entry = named?.find((each) => isOf(each, wanted))
    return this.#unchanged(entry, wanted)
  }

  async #indexed(): Promise<ReturnType<typeof indexed>> {
    await this.read()
    return indexed(this.#copies.get(this.shelf)?.entries ?? new Map<string, Entry>())
  }

  /** @throws DarkroomError `model.missing` */
  async #unchanged(entry: Entry | undefined, wanted: Wanted): Promise<Entry> {
    if (!entry) throw modelError('missing', `the folders of this worker have no ${wanted.kind ?? 'model'} ${described(wanted)} now`)
    if (await this.isAsKnown(entry)) return entry
    throw modelError('missing', `the files of ${wanted.kind ?? 'model'} ${wanted.id} have changed, and are looked at again`)
  }

  /** The same with its verdict read anew off its headers. */
  async lying(wanted: Wanted & { kind: Kind }): Promise<Entry> {
    const entry = await this.shelved(wanted)
    const [anew] = await judge([entry], (await resolveRoots(this.#folders)).roots)
    return { ...entry, verdict: anew?.verdict ?? entry.verdict }
  }

  /** A model of this host, read whole. @throws as `hashed` */
  async validated(wanted: Wanted & { kind: Kind }, progress: Tell, signal: AbortSignal): Promise<Validation> {
    const entry = await this.lying(wanted)
    const found = await validate(entry, this.#own, progress, signal)
    if (await this.isAsKnown(entry)) return found
    throw modelError('missing', `the files of ${wanted.id} changed while they were read`)
  }

  /** Has the folders of this host looked at again soon. */
  lookAgain(): void {
    this.#keeper.lookAgain()
  }

  /** Whether the files are still those that the entry is of; when not, they are looked at again. */
  async isAsKnown(entry: Entry): Promise<boolean> {
    if (await isUnchanged(entry)) return true
    this.#keeper.lookAgain()
    return false
  }

  /**
   * The identity of a model of this host, once it has been hashed.
   * @param progress told how many bytes are done, of how many
   * @throws DarkroomError `model.missing`, `model.unreadable`; what `signal` aborts with
   */
  async hashed({ id, kind }: Omit<Wanted, 'bodyHash'>, progress: Tell, signal: AbortSignal): Promise<Entry> {
    const look = 150
    for (;;) {
      signal.throwIfAborted()
      const entry = await (kind ? this.shelved({ id, kind, bodyHash: null }) : this.here({ id, bodyHash: null }))
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
