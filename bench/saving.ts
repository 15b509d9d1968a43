/** What a picture's save is made of, each part by itself. */
import { randomFillSync } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { FileArtifactStore, sha256Of } from '../src/artifacts/store.ts'
import { thumbnailOfFile } from '../src/artifacts/thumbnail.ts'
import { root } from '../src/config.ts'
import { writePng } from '../src/domains/postprocessing/png.ts'
import { median, rounded } from './statistics.ts'

const rounds = 8

/** Medians in words, of a square of noise: its PNG takes longest of all. Stored on the disk of this repository. */
export async function saved(size: number): Promise<string> {
  const folder = await mkdtemp(join(root, '.saving-'))
  try {
    const store = new FileArtifactStore(folder)
    const times = new Map<string, number[]>()
    const measure = async <T>(name: string, act: () => T | Promise<T>): Promise<T> => {
      const began = performance.now()
      const made = await act()
      times.set(name, [...(times.get(name) ?? []), performance.now() - began])
      return made
    }
    // The first starts threads.
    for (let round = 0; round <= rounds; round++) {
      const pixels = randomFillSync(Buffer.alloc(size * size * 3))
      if (round === 1) times.clear()
      await measure('hash of the pixels', () => sha256Of(pixels))
      const png = await measure('PNG', () => writePng(pixels, size, size, {}))
      const thumbnail = await measure('thumbnail', () => thumbnailOfFile(png))
      const sha256 = await measure('hashed and stored', () => store.put(png, 'image'))
      await measure('thumbnail stored', () => store.putThumbnail(sha256, thumbnail))
    }
    return [...times].map(([name, ms]) => `${name} ${rounded(median(ms))}`).join(', ')
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}
