/**
 * Log files that processes append to by descriptors they were born with. A process cannot be told to open another file,
 * so a large one is copied and emptied under it, while it runs: appending goes on at the new end. Libraries that rotate
 * own the stream they write; through them the end of a process that dies would be lost with the pipe to its parent.
 */
import { constants, openSync } from 'node:fs'
import { copyFile, open, readdir, rename, rm, stat, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { Ticker } from './ticker.ts'

const maxBytes = 16 * 1024 * 1024
/** How often sizes are looked at, ms. */
const lookMs = 2000
/** Old logs that are kept of each, beside the one that is written. */
const kept = 4

/**
 * Opens a log to append to, for its owner alone; the caller closes it. The error where it cannot be opened, on a full
 * disk for instance: the work goes on without.
 */
export function openLog(path: string): number | Error {
  try {
    return openSync(path, 'a', 0o600)
  } catch (error) {
    return error as Error
  }
}

/** Keeps the logs of all processes on a data folder small, that of Redis too, until it is stopped. */
export function keepSmall(data: string, failed: (error: Error) => void): Ticker {
  const turn = async (): Promise<void> => {
    const logs = (await readdir(join(data, 'logs'))).filter((name) => name.endsWith('.log')).map((name) => join(data, 'logs', name))
    for (const path of [...logs, join(data, 'redis', 'redis.log')]) await rotateLog(path)
  }
  const ticker = new Ticker(lookMs, turn, (error) => failed(error as Error))
  ticker.start()
  return ticker
}

/**
 * Moves what a log holds to `<path>.1` and the older ones one further, once it is larger than it may be. What is
 * appended in the moment between the copy and the emptying is lost. Where there is no room for the copy, the log is
 * emptied all the same: a log must not fill a disk.
 */
export async function rotateLog(path: string, limits: { maxBytes?: number; kept?: number } = {}): Promise<boolean> {
  const most = { maxBytes, kept, ...limits }
  if ((await sizeOf(path)) <= most.maxBytes) return false
  await rm(`${path}.${most.kept}`, { force: true })
  for (let n = most.kept - 1; n >= 1; n--) await rename(`${path}.${n}`, `${path}.${n + 1}`).catch(unlessMissing)
  try {
    await copyFile(path, `${path}.1`, constants.COPYFILE_FICLONE)
    await copyRest(path, `${path}.1`)
  } catch {
    await rm(`${path}.1`, { force: true })
  }
  await truncate(path)
  return true
}

/** What was appended to the one while it was copied to the other. */
async function copyRest(from: string, to: string): Promise<void> {
  const [source, target] = [await open(from, 'r'), await open(to, 'a')]
  try {
    const { size } = await target.stat()
    const rest = Buffer.alloc(Math.max(0, (await source.stat()).size - size))
    if (rest.length > 0) await target.write(rest, 0, (await source.read(rest, 0, rest.length, size)).bytesRead)
  } finally {
    await Promise.all([source.close(), target.close()])
  }
}

const sizeOf = (path: string): Promise<number> =>
  stat(path).then(
    ({ size }) => size,
    () => 0,
  )

function unlessMissing(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOENT') throw error
}
