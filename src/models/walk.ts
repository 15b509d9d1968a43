/**
 * Which models there are in the model folders, by their names and places alone: no file is opened but the head of a hub
 * cache. Each entry stands for itself: what cannot be looked at is one entry more, with its reason.
 */
import { readdir, realpath } from 'node:fs/promises'
import { basename } from 'node:path'
import { faultOf, FolderReader, oddity, type Folder, type Node } from './folder-reader.ts'
import type { Found } from './found.ts'
import { looker, type Look } from './look.ts'
import type { Root } from './roots.ts'

/** Entries of all roots together; more is no collection of models. */
const maxFound = 200_000

/** A folder that is about to be read: `path` itself, or a part of the model in `folder`. */
export type Arrive = (path: string, folder: string) => Promise<void>

/** The model folders as they were at the last look. */
export class Tree {
  #roots: readonly Root[] = []
  #nodes = new Map<string, Node>()
  /** Real path of every folder that is walked: what is reached twice, by links, is walked once. */
  #reals = new Map<string, string>()
  #looks = new Map<string, Look>()
  #count = 0
  readonly #lookMs: number | undefined
  readonly #arrive: Arrive

  /** `lookMs`: how long a folder may take to answer. `arrive` is called before a folder is read. */
  constructor({ lookMs, arrive = () => Promise.resolve() }: { lookMs?: number; arrive?: Arrive } = {}) {
    this.#lookMs = lookMs
    this.#arrive = arrive
  }

  /** Everything that was found, folder by folder. */
  *found(): Iterable<Found> {
    for (const { found } of this.#nodes.values()) yield* found
  }

  /** Folders whose changes concern the tree; with the folder to be walked again. */
  *watched(): Iterable<{ path: string; folder: string }> {
    for (const { folder, watched } of this.#nodes.values()) for (const path of watched) yield { path, folder: folder.path }
  }

  /** Walks everything anew. */
  async walk(roots: readonly Root[]): Promise<void> {
    this.#roots = roots
    this.#nodes = new Map()
    this.#reals = new Map()
    this.#count = 0
    for (const root of roots) await this.#walkFrom([this.#top(root)])
  }

  /** Walks these folders again, with what is new below them. */
  async walkAgain(paths: Iterable<string>): Promise<void> {
    for (const path of paths) {
      const node = this.#nodes.get(path)
      // It went with a folder above that was walked again before it.
      if (!node) continue
      const before = node.below
      this.#forget(node, false)
      const below = await this.#read(node.folder)
      const after = new Set(below.map((folder) => folder.path))
      for (const gone of before) if (!after.has(gone)) this.#drop(gone)
      await this.#walkFrom(below.filter((folder) => !this.#nodes.has(folder.path)))
    }
  }

  #top(root: Root): Folder {
    return { path: root.path, root, name: '', kind: root.kind ?? null, depth: 0 }
  }

  async #walkFrom(folders: readonly Folder[]): Promise<void> {
    const todo = [...folders]
    for (let folder = todo.shift(); folder; folder = todo.shift()) todo.push(...(await this.#read(folder)))
  }

  #forget({ folder, found }: Node, withReal: boolean): void {
    this.#nodes.delete(folder.path)
    this.#count -= found.length
    if (!withReal) return
    for (const [real, path] of this.#reals) if (path === folder.path) this.#reals.delete(real)
  }

  #drop(path: string): void {
    const node = this.#nodes.get(path)
    if (!node) return
    this.#forget(node, true)
    for (const below of node.below) this.#drop(below)
  }

  /** One for each root, for as long as the tree is kept: a folder that hangs is not asked again and again. */
  #look(root: Root): Look {
    const look = this.#looks.get(root.path) ?? looker(this.#lookMs)
    this.#looks.set(root.path, look)
    return look
  }

  /** Walks one folder; returns those below it that are to be walked. */
  async #read(folder: Folder): Promise<Folder[]> {
    const { path, root } = folder
    const look = this.#look(root)
    const node: Node = { folder, found: [], below: [], watched: [path] }
    this.#nodes.set(path, node)
    try {
      const real = await look(path, () => realpath(path))
      const known = this.#reals.get(real)
      if (known !== undefined && known !== path) {
        // A model that a link leads to has both names.
        const model = this.#nodes.get(known)?.found.find((found) => found.isFolder && found.path === known)
        if (model) node.found.push({ ...model, path, real, name: folder.name || basename(path), folderKind: folder.kind, root: root.path })
        return []
      }
      this.#reals.set(real, path)
      await look(path, () => this.#arrive(path, path))
      const entries = await look(path, () => readdir(path, { withFileTypes: true }))
      const below = await new FolderReader(folder, entries, { look, roots: this.#roots, node, arrive: this.#arrive }).read()
      node.below = below.map((each) => each.path)
      return below
    } catch (error) {
      node.found = [oddity(folder, path, folder.name || basename(path), faultOf(error, path), true)]
      return []
    } finally {
      this.#count += node.found.length
      if (this.#count > maxFound) node.below = []
    }
  }
}
