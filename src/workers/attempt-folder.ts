/** The folder of a worker for the files of its attempts, and for its Python child's home. */
import { existsSync } from 'node:fs'
import { mkdir, readdir, rm } from 'node:fs/promises'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { isAlive } from '../../host/processes.mjs'
import { onDisk, roomIn } from '../disk.ts'

/** Room that a worker wants for the files of its attempts, bytes: those of a picture of four million pixels. */
const wantedBytes = 64 << 20

/** Where workers make their folders: shared memory, for attempt files live for seconds; else the temporary folder. */
const attemptRoots = (): string[] =>
  ['/dev/shm', tmpdir()].filter((folder) => existsSync(folder)).map((folder) => join(folder, `darkroom-attempts-${userInfo().uid}`))

/**
 * Makes the worker's own folder, and removes those of dead workers of this host: a killed one could not do it itself.
 * `roots`: where it may be; the first that has room is taken, or else the one with the most.
 * @throws DarkroomError `disk.full`
 */
export async function openAttemptFolder(
  host: string,
  epoch: string,
  roots = attemptRoots(),
): Promise<{ folder: string; /** Why it is not where it should be. */ told?: string }> {
  const places: { root: string; free: number }[] = []
  for (const root of roots) {
    await onDisk(root, mkdir(root, { recursive: true, mode: 0o700 }))
    for (const name of await readdir(root)) {
      const [owner, pid] = name.split('-')
      if (owner === host && !isAlive(Number(pid))) await rm(join(root, name), { recursive: true, force: true })
    }
    places.push({ root, free: await roomIn(root) })
  }
  const [first = { root: '', free: 0 }] = places
  const place =
    places.find(({ free }) => free >= wantedBytes) ?? places.reduce((most, each) => (each.free > most.free ? each : most), first)
  const folder = join(place.root, `${host}-${process.pid}-${epoch}`)
  await onDisk(folder, mkdir(folder, { mode: 0o700 }))
  if (place === first) return { folder }
  return { folder, told: `${first.root} has ${first.free} bytes free, fewer than ${wantedBytes}: attempt files go to ${place.root}` }
}
