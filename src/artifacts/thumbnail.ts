/** The thumbnail of a picture that was made here: it lies beside the picture, and goes with it. */
import { libvips } from './libvips.ts'
import type { ArtifactStore } from './store.ts'
import { thumbnailOf } from './thumbnail.mjs'

/**
 * Makes it of the bytes of a picture that is kept, in a thread of libvips.
 * @throws Error when they are no picture; DarkroomError `disk.full`
 */
export async function keepThumbnail(artifacts: Pick<ArtifactStore, 'putThumbnail'>, sha256: string, picture: Uint8Array): Promise<void> {
  const sharp = await libvips()
  await artifacts.putThumbnail(sha256, await thumbnailOf(sharp(picture, { limitInputPixels: false })))
}
