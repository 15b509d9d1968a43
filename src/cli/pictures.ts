/**
 * Pictures of a session as files, and files as pictures to draw over. What a server says never names a file, replaces
 * one, or follows a link.
 */
import { randomUUID } from 'node:crypto'
import { constants, copyFile, link, lstat, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname, extname, join } from 'node:path'
import type { DarkroomClient, Image } from '../client/index.ts'
import { sha256Of } from '../artifacts/store.ts'
import { onDisk } from '../disk.ts'
import { artifactError } from '../errors.ts'

/**
 * Fetches a session's pictures and checks their bytes against their SHA-256.
 * @param out a folder, or for one picture a file with the ending of its format; default: the current folder
 * @returns paths, in the order of the images: where a file of that name is there already, one with a number
 * @throws DarkroomError `artifact.corrupt`, and as `onDisk`; Problem
 */
export async function savePictures(
  client: DarkroomClient,
  { output }: { output: { images?: unknown } | null },
  out = '.',
): Promise<string[]> {
  const images = (output?.images ?? []) as Image[]
  const paths: string[] = []
  for (const [i, { sha256, seed, mediaType }] of images.entries()) {
    const bytes = await client.artifact(sha256)
    if (sha256Of(bytes) !== sha256) throw artifactError('corrupt', `the picture ${sha256} came with other bytes`)
    const path = pathOf(out, { sha256, seed, endings: endings[mediaType] ?? ['.png'], number: images.length > 1 ? i + 1 : undefined })
    paths.push(await onDisk(path, keep(path, bytes)))
  }
  return paths
}

const idPattern = /^[0-9a-f]{64}$/

/**
 * The id of a picture that was named by its id, by a URL, which the server fetches, or by a file, which is uploaded.
 * @throws Problem; as `onDisk`
 */
export async function uploaded(client: DarkroomClient, fileOrId: string): Promise<string> {
  if (idPattern.test(fileOrId)) return fileOrId
  if (/^https?:\/\//i.test(fileOrId)) return (await client.uploadFrom(fileOrId)).sha256
  const { sha256 } = await client.upload(await onDisk(fileOrId, readFile(fileOrId)))
  return sha256
}

/** The same of several, in their order. */
export async function eachUploaded(client: DarkroomClient, filesOrIds: readonly string[]): Promise<string[]> {
  const ids: string[] = []
  for (const each of filesOrIds) ids.push(await uploaded(client, each))
  return ids
}

/** Of files, by what the server says a picture is: the first is given. */
const endings: Readonly<Partial<Record<string, readonly string[]>>> = {
  'image/jpeg': ['.jpg', '.jpeg'],
  'image/webp': ['.webp'],
  'image/avif': ['.avif'],
}

interface Named {
  sha256: string
  seed: unknown
  endings: readonly string[]
  number: number | undefined
}

/** Of what the server says, the name holds a number, hex digits and a known ending. */
function pathOf(out: string, { sha256, seed, endings: [ending = '.png', ...more], number }: Named): string {
  const own = extname(out)
  if ([ending, ...more].includes(own.toLowerCase())) return number === undefined ? out : `${out.slice(0, -own.length)}-${number}${own}`
  return join(out, ['darkroom', ...(Number.isSafeInteger(seed) ? [seed] : []), `${sha256.slice(0, 8)}${ending}`].join('-'))
}

/** Writes a whole file under the path, or the next free number of it. A file that holds these bytes is as good. */
async function keep(path: string, bytes: Uint8Array): Promise<string> {
  await mkdir(dirname(path), { recursive: true })
  const part = `${path}.${randomUUID()}.part`
  try {
    await writeFile(part, bytes, { flag: 'wx' })
    for (let n = 1; ; n++) {
      const free = n === 1 ? path : `${path.slice(0, -extname(path).length)}-${n}${extname(path)}`
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
