import { mkdir, rename, rm, writeFile } from 'node:fs/promises'
import { dirname, extname, join } from 'node:path'
import type { DarkroomClient, Image, Session } from '../client/index.ts'
import { sha256Of } from '../artifacts/store.ts'
import { onDisk } from '../disk.ts'
import { artifactError } from '../errors.ts'

/** Visible when it is whole; whatever fails, no part of it stays. */
async function write(path: string, bytes: Uint8Array): Promise<void> {
  const part = `${path}.part`
  try {
    await writeFile(part, bytes)
    await rename(part, path)
  } catch (error) {
    await rm(part, { force: true })
    throw error
  }
}

/**
 * Fetches a session's pictures and checks their bytes against their SHA-256.
 * @param out a folder, or for one picture a file that ends in `.png`; default: the current folder
 * @returns paths, in the order of the images
 */
export async function savePictures(client: DarkroomClient, { output }: Session, out = '.'): Promise<string[]> {
  const images = (output?.images ?? []) as Image[]
  const isFile = extname(out).toLowerCase() === '.png'
  const paths: string[] = []
  for (const [i, { sha256, seed }] of images.entries()) {
    const numbered = images.length > 1 ? `${out.slice(0, -4)}-${i + 1}.png` : out
    const path = isFile ? numbered : join(out, `darkroom-${seed}-${sha256.slice(0, 8)}.png`)
    const bytes = await client.artifact(sha256)
    if (sha256Of(bytes) !== sha256) throw artifactError('corrupt', `the picture ${sha256} came with other bytes`)
    await mkdir(dirname(path), { recursive: true })
    await onDisk(path, write(path, bytes))
    paths.push(path)
  }
  return paths
}
