/** The folder of a worker for the files of its attempts, and for its Python child's home. */
import { existsSync } from 'node:fs'
import { mkdir, readdir, rm } from 'node:fs/promises'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { isAlive } from '../../host/processes.mjs'
import { onDisk, roomIn } from '../disk.ts'

/** Room that a worker wants for the files of its attempts, bytes: those of a picture of four million pixels. */
const wantedBytes = 64 << 20

/**
 * Where workers make their folders: in shared memory, for attempt files live for seconds; where there is none, or hardly
 * any room in it, in the temporary folder. `told`: why it is not in shared memory.
 */
export async function attemptRoot(): Promise<{ root: string; told?: string }> {
  const name = `darkroom-attempts-${userInfo().uid}`
  const shared = '/dev/shm'
  const elsewhere = join(tmpdir(), name)
  if (!existsSync(shared)) return { root: elsewhere }
  const [free, freeElsewhere] = await Promise.all([roomIn(shared), roomIn(tmpdir())])
  if (free >= wantedBytes || freeElsewhere <= free) return { root: join(shared, name) }
  return { root: elsewhere, told: `${shared} has ${free} bytes free, fewer than ${wantedBytes}: attempt files go to ${elsewhere}` }
}

/**
 * Makes the worker's own folder under `root`, and removes those of dead workers of this host: a killed one could not do
 * it itself.
 */
export async function openAttemptFolder(root: string, host: string, epoch: string): Promise<string> {
  await onDisk(root, mkdir(root, { recursive: true, mode: 0o700 }))
  for (const name of await readdir(root)) {
    const [owner, pid] = name.split('-')
    if (owner === host && !isAlive(Number(pid))) await rm(join(root, name), { recursive: true, force: true })
  }
  const own = join(root, `${host}-${process.pid}-${epoch}`)
  await onDisk(own, mkdir(own, { mode: 0o700 }))
  return own
}
