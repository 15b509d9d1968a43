/** From folders to entries: walks them, and has the headers looked at of what is new or has changed. Knows no Redis. */
import { realpath } from 'node:fs/promises'
import type { Entry } from './entry.ts'
import { judge, unjudgedState, type Judge, type Ranked } from './judge.ts'
import { looker } from './look.ts'
import { resolveRoots, type Root, type RootProblem } from './roots.ts'
import type { Found } from './found.ts'
import { Tree, type Arrive } from './walk.ts'

/** How long a folder that was not there may take to answer, ms. */
const newRootMs = 15_000
/** How many models are looked at before they are told. */
const batch = 256

export interface Changes {
  changed: Entry[]
  /** Paths of what is not there any more. */
  removed: string[]
}

export interface ScannerOptions {
  /** What an earlier look has found; it is not looked at again unless it has changed. */
  known?: ReadonlyMap<string, Entry>
  /** How long a folder may take to answer, ms. */
  lookMs?: number
  /** Who looks at headers; default: this thread. */
  judge?: Judge
  /** Told of each folder before it is read. */
  arrive?: Arrive
}

type Note = (changes: Changes) => Promise<void>

export class Scanner {
  readonly entries: Map<string, Entry>
  readonly #judge: Judge
  readonly #folders: readonly string[]
  readonly #tree: Tree
  #roots: readonly Root[] = []
  #problems: readonly RootProblem[] = []
  #absent: readonly string[] = []

  constructor(folders: readonly string[], { known, lookMs, judge: judged = judge, arrive }: ScannerOptions = {}) {
    this.#folders = folders
    this.entries = new Map(known)
    this.#judge = judged
    this.#tree = new Tree({ ...(lookMs !== undefined && { lookMs }), ...(arrive && { arrive }) })
  }

  /** Configured folders that cannot be searched. */
  get problems(): readonly RootProblem[] {
    return this.#problems
  }

  get roots(): readonly Root[] {
    return this.#roots
  }

  /** Whether a folder has come that was not there at the last look at everything. */
  async hasNewRoot(): Promise<boolean> {
    for (const path of this.#absent) {
      const isThere = await looker(newRootMs)(path, () => realpath(path)).then(
        () => true,
        () => false,
      )
      if (isThere) return true
    }
    return false
  }

  /** Folders whose changes concern this one, with the folder to look at again then. */
  get watched(): Iterable<{ path: string; folder: string }> {
    return this.#tree.watched()
  }

  /** Looks at everything. `note` is told what has changed as it is found; returned is all of it. */
  async scan(note?: Note): Promise<Changes> {
    const { roots, problems, absent } = await resolveRoots(this.#folders)
    this.#roots = roots
    this.#absent = absent
    this.#problems = problems
    await this.#tree.walk(roots)
    return this.#compare(note, false)
  }

  /** Looks at these folders, as `watched` names them. */
  async scanAgain(folders: Iterable<string>, note?: Note): Promise<Changes> {
    await this.#tree.walkAgain(folders)
    return this.#compare(note, true)
  }

  /** `isPart`: what could not be looked at before waits for the next look at everything. */
  async #compare(note: Note | undefined, isPart: boolean): Promise<Changes> {
    const changed: Entry[] = []
    const fresh: Ranked[] = []
    const present = new Set<string>()
    for (const found of this.#tree.found()) {
      // The first root's, where two show the same.
      if (present.has(found.path)) continue
      present.add(found.path)
      const known = this.entries.get(found.path)
      const ranked = { ...found, rank: this.#rankOf(found) }
      const isKnown = known?.state === found.state || (isPart && known?.state === unjudgedState(found.state))
      if (!known || !isKnown) fresh.push(ranked)
      else if (
        known.name !== found.name ||
        known.root !== found.root ||
        known.rank !== ranked.rank ||
        known.folderKind !== found.folderKind
      )
        changed.push(this.keep({ ...known, ...ranked, state: known.state }))
    }
    const removed = [...this.entries.keys()].filter((path) => !present.has(path))
    for (const path of removed) this.entries.delete(path)
    const tell: Note = note ?? (() => Promise.resolve())
    let noted = tell({ changed: [...changed], removed })
    for (let i = 0; i < fresh.length; i += batch) {
      const entries = await this.#judge(fresh.slice(i, i + batch), this.#roots)
      for (const entry of entries) changed.push(this.keep(entry))
      await noted
      noted = tell({ changed: entries, removed: [] })
    }
    await noted
    return { changed, removed }
  }

  #rankOf({ root }: Found): number {
    return this.#roots.findIndex(({ path }) => path === root)
  }

  keep(entry: Entry): Entry {
    this.entries.set(entry.path, entry)
    return entry
  }
}
