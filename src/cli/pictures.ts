/** Pictures of a session as files. What a server says never names a file, replaces one, or follows a link. */
import { randomUUID } from 'node:crypto'
import { constants, copyFile, link, lstat, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, extname, join } from 'node:path'
import type { DarkroomClient, Image, Session } from '../client/index.ts'
import { sha256Of } from '../artifacts/store.ts'
import { onDisk } from '../disk.ts'
import { artifactError } from '../errors.ts'

/**
 * Fetches a session's pictures and checks their bytes against their SHA-256.
 * @param out a folder, or for one picture a file that ends in `.png`; default: the current folder
 * @returns paths, in the order of the images: where a file of that name is there already, one with a number
 * @throws DarkroomError `artifact.corrupt`, and as `onDisk`; Problem
 */
export async function savePictures(client: DarkroomClient, { output }: Session, out = '.'): Promise<string[]> {
  const images = (output?.images ?? []) as Image[]
  const paths: string[] = []
  for (const [i, { sha256, seed }] of images.entries()) {
    const bytes = await client.artifact(sha256)
    if (sha256Of(bytes) !== sha256) throw artifactError('corrupt', `the picture ${sha256} came with other bytes`)
    const path = pathOf(out, { sha256, seed, number: images.length > 1 ? i + 1 : undefined })
    paths.push(await onDisk(path, keep(path, bytes)))
  }
  return paths
}

/** Of what the server says, the name holds a number and hex digits: its SHA-256 is that of the bytes. */
function pathOf(out: string, { sha256, seed, number }: { sha256: string; seed: unknown; number: number | undefined }): string {
  if (extname(out).toLowerCase() === '.png') return number === undefined ? out : `${out.slice(0, -4)}-${number}.png`
  return join(out, ['darkroom', ...(Number.isSafeInteger(seed) ? [seed] : []), `${sha256.slice(0, 8)}.png`].join('-'))
}

/** Writes a whole file under the path, or the next free number of it. A file that holds these bytes is as good. */
async function keep(path: string, bytes: Uint8Array): Promise<string> {
  await mkdir(dirname(path), { recursive: true })
  const part = `${path}.${randomUUID()}.part`
  try {
    await writeFile(part, bytes, { flag: 'wx' })
    for (let n = 1; ; n++) {
      const free = n === 1 ? path : `${path.slice(0, -4)}-${n}.png`
      if ((await hasTaken(part, free)) || (await holds(free, bytes))) return free
    }
  } finally {
    await rm(part, { force: true })
  }
}

/** Gives a file a second name; false when that name is taken, be it by a link that leads nowhere. */
async function hasTaken(part: string, path: string): Promise<boolean> {
  try {
    // Some file systems have no links.
    await link(part, path).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'EEXIST') throw error
      return copyFile(part, path, constants.COPYFILE_EXCL)
    })
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    return false
  }
}

async function holds(path: string, bytes: Uint8Array): Promise<boolean> {
  const known = await lstat(path)
  return known.isFile() && known.size === bytes.byteLength && (await readFile(path)).equals(bytes)
}
