/** What the walk finds: models by their names and places, and the state of their files. */
import { createHash } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { resolve } from 'node:path'
import { looker, type Look } from './look.ts'
import type { Kind, Reason } from './verdict.ts'

/** A file of a model. `path` is relative to the model's folder, '' for a model that is one file. */
export interface FileState {
  path: string
  size: number
  modifiedMs: number
  inode: number
}

/** A model, or what looks like one. */
export interface Found {
  /** Where it is listed, as the root was configured. */
  path: string
  /** Without links. */
  real: string
  /** Path inside the folder of its kind, without the ending of a file; `org/name` of a hub cache. */
  name: string
  /** The kind that its folder is for; null in a folder for any. */
  folderKind: Kind | null
  root: string
  isFolder: boolean
  files: FileState[]
  /** Changes with every file of it: a look at the headers under the same state would say the same. */
  state: string
  /** Why it cannot be looked at. */
  fault: Reason | null
}

/** The state of a model that is made of these files. */
export function stateOf(files: readonly FileState[]): string {
  const [only, ...others] = files
  if (only && others.length === 0 && only.path === '') return `${only.size} ${only.modifiedMs} ${only.inode}`
  const lines = files.map(({ path, size, modifiedMs, inode }) => `${path}\n${size} ${modifiedMs} ${inode}`)
  return createHash('sha256').update(lines.join('\n')).digest('hex').slice(0, 32)
}

/** The files of a model as they are now, for a comparison with `stateOf`; undefined when one is gone. */
export async function lookAgain(path: string, files: readonly FileState[], look: Look = looker()): Promise<string | undefined> {
  const now: FileState[] = []
  try {
    for (const file of files) {
      const at = resolve(path, file.path)
      const { size, mtimeMs, ino } = await look(at, () => stat(at))
      now.push({ path: file.path, size, modifiedMs: mtimeMs, inode: ino })
    }
  } catch {
    return undefined
  }
  return stateOf(now)
}
