/** Results of a session as one file, which is written while it is read. */
import { Readable } from 'node:stream'
import type { ReadableStream as WebStream } from 'node:stream/web'
import { ZipFile } from 'yazl'
import type { ArtifactStore } from '../../artifacts/store.ts'
import type { Item } from '../../engine/item-reads.ts'
import { imagesOf } from '../../engine/item-reads.ts'

interface Entry {
  name: string
  sha256: string
}

/** A name of an item's n-th picture: in any list of files they stand in the order of the items. */
const nameOf = (index: number, n: number, count: number, mediaType: string): string =>
  `${String(index).padStart(5, '0')}${count > 1 ? `-${n + 1}` : ''}.${mediaType.slice('image/'.length)}`

/**
 * The pictures of these items, and what they are as `items.json`. Pictures are stored as they are: they are compressed.
 * `count`: how many there are.
 */
export async function zipOf(
  pages: AsyncIterable<readonly Item[]>,
  artifacts: Pick<ArtifactStore, 'open' | 'has'>,
  at: Date,
): Promise<{ count: number; stream: () => Readable }> {
  const entries: Entry[] = []
  const listed: Record<string, unknown>[] = []
  for await (const page of pages) {
    for (const { index, status, session, input, output, error } of page) {
      const images = imagesOf(output)
      const files: string[] = []
      const gone: string[] = []
      for (const [n, { sha256, mediaType }] of images.entries()) {
        const name = nameOf(index, n, images.length, mediaType)
        if (await artifacts.has(sha256)) {
          entries.push({ name, sha256 })
          files.push(name)
        } else gone.push(sha256)
      }
      listed.push({ index, status, session, input, files, ...(gone.length > 0 && { gone }), ...(error && { error }) })
    }
  }
  return { count: entries.length, stream: () => streamOf(entries, listed, artifacts, at) }
}

function streamOf(entries: readonly Entry[], listed: readonly unknown[], artifacts: Pick<ArtifactStore, 'open'>, at: Date): Readable {
  const zip = new ZipFile()
  const out = zip.outputStream as Readable
  let current: Readable | undefined
  const open = async (sha256: string): Promise<Readable> => {
    const artifact = await artifacts.open(sha256)
    if (!artifact) throw new Error(`artifact ${sha256} has gone meanwhile`)
    current = Readable.fromWeb(artifact.stream as WebStream)
    if (out.destroyed) current.destroy()
    return current
  }
  for (const { name, sha256 } of entries) {
    zip.addReadStreamLazy(name, { compress: false, mtime: at }, (give) => {
      open(sha256).then(
        (stream) => give(null, stream),
        (error: Error) => give(error, Readable.from([])),
      )
    })
  }
  zip.addBuffer(Buffer.from(`${JSON.stringify(listed, null, 1)}\n`), 'items.json', { mtime: at })
  // A file that is cut off is none; half of it must not look whole.
  zip.on('error', (error: Error) => out.destroy(error))
  out.once('close', () => current?.destroy())
  zip.end()
  return out
}
