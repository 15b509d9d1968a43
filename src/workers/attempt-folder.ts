/** The folder of a worker for the files of its attempts, and for its Python child's home. */
import { existsSync } from 'node:fs'
import { mkdir, readdir, rm } from 'node:fs/promises'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { isAlive } from '../../host/processes.mjs'

/** Where workers make their folders: shared memory where there is some, for attempt files live for seconds. */
export const attemptRoot = (): string => join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), `darkroom-attempts-${userInfo().uid}`)

/**
 * Makes the worker's own folder under `root`, and removes those of dead workers of this host: a killed one could not do
 * it itself.
 */
export async function openAttemptFolder(root: string, host: string, epoch: string): Promise<string> {
  await mkdir(root, { recursive: true, mode: 0o700 })
  for (const name of await readdir(root)) {
    const [owner, pid] = name.split('-')
    if (owner === host && !isAlive(Number(pid))) await rm(join(root, name), { recursive: true, force: true })
  }
  const own = join(root, `${host}-${process.pid}-${epoch}`)
  await mkdir(own, { mode: 0o700 })
  return own
}
