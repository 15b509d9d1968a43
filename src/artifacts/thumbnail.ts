/** Thumbnails of pictures made here, in a thread of libvips: each lies beside its picture, and goes with it. */
import { libvips } from './libvips.ts'
import type { ArtifactStore } from './store.ts'
import { thumbnailOf } from './thumbnail.mjs'

/** Of the file of a picture. @throws Error when it is none */
export async function thumbnailOfFile(picture: Uint8Array): Promise<Uint8Array> {
  const sharp = await libvips()
  return thumbnailOf(sharp(picture, { limitInputPixels: false }))
}

/**
 * Thumbnails as they are asked for. A step that makes a picture does not wait for its thumbnail, and a worker may die
 * before it has kept that: it is then made here, one at a time.
 */
export class Thumbnails {
  readonly #artifacts: ArtifactStore
  readonly #making = new Map<string, Promise<void>>()
  #last: Promise<unknown> = Promise.resolve()

  constructor(artifacts: ArtifactStore) {
    this.#artifacts = artifacts
  }

  /**
   * Undefined without the picture.
   * @throws Error when that artifact is no picture; DarkroomError `disk.full`, `artifact.corrupt`
   */
  async open(sha256: string): ReturnType<ArtifactStore['openThumbnail']> {
    const kept = await this.#artifacts.openThumbnail(sha256)
    if (kept || !(await this.#artifacts.has(sha256))) return kept
    const making = this.#making.get(sha256) ?? this.#inTurn(sha256)
    await making
    return this.#artifacts.openThumbnail(sha256)
  }

  #inTurn(sha256: string): Promise<void> {
    const turn = this.#last.then(async () => {
      await this.#artifacts.putThumbnail(sha256, await thumbnailOfFile(await this.#artifacts.read(sha256)))
    })
    this.#making.set(sha256, turn)
    this.#last = turn.catch(() => undefined).finally(() => this.#making.delete(sha256))
    return turn
  }
}
