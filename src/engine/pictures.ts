/** Pictures that come in: who may use which, and what a request must know of one. */
import { collectAgeMs } from '../artifacts/collector.ts'
import { pictureType } from '../artifacts/picture.ts'
import { headOf, pngHeader, type PngHeader } from '../artifacts/png-header.ts'
import type { ArtifactStore } from '../artifacts/store.ts'
import { artifactError } from '../errors.ts'
import { keys } from '../keys.ts'
import { counted } from '../limits.ts'
import { translated, type Redis } from '../redis.ts'
import type { Reads } from './reads.ts'

export interface PicturesParts {
  redis: Redis
  reads: Pick<Reads, 'names'>
  artifacts: ArtifactStore
  /** Free space below which nothing new is kept, bytes. */
  minFreeDisk: number
}

/** A picture as it is kept, from what somebody sent. */
export interface SentPicture {
  png: Uint8Array
  thumbnail: Uint8Array
}

export class Pictures {
  readonly #parts: PicturesParts

  constructor(parts: PicturesParts) {
    this.#parts = parts
  }

  /**
   * Keeps a picture that the API key has sent, with its thumbnail: for an hour, and then as long as a session names it.
   * The same bytes again begin a new hour. Returns their SHA-256.
   * @throws DarkroomError `disk.full`, `redis.unavailable`
   */
  async keep({ png, thumbnail }: SentPicture, keyId: string | null): Promise<string> {
    const { artifacts, minFreeDisk, redis } = this.#parts
    await artifacts.requireRoom(minFreeDisk + png.byteLength + thumbnail.byteLength, 'keeping a picture (DARKROOM_MIN_FREE_DISK)')
    const sha256 = await artifacts.put(png, 'image')
    await artifacts.putThumbnail(sha256, thumbnail)
    const uploaders = keys.uploaders(sha256)
    await translated(redis.multi().sadd(uploaders, counted(keyId)).pexpire(uploaders, collectAgeMs).exec())
    return sha256
  }

  /**
   * Lets operators see a picture that a policy has blocked, for so many seconds. Its bytes are there as long as any
   * that nobody names, an hour.
   * @throws DarkroomError `redis.unavailable`
   */
  async withhold(sha256: string, seconds: number): Promise<void> {
    await translated(this.#parts.redis.set(keys.blocked(sha256), '', 'PX', Math.min(1000 * seconds, collectAgeMs)))
  }

  /**
   * Whether a session names it, or an upload of this hour; with a key, one of that key's. Without, what a policy has
   * blocked of late as well.
   */
  async sees(sha256: string, keyId: string | null): Promise<boolean> {
    const { reads, redis } = this.#parts
    const uploaders = keys.uploaders(sha256)
    const isTold = keyId === null ? redis.exists(uploaders, keys.blocked(sha256)) : redis.sismember(uploaders, counted(keyId))
    return (await translated(isTold)) > 0 || reads.names(sha256, keyId)
  }

  /**
   * A picture that a new session is about to name: it is spared for another hour.
   * @throws DarkroomError `artifact.unknown` for one that this key does not see, or that is gone
   */
  async find(sha256: string, keyId: string | null, field: string): Promise<PngHeader & { sha256: string }> {
    const { artifacts } = this.#parts
    const isThere = (await this.sees(sha256, keyId)) && (await artifacts.refresh(sha256))
    const found = isThere ? await pngHeader(artifacts, sha256) : undefined
    if (found) return { sha256, ...found }
    const type = isThere ? pictureType(await headOf(artifacts, sha256)) : undefined
    if (type !== undefined && type !== 'image/png')
      throw artifactError('unknown', `the picture ${sha256} is of type ${type}, and steps begin from a PNG`, {
        field,
        remedy: 'Name the picture that it was converted from, or upload this one: it is then kept as a PNG.',
      })
    const remedy = 'Upload the picture with POST /v1/artifacts, or name one of your sessions’; an upload is kept for an hour.'
    throw artifactError('unknown', `there is no picture ${sha256}`, { field, remedy })
  }
}
