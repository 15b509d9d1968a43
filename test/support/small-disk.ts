/**
 * Small disks that a test can fill: file systems in memory, in a mount namespace of their own, so that they go with it
 * and no rights are needed. Where the machine allows no namespaces, `hasSmallDisks` says so.
 */
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { root } from '../../src/config.ts'
import { started } from './started.ts'

const unshare = ['--user', '--map-root-user', '--mount']

export const hasSmallDisks =
  process.platform === 'linux' && spawnSync('unshare', [...unshare, 'mount', '-t', 'tmpfs', 'small', '/mnt']).status === 0

export interface SmallDisks extends AsyncDisposable {
  /** Program and arguments that run what follows them where the disks are. */
  readonly inside: readonly string[]
  /** A path on one of them, for a process outside. */
  seen(path: string): string
  /** Takes all the room that is left there. */
  fill(folder: string): Promise<void>
  free(folder: string): Promise<void>
}

/** Mounts disks of so many bytes over these folders, which must be there. */
export async function smallDisks(sizes: Record<string, number>): Promise<SmallDisks> {
  const mounts = Object.entries(sizes).map(([folder, bytes]) => `mount -t tmpfs -o size=${bytes} small '${folder}'`)
  // It holds the namespace until its input ends.
  const script = `${mounts.join(' && ')} && echo ready && exec cat`
  const keeper = spawn('unshare', [...unshare, 'sh', '-c', script], { stdio: ['pipe', 'pipe', 'inherit'] })
  const exited = once(keeper, 'exit')
  if (keeper.pid !== undefined) void exited.then(started(keeper.pid))
  const isReady = await Promise.race([once(keeper.stdout, 'data').then(() => true), exited.then(() => false)])
  if (!isReady) throw new Error('the small disks could not be mounted')
  const seen = (path: string): string => `/proc/${keeper.pid}/root${path}`
  const filler = (folder: string): string => seen(join(folder, 'filler'))
  return {
    inside: ['nsenter', '--target', String(keeper.pid), '--user', '--mount', '--preserve-credentials', `--wd=${root}`],
    seen,
    async fill(folder) {
      const file = await open(filler(folder), 'a')
      try {
        for (let piece = 1 << 20; piece >= 1; piece = Math.floor(piece / 2)) {
          const fits = (): Promise<boolean> =>
            file.write(new Uint8Array(piece)).then(
              ({ bytesWritten }) => bytesWritten > 0,
              (error: NodeJS.ErrnoException) => {
                if (error.code !== 'ENOSPC') throw error
                return false
              },
            )
          while (await fits());
        }
      } finally {
        await file.close()
      }
    },
    free: (folder) => rm(filler(folder)),
    async [Symbol.asyncDispose]() {
      keeper.stdin.end()
      await exited
    },
  }
}
