/**
 * The folder of a worker for the files of its attempts, and for its Python child's home.
 *
 * A folder is its worker's as long as that holds the locked file beside it, `<name>.lock`; a process id says nothing
 * where each container counts its own. The file is there and locked before the folder is made, and removed after it.
 */
import { existsSync, rmSync } from 'node:fs'
import { mkdir, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ownFolder, uid } from '../../host/own-folder.mjs'
import { holdFile, type HeldFile } from '../held-file.ts'

/** Where workers make their folders: shared memory where there is some, for attempt files live for seconds. */
export const attemptRoot = (): string => join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), `darkroom-${uid}-attempts`)

export interface AttemptFolder {
  path: string
  /** Removes it with all that is in it. */
  close(): Promise<void>
}

const lockOf = (folder: string): string => `${folder}.lock`

/**
 * Makes the worker's own folder under `root`, and removes those of dead workers: a killed one could not do it itself.
 * @throws BadPlace when somebody else made the root, or others may open it
 */
export async function openAttemptFolder(root: string, name: string): Promise<AttemptFolder> {
  const place = ownFolder(root)
  for (const folder of new Set((await readdir(place)).map((entry) => join(place, entry.replace(/\.lock$/, ''))))) {
    const abandoned = holdFile(lockOf(folder))
    if (abandoned) await remove(folder, abandoned)
  }
  const path = join(place, name)
  const held = holdFile(lockOf(path))
  // Another worker that starts now may have looked at the file before it was locked; then it removes it.
  if (!held) return openAttemptFolder(root, name)
  await mkdir(path, { mode: 0o700 })
  return { path, close: () => remove(path, held) }
}

async function remove(folder: string, held: HeldFile): Promise<void> {
  await rm(folder, { recursive: true, force: true })
  rmSync(lockOf(folder), { force: true })
  held.close()
}
