/** Room on disks: how much there is, and how a lack of it is refused before anything is begun. */
import { statfs } from 'node:fs/promises'
import { asDiskError, diskError } from './errors.ts'

/** A disk that can take fewer files than this is full, whatever room it has. */
const leastFiles = 500

/** `512mb` and such as bytes. */
export function bytesIn(text: string): number {
  const [, digits = '', unit = ''] = /^(\d+)(kb|mb|gb)?$/i.exec(text) ?? []
  return Number(digits) * 1024 ** ['', 'kb', 'mb', 'gb'].indexOf(unit.toLowerCase())
}

/**
 * Bytes that may still be written below a folder; 0 when its disk takes no more files. Infinite where the folder is not
 * there yet, or the system does not tell.
 */
export async function roomIn(folder: string): Promise<number> {
  const disk = await statfs(folder).catch(() => undefined)
  if (!disk) return Infinity
  // A file system without a table of files says that it has 0.
  const takesFiles = disk.files === 0 || disk.ffree >= Math.min(leastFiles, disk.files / 100)
  return takesFiles ? disk.bavail * disk.bsize : 0
}

/**
 * Refuses what would not fit. `why`: what the room is for.
 * @throws DarkroomError `disk.full` with what is free and what is needed
 */
export async function requireRoom(folder: string, bytes: number, why: string): Promise<void> {
  const free = await roomIn(folder)
  if (free >= bytes) return
  throw diskError('full', `the disk of ${folder} has ${free} bytes free; ${why} needs ${bytes}`, { details: { folder, free, need: bytes } })
}

/** What writing below a folder throws, as `disk.full` when that is the reason. */
export async function onDisk<T>(folder: string, write: Promise<T>): Promise<T> {
  try {
    return await write
  } catch (error) {
    throw asDiskError(error, folder)
  }
}
