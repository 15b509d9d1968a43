/** Reads one folder: which models lie in it, and which folders below are to be walked. */
import type { Dirent, Stats } from 'node:fs'
import { lstat, readdir, realpath, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { hubName, isIgnored, isLibraryWeights, isPart, isPartial, isWeights, kindOfFolder } from './folder-names.ts'
import { stateOf, type FileState, type Found } from './found.ts'
import { eachOf, SilentFolder, type Look } from './look.ts'
import { graphName, manifestedBy } from './onnx.ts'
import { readSmall } from './read-small.ts'
import { isInside, type Root } from './roots.ts'
import { reasonOf, type Kind, type Reason } from './verdict.ts'

/** Folders below a root at most; more is no collection of models. */
const maxDepth = 24

/** A folder that is walked. */
export interface Folder {
  path: string
  root: Root
  name: string
  kind: Kind | null
  depth: number
}

export interface Node {
  folder: Folder
  found: Found[]
  /** Paths of the folders below that are walked by themselves. */
  below: string[]
  /** Folders whose changes concern this one: itself, and the parts of its pipelines. */
  watched: string[]
}

/** What keeps an entry from being looked at. */
export function faultOf(error: unknown, path: string): Reason {
  const { code, message } = error as NodeJS.ErrnoException
  if (error instanceof SilentFolder) return reasonOf('unreadable', '', message)
  if (code === 'ELOOP') return reasonOf('link', '', `${path} is a link that leads to itself`)
  // Whatever bytes of a name are no text were read as this character.
  if (code === 'ENOENT' && path.includes('\uFFFD')) return reasonOf('name', '', `the name of ${path} is no UTF-8 text`)
  if (code === 'ENOENT' || code === 'ENOTDIR') return reasonOf('gone', '', `${path} is not there`)
  return reasonOf('unreadable', '', `${path} cannot be read: ${code ?? message}`)
}

/** An entry that cannot be looked at. */
export const oddity = ({ root, kind }: Folder, path: string, name: string, fault: Reason, isFolder: boolean): Found => ({
  path,
  real: path,
  name,
  folderKind: kind,
  root: root.path,
  isFolder,
  files: [],
  state: `${fault.code} ${fault.message}`,
  fault,
})

/** Name of an entry of a folder, without the ending of weights. */
const nameIn = ({ name }: Folder, file: string): string => {
  const stem = isWeights(file) ? file.replace(/\.[^.]+$/, '') : file
  return name ? `${name}/${stem}` : stem
}

const odd = {
  isSymbolicLink: 'a link',
  isFIFO: 'a named pipe',
  isSocket: 'a socket',
  isBlockDevice: 'a device',
  isCharacterDevice: 'a device',
} as const

/** What an entry is, when it is neither file nor folder. */
const oddOf = (entry: Dirent | Stats): string =>
  Object.entries(odd).find(([is]) => entry[is as keyof typeof odd]())?.[1] ?? 'no regular file'

interface ReaderParts {
  look: Look
  roots: readonly Root[]
  node: Node
  /** Called before a part of a model is read, with the model's folder. */
  arrive: (path: string, folder: string) => Promise<void>
}

/** Reads the entries of one folder. */
export class FolderReader {
  readonly #folder: Folder
  readonly #entries: readonly Dirent[]
  readonly #look: Look
  readonly #roots: readonly Root[]
  readonly #node: Node
  readonly #arrive: (path: string, folder: string) => Promise<void>
  readonly #below: Folder[] = []

  constructor(folder: Folder, entries: readonly Dirent[], { look, roots, node, arrive }: ReaderParts) {
    this.#folder = folder
    // Links last: what they lead to is found where it is.
    this.#entries = entries.toSorted((a, b) => Number(a.isSymbolicLink()) - Number(b.isSymbolicLink()) || (a.name < b.name ? -1 : 1))
    this.#look = look
    this.#roots = roots
    this.#node = node
    this.#arrive = arrive
  }

  async read(): Promise<Folder[]> {
    const { path, name, depth } = this.#folder
    const names = new Set(this.#entries.map((entry) => entry.name))
    if (depth > 0 && hubName(basename(path)) !== undefined && names.has('snapshots')) return this.#readHub()
    const denoiser = ['unet', 'transformer'].find((part) => names.has(part))
    const hasParts = denoiser !== undefined && ['vae', 'text_encoder', 'scheduler'].some((part) => names.has(part))
    // ComfyUI's folder of all models has unet/ and vae/ too.
    const isPipeline = names.has('model_index.json') || (hasParts && (await this.#isThere(join(path, denoiser, 'config.json'))))
    const hasConfig = depth > 0 && name !== '' && (names.has('config.json') || names.has('adapter_config.json'))
    const isOnnx = depth > 0 && name !== '' && manifestedBy((each) => names.has(each)) !== undefined && names.has(graphName)
    const isModel = isPipeline || isOnnx || (hasConfig && this.#entries.some((entry) => isLibraryWeights(entry.name)))
    if (isModel) await this.#addModel(isPipeline)
    await eachOf(
      this.#entries.filter(
        (entry) => !isIgnored(entry.name) && !(isPipeline && isPart(entry.name)) && !(isModel && isLibraryWeights(entry.name)),
      ),
      (entry) => this.#add(entry),
    )
    return this.#below
  }

  #isThere(path: string): Promise<boolean> {
    return this.#look(path, () => stat(path)).then(
      () => true,
      () => false,
    )
  }

  #fault(path: string, file: string, fault: Reason, isFolder: boolean): void {
    this.#node.found.push(oddity(this.#folder, path, nameIn(this.#folder, file), fault, isFolder))
  }

  async #add(entry: Dirent): Promise<void> {
    const path = join(this.#folder.path, entry.name)
    if (entry.isDirectory()) return this.#goBelow(path, entry.name)
    if (entry.isFile()) return this.#addFile(path, entry.name)
    try {
      if (entry.isSymbolicLink()) return await this.#follow(path, entry.name)
      // Some network folders do not tell what an entry is.
      const stats = await this.#look(path, () => lstat(path))
      if (stats.isDirectory()) this.#goBelow(path, entry.name)
      else if (stats.isFile()) await this.#addFile(path, entry.name)
      else if (stats.isSymbolicLink()) await this.#follow(path, entry.name)
      else this.#fault(path, entry.name, reasonOf('not_a_file', '', `${path} is ${oddOf(stats)}`), false)
    } catch (error) {
      this.#fault(path, entry.name, faultOf(error, path), false)
    }
  }

  #goBelow(path: string, file: string): void {
    const { root, name, kind, depth } = this.#folder
    if (depth >= maxDepth) {
      this.#fault(path, file, reasonOf('unreadable', '', `${path} lies more than ${maxDepth} folders deep`), true)
      return
    }
    const own = kind === null ? kindOfFolder(file) : undefined
    this.#below.push({ path, root, depth: depth + 1, ...(own ? { name: '', kind: own } : { name: name ? `${name}/${file}` : file, kind }) })
  }

  async #follow(path: string, file: string): Promise<void> {
    let real: string
    let stats: Stats
    try {
      real = await this.#look(path, () => realpath(path))
      stats = await this.#look(path, () => stat(path))
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      const fault = code === 'ENOENT' ? reasonOf('link', '', `${path} is a link that leads nowhere`) : faultOf(error, path)
      this.#fault(path, file, fault, false)
      return
    }
    if (!isInside(real, this.#roots)) {
      this.#fault(path, file, reasonOf('link', '', `${path} leads to ${real}, outside of the model folders`), stats.isDirectory())
    } else if (stats.isDirectory()) this.#goBelow(path, file)
    else if (stats.isFile()) await this.#addFile(path, file, { real, stats })
    else this.#fault(path, file, reasonOf('not_a_file', '', `${path} leads to ${oddOf(stats)}`), false)
  }

  /** `known`: where a link leads to. */
  async #addFile(path: string, file: string, known?: { real: string; stats: Stats }): Promise<void> {
    if (isPartial(file)) {
      this.#fault(path, file, reasonOf('incomplete', '', `${path} is a download that has not ended`), false)
      return
    }
    if (!isWeights(file)) return
    try {
      const stats = known?.stats ?? (await this.#look(path, () => stat(path)))
      const { root, kind } = this.#folder
      this.#node.found.push({
        path,
        real: known?.real ?? path,
        name: nameIn(this.#folder, file),
        folderKind: kind,
        root: root.path,
        isFolder: false,
        files: [{ path: '', size: stats.size, modifiedMs: stats.mtimeMs, inode: stats.ino }],
        state: `${stats.size} ${stats.mtimeMs} ${stats.ino}`,
        fault: null,
      })
    } catch (error) {
      this.#fault(path, file, faultOf(error, path), false)
    }
  }

  /** A folder that is one model: a pipeline with its parts, or weights with their configuration. */
  async #addModel(isPipeline: boolean): Promise<void> {
    const { path, root, name, kind } = this.#folder
    const files: FileState[] = []
    let fault: Reason | null = null
    const addFiles = async (folder: string, part: string, wanted: (file: string) => boolean): Promise<void> => {
      const entries = await this.#look(folder, () => readdir(folder, { withFileTypes: true }))
      await eachOf(
        entries.filter((entry) => !entry.isDirectory() && !isIgnored(entry.name) && wanted(entry.name)),
        async (entry) => {
          const at = part ? `${part}/${entry.name}` : entry.name
          const file = join(folder, entry.name)
          const stats = await this.#look(file, () => stat(file)).catch((error: unknown) => {
            fault ??= { ...faultOf(error, file), field: at }
          })
          if (!stats) return
          if (!stats.isFile() && !stats.isDirectory()) fault ??= reasonOf('not_a_file', at, `${file} is ${oddOf(stats)}`)
          else if (entry.isSymbolicLink() && !isInside(await this.#look(file, () => realpath(file)), this.#roots))
            fault ??= reasonOf('link', at, `${file} leads outside of the model folders`)
          if (stats.isFile()) files.push({ path: at, size: stats.size, modifiedMs: stats.mtimeMs, inode: stats.ino })
        },
      )
    }
    try {
      await addFiles(path, '', (file) => file.endsWith('.json') || (!isPipeline && (isLibraryWeights(file) || file === graphName)))
      const parts = isPipeline ? this.#entries.filter((entry) => isPart(entry.name)) : []
      for (const entry of parts) {
        const part = join(path, entry.name)
        if (entry.isSymbolicLink() && !isInside(await this.#look(part, () => realpath(part)), this.#roots))
          fault ??= reasonOf('link', entry.name, `${part} leads outside of the model folders`)
        this.#node.watched.push(part)
        await this.#look(part, () => this.#arrive(part, path))
        await addFiles(part, entry.name, () => true)
      }
    } catch (error) {
      fault ??= faultOf(error, path)
    }
    files.sort((a, b) => (a.path < b.path ? -1 : 1))
    const modelName = name || basename(root.path)
    const state = fault ? `${fault.code} ${fault.message} ${stateOf(files)}` : stateOf(files)
    this.#node.found.push({ path, real: path, name: modelName, folderKind: kind, root: root.path, isFolder: true, files, state, fault })
  }

  /** A repository in the hub's cache: its snapshots, of which the one of `main` has the plain name. */
  async #readHub(): Promise<Folder[]> {
    const { path, root, name, kind, depth } = this.#folder
    const snapshots = join(path, 'snapshots')
    this.#node.watched.push(snapshots)
    await this.#look(snapshots, () => this.#arrive(snapshots, path))
    const main = await this.#look(path, () => readSmall(join(path, 'refs', 'main'))).then(
      (text) => text.toString('utf8').trim(),
      () => undefined,
    )
    const revisions = (await this.#look(snapshots, () => readdir(snapshots, { withFileTypes: true }))).filter((each) => each.isDirectory())
    const repository = hubName(basename(path)) ?? ''
    const above = name.split('/').slice(0, -1)
    return revisions.map(({ name: revision }) => ({
      path: join(snapshots, revision),
      root,
      name: [...above, revision === main || revisions.length === 1 ? repository : `${repository}@${revision.slice(0, 10)}`].join('/'),
      kind,
      depth: depth + 2,
    }))
  }
}
