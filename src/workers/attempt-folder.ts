/**
 * The folder of a worker for the files of its attempts, and for its Python child's home.
 *
 * A folder is its worker's as long as that holds the locked file beside it, `<name>.lock`; a process id says nothing
 * where each container counts its own. The file is there and locked before the folder is made, and removed after it.
 */
import { existsSync, rmSync } from 'node:fs'
import { mkdir, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { ownFolder, uid } from '../../host/own-folder.mjs'
import { onDisk, roomIn } from '../disk.ts'
import { holdFile, type HeldFile } from '../held-file.ts'

/** Room that a worker wants for the files of its attempts, bytes: those of a picture of four million pixels. */
const wantedBytes = 64 << 20

/** Where workers make their folders: shared memory, for attempt files live for seconds; else the temporary folder. */
export const attemptRoots = (): string[] =>
  ['/dev/shm', tmpdir()].filter((folder) => existsSync(folder)).map((folder) => join(folder, `darkroom-${uid}-attempts`))

export interface AttemptFolder {
  path: string
  /** Why it is not under the first root. */
  told?: string
  /** Removes it with all that is in it. */
  close(): Promise<void>
}

const lockOf = (folder: string): string => `${folder}.lock`

/**
 * Makes the worker's own folder, and removes those of dead workers: a killed one could not do it itself. `roots`: where
 * it may be; the first that has room is taken, or else the one with the most.
 * @throws DarkroomError `disk.full`; BadPlace when somebody else made a root, or others may open it
 */
export async function openAttemptFolder(roots: readonly string[], name: string): Promise<AttemptFolder> {
  const places: { root: string; free: number }[] = []
  for (const root of roots) {
    const isThere = existsSync(root)
    if (isThere) await removeAbandoned(ownFolder(root))
    places.push({ root, free: await roomIn(isThere ? root : dirname(root)) })
  }
  const [first = { root: '', free: 0 }] = places
  const place =
    places.find(({ free }) => free >= wantedBytes) ?? places.reduce((most, each) => (each.free > most.free ? each : most), first)
  const path = join(ownFolder(place.root), name)
  const held = holdFile(lockOf(path))
  // Another worker that starts now may have looked at the file before it was locked; then it removes it.
  if (!held) return openAttemptFolder(roots, name)
  await onDisk(path, mkdir(path, { mode: 0o700 }))
  const close = (): Promise<void> => remove(path, held)
  if (place === first) return { path, close }
  return { path, close, told: `${first.root} has ${first.free} bytes free, fewer than ${wantedBytes}: attempt files go to ${place.root}` }
}

async function removeAbandoned(root: string): Promise<void> {
  for (const folder of new Set((await readdir(root)).map((entry) => join(root, entry.replace(/\.lock$/, ''))))) {
    const abandoned = holdFile(lockOf(folder))
    if (abandoned) await remove(folder, abandoned)
  }
}

async function remove(folder: string, held: HeldFile): Promise<void> {
  await rm(folder, { recursive: true, force: true })
  rmSync(lockOf(folder), { force: true })
  held.close()
}
