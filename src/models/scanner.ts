/** From folders to entries: walks them, and looks at the headers of what is new or has changed. Knows no Redis. */
import { realpath } from 'node:fs/promises'
import { readDrawing } from './drawing.ts'
import type { Entry } from './entry.ts'
import type { FollowLinks } from './folder.ts'
import { judge } from './judge.ts'
import { eachOf, looker } from './look.ts'
import { isInside, resolveRoots, type Root, type RootProblem } from './roots.ts'
import { failed, reasonOf, type Verdict } from './verdict.ts'
import type { Found } from './found.ts'
import { Tree } from './walk.ts'

/** How long the headers of one model may take, ms. */
const judgeMs = 15_000
/** How many models are looked at at once. */
const width = 3

export interface Changes {
  changed: Entry[]
  /** Paths of what is not there any more. */
  removed: string[]
}

export class Scanner {
  readonly entries: Map<string, Entry>
  readonly #folders: readonly string[]
  readonly #tree: Tree
  #roots: readonly Root[] = []
  #problems: readonly RootProblem[] = []
  #absent: readonly string[] = []

  /** `known`: what an earlier look has found; it is not looked at again unless it has changed. */
  constructor(folders: readonly string[], known: ReadonlyMap<string, Entry> = new Map(), lookMs?: number) {
    this.#folders = folders
    this.entries = new Map(known)
    this.#tree = new Tree(lookMs)
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
      const isThere = await looker(judgeMs)(path, () => realpath(path)).then(
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

  /** Looks at everything. */
  async scan(): Promise<Changes> {
    const { roots, problems, absent } = await resolveRoots(this.#folders)
    this.#roots = roots
    this.#absent = absent
    this.#problems = problems
    await this.#tree.walk(roots)
    return this.#compare()
  }

  /** Looks at these folders, as `watched` names them. */
  async scanAgain(folders: Iterable<string>): Promise<Changes> {
    await this.#tree.walkAgain(folders)
    return this.#compare()
  }

  async #compare(): Promise<Changes> {
    const changed: Entry[] = []
    const fresh: Found[] = []
    const present = new Set<string>()
    for (const found of this.#tree.found()) {
      // The first root's, where two show the same.
      if (present.has(found.path)) continue
      present.add(found.path)
      const known = this.entries.get(found.path)
      if (known?.state !== found.state) fresh.push(found)
      else if (
        known.name !== found.name ||
        known.root !== found.root ||
        known.rank !== this.#rankOf(found) ||
        known.folderKind !== found.folderKind
      )
        changed.push(this.#keep({ ...known, ...found, rank: this.#rankOf(found) }))
    }
    const removed = [...this.entries.keys()].filter((path) => !present.has(path))
    for (const path of removed) this.entries.delete(path)
    const look = looker(judgeMs)
    await eachOf(
      fresh,
      async (found) =>
        void changed.push(this.#keep(await entryOf(found, this.#rankOf(found), this.#follow, (act) => look(found.path, act)))),
      width,
    )
    return { changed, removed }
  }

  /** Links may lead to anywhere in the model folders. */
  readonly #follow: FollowLinks = async (path) => {
    const real = await realpath(path).catch(() => undefined)
    return real !== undefined && isInside(real, this.#roots) ? real : undefined
  }

  #rankOf({ root }: Found): number {
    return this.#roots.findIndex(({ path }) => path === root)
  }

  #keep(entry: Entry): Entry {
    this.entries.set(entry.path, entry)
    return entry
  }
}

/** What the headers of a model say. Never throws: what goes wrong is what the entry says. */
async function entryOf(found: Found, rank: number, follow: FollowLinks, look: <T>(act: () => Promise<T>) => Promise<T>): Promise<Entry> {
  const verdict = await look(() => judge(found, follow)).catch((error: Error): Verdict =>
    failed(found.isFolder ? 'diffusers' : 'safetensors', reasonOf('unreadable', '', error.message)),
  )
  const base = {
    ...found,
    rank,
    bytes: found.files.reduce((sum, { size }) => sum + size, 0),
    modifiedAt: Math.round(Math.max(0, ...found.files.map(({ modifiedMs }) => modifiedMs))),
    identity: null,
    unhashable: null,
  }
  if (verdict.reason) return { ...base, verdict, drawing: null, obstacle: verdict.reason.message }
  try {
    const { drawing, obstacle, notes } = await look(() => readDrawing(found.path, verdict))
    return { ...base, verdict: { ...verdict, notes: [...verdict.notes, ...notes] }, drawing, obstacle }
  } catch (error) {
    return { ...base, verdict, drawing: null, obstacle: (error as Error).message }
  }
}
