/**
 * A Redis whose wall clock a test can set, while those of the machine and of all other processes go on: a few lines of
 * C (`wall_clock.c`) are compiled and preloaded. Nothing of the product knows of it.
 */
import { execFile, spawnSync } from 'node:child_process'
import { chmod, open, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { root } from '../../src/config.ts'

const compiler = process.env['CC'] ?? 'cc'

/** Why no clock can be set on this machine; undefined when one can. */
export const noWallClock: string | undefined =
  process.platform !== 'linux'
    ? `the clock of one process cannot be set on ${process.platform}`
    : spawnSync(compiler, ['--version']).status === 0
      ? undefined
      : `there is no C compiler ${compiler} that makes what is preloaded`

export interface WallClock {
  /** Starts the Redis with this clock. */
  program: string
  /** Sets the clock off by so many milliseconds. */
  set(offsetMs: number): Promise<void>
  /** Removes its folder. */
  remove(): Promise<void>
}

/** @throws Error that says why, where no clock can be set. */
export async function wallClock(folder: string, redis: string): Promise<WallClock> {
  if (noWallClock !== undefined) throw new Error(noWallClock)
  const [library, file, program] = ['wall_clock.so', 'wall-clock', 'redis-with-clock.sh'].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ]
  const source = join(root, 'test/support/wall_clock.c')
  await promisify(execFile)(compiler, ['-shared', '-fPIC', '-O1', '-Wall', '-Werror', '-o', library, source])
  const set = async (offsetMs: number): Promise<void> => {
    const bytes = Buffer.alloc(8)
    bytes.writeBigInt64LE(BigInt(offsetMs))
    await using shared = await open(file, 'r+')
    // In place: it is mapped by who reads it.
    await shared.write(bytes, 0, 8, 0)
  }
  await writeFile(file, Buffer.alloc(8))
  await writeFile(program, `#!/bin/sh\nCLOCK_FILE='${file}' LD_PRELOAD='${library}' exec '${redis}' "$@"\n`)
  await chmod(program, 0o700)
  return { program, set, remove: () => rm(folder, { recursive: true, force: true }) }
}
