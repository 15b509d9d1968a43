/**
 * Where models lie on a host: the configured folders, and those that ComfyUI's `extra_model_paths.yaml` adds; and the
 * names that folders of a kind have in ComfyUI and A1111.
 */
import { createHash } from 'node:crypto'
import { realpath } from 'node:fs/promises'
import { hostname } from 'node:os'
import { basename, join, sep } from 'node:path'
import { extraPathsFile, readExtraPaths } from './extra-paths.ts'
import { looker, type Look } from './look.ts'
import type { Kind } from './verdict.ts'

/** A folder that is searched for models. */
export interface Root {
  /** As it was configured. */
  path: string
  /** Without links; what is reached through links must lie in one of these. */
  real: string
  /** Set where the folder holds one kind, and names count from it. */
  kind?: Kind
}

/** A folder that is configured and cannot be searched. */
export interface RootProblem {
  path: string
  problem: string
}

/** Whether a real path lies in one of the roots. */
export const isInside = (real: string, roots: readonly Root[]): boolean =>
  roots.some((root) => real === root.real || real.startsWith(root.real.endsWith(sep) ? root.real : root.real + sep))

/** Id of this host, from its name: 8 hex digits. */
export const hostId = (): string => createHash('sha256').update(hostname()).digest('hex').slice(0, 8)

/**
 * Id of a shelf, the model folders of one host: 12 hex digits, the host's first. Processes of one host that are
 * configured alike share a shelf.
 */
export const shelfId = (folders: readonly string[]): string =>
  `${hostId()}${createHash('sha256').update(folders.join('\n')).digest('hex').slice(0, 4)}`

/** Whether a shelf is one of this host's. */
export const isOnThisHost = (shelf: string): boolean => shelf.startsWith(hostId())

/**
 * The folders to search, in their order. An `extra_model_paths.yaml` is one of the configured paths itself, or lies in
 * a configured folder. A configured folder that does not exist is passed over; `absent` names what is not there.
 */
export async function resolveRoots(folders: readonly string[]): Promise<{ roots: Root[]; problems: RootProblem[]; absent: string[] }> {
  const roots: Root[] = []
  const absent: string[] = []
  const problems: RootProblem[] = []
  const add = async (path: string, kind?: Kind, namedBy?: string): Promise<void> => {
    const look = looker()
    try {
      const real = await look(path, () => realpath(path))
      if (!roots.some((root) => root.real === real && root.kind === kind)) roots.push({ path, real, ...(kind && { kind }) })
    } catch (error) {
      const isAbsent = (error as NodeJS.ErrnoException).code === 'ENOENT'
      if (isAbsent) absent.push(path)
      if (isAbsent && namedBy !== undefined) problems.push({ path, problem: `there is no such folder, which ${namedBy} names` })
      else if (!isAbsent) problems.push({ path, problem: (error as Error).message })
    }
  }
  const addExtra = async (file: string, look: Look): Promise<void> => {
    try {
      for (const { path, kind } of await readExtraPaths(file, look)) await add(path, kind, file)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') problems.push({ path: file, problem: (error as Error).message })
    }
  }
  for (const folder of folders) {
    const look = looker()
    if (/\.ya?ml$/i.test(basename(folder))) {
      await addExtra(folder, look)
      continue
    }
    await add(folder)
    await addExtra(join(folder, extraPathsFile), look)
  }
  return { roots, problems, absent }
}
