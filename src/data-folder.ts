/** The data folder of a farm, for one supervisor at a time. */
import { mkdirSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { askHolder, takeLock } from '../host/lock.mjs'
import { checkChosen } from '../host/own-folder.mjs'
import { configError, defineErrors, type DarkroomError } from './errors.ts'
import { holdFile, type HeldFile } from './held-file.ts'

const folderError = defineErrors('supervisor', {
  taken: {
    class: 'permanent',
    remedy: 'Stop the other `darkroom up`, or give this one a data folder of its own (DARKROOM_DATA).',
  },
})

/** What the supervisor tells this user's other commands. Never the user's own REDIS_URL: it may hold a password. */
export interface Told {
  url?: string
  /** The address of the private Redis. */
  privateRedis?: string
}

/**
 * Makes the folder and its `logs/` where they are not there yet, and takes it: by a locked file, which holds in other
 * containers as well, and by a socket, on which this user's other commands hear what `told` holds by then.
 * @throws DarkroomError `supervisor.taken`, `config.invalid` when it cannot be written; BadPlace when others could read
 *   or
 * change what is kept there
 */
export async function takeDataFolder(data: string, told: Told): Promise<{ release: () => Promise<void> }> {
  const held = await hold(data)
  if (!held) throw taken(data, await askHolder(data, 'up'))
  const lock = await takeLock(data, 'up', () => ({ ...told })).catch((error: unknown) => {
    held.close()
    throw error
  })
  if ('heldBy' in lock) {
    held.close()
    throw taken(data, lock.heldBy)
  }
  const release = async (): Promise<void> => {
    await lock.release()
    held.close()
  }
  return { release }
}

async function hold(data: string): Promise<HeldFile | undefined> {
  try {
    await mkdir(data, { recursive: true, mode: 0o700 })
    checkChosen(data, 'DARKROOM_DATA')
    mkdirSync(join(data, 'logs'), { recursive: true, mode: 0o700 })
    return holdFile(join(data, 'up.lock'))
  } catch (error) {
    if (!(error instanceof Error) || !('code' in error)) throw error
    throw configError('invalid', `the data folder ${data} cannot be written: ${error.message}`, {
      field: 'DARKROOM_DATA',
      remedy: 'Give this user the folder, on a file system that has locks, or choose another one with DARKROOM_DATA.',
      cause: error,
    })
  }
}

/** `holder`: what it says about itself; undefined where it is out of this process' sight. */
const taken = (data: string, holder: Record<string, unknown> | undefined): DarkroomError =>
  folderError(
    'taken',
    `the data folder ${data} is in use by another \`darkroom up\`, ${holder ? `pid ${String(holder['pid'])}` : 'in another container or of another user'}`,
  )
