/** The picture that lies beside a model, under the names by which ComfyUI and A1111 look for one. */
import { constants } from 'node:fs'
import { open, realpath, stat } from 'node:fs/promises'
import type { Found } from './found.ts'
import { looker } from './look.ts'
import { isInside, type Root } from './roots.ts'

/** In the order in which they are looked for. */
const endings = ['png', 'jpg', 'jpeg', 'webp', 'avif'].flatMap((type) => [`.${type}`, `.preview.${type}`])

/** A file that is to be a picture. */
export interface PictureFile {
  /** Without links. */
  real: string
  bytes: number
  /** Changes with the file. */
  state: string
}

/**
 * The first that is there, is a regular file, and lies in one of the roots also where a link leads to it.
 * @throws SilentFolder
 */
export async function pictureBeside(
  { path, isFolder }: Pick<Found, 'path' | 'isFolder'>,
  roots: readonly Root[],
): Promise<PictureFile | undefined> {
  const stem = isFolder ? path : path.replace(/\.[^./]+$/, '')
  const look = looker()
  for (const ending of endings) {
    const real = await look(stem, () => realpath(stem + ending).catch(() => undefined))
    if (real === undefined || !isInside(real, roots)) continue
    const found = await look(real, () => stat(real).catch(() => undefined))
    if (found?.isFile()) return { real, bytes: found.size, state: `${found.size} ${found.mtimeMs} ${found.ino}` }
  }
  return undefined
}

/**
 * Its bytes, or the first of them where it has grown since.
 * @throws Error of the file system; where a link or something else than a file has come in its place, too
 */
export async function readPicture({ real, bytes }: PictureFile): Promise<Uint8Array> {
  // Neither flag lets a link or a named pipe that came meanwhile lead elsewhere, or keep who reads.
  const file = await open(real, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOFOLLOW)
  try {
    if (!(await file.stat()).isFile()) throw new Error(`${real} is no regular file`)
    const { buffer, bytesRead } = await file.read(Buffer.alloc(bytes), 0, bytes, 0)
    return buffer.subarray(0, bytesRead)
  } finally {
    await file.close()
  }
}
