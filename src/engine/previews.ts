/**
 * How a picture looks before it is there: the latest preview of the step that draws it, kept for a minute; else a draft
 * that its newest checkpoint holds, whoever drew that. Neither is recorded: no preview stands in a history.
 */
import { jpegOf, type Pixels } from '../artifacts/preview.ts'
import type { ArtifactStore } from '../artifacts/store.ts'
import { ensureError } from '../errors.ts'
import { keys, splitStepKey } from '../keys.ts'
import { readLayout } from '../models/safetensors.ts'
import { runScript, translated, translatedAll, type Redis } from '../redis.ts'
import type { Checkpoint } from './store.ts'

/** How long a preview is kept that nothing follows, ms. */
const keptMs = 60_000

/** Who has made a preview, and after how many calls of its step. */
export interface PreviewSource {
  stepKey: string
  attemptId: string
  call: number
}

export interface Preview {
  /** Of its bytes, as HTTP knows it. */
  etag: string
  jpeg(): Promise<Buffer>
}

/** A step that is open, as its record has it. */
interface OpenStep {
  key: string
  attemptId: string | null
  /** Newest first. */
  checkpoints: Checkpoint[]
}

export class Previews {
  readonly #redis: Redis
  readonly #artifacts: ArtifactStore

  constructor({ redis, artifacts }: { redis: Redis; artifacts: ArtifactStore }) {
    this.#redis = redis
    this.#artifacts = artifacts
  }

  /** Keeps it in place of the one before. False for an attempt that does not hold its step any more. */
  async show(source: PreviewSource, jpeg: Uint8Array): Promise<boolean> {
    const { sessionId, suffix } = splitStepKey(source.stepKey)
    const args = [suffix, source.attemptId, keptMs, JSON.stringify(source), Buffer.from(jpeg).toString('base64')]
    return (await runScript(this.#redis, 'showPreview', keys.session(sessionId), args))[0] === 'ok'
  }

  /** The latest of a session that has not ended; undefined without one. */
  async of(id: string): Promise<Preview | undefined> {
    const [live, steps] = await Promise.all([this.#live(id), this.#openSteps(id)])
    const begun = steps.find(({ checkpoints }) => checkpoints.length > 0)
    const own = live && steps.find(({ key }) => key === live.stepKey)
    // One that another attempt has shown is of calls that may be done again. One of a step that is over, for decoding
    // follows it, is shown till the next picture has begun.
    const isLatest = live && (own ? live.attemptId === own.attemptId && live.call >= (own.checkpoints[0]?.call ?? 0) : !begun)
    if (isLatest) return { etag: `"${live.attemptId}-${live.call}"`, jpeg: () => Promise.resolve(live.jpeg) }
    return begun && this.#draft(begun.checkpoints)
  }

  /** Of the newest checkpoint whose bytes are whole and hold one. */
  async #draft(checkpoints: readonly Checkpoint[]): Promise<Preview | undefined> {
    for (const { sha256 } of checkpoints) {
      const bytes = await this.#artifacts.read(sha256).catch((error: unknown) => ensureError(error, 'artifact.missing'))
      const pixels = Buffer.isBuffer(bytes) ? await draftOf(bytes) : undefined
      if (pixels) return { etag: `"${sha256}"`, jpeg: () => jpegOf(pixels) }
    }
    return undefined
  }

  async #live(id: string): Promise<(PreviewSource & { jpeg: Buffer }) | undefined> {
    const whole = await translated(this.#redis.get(keys.preview(id)))
    if (!whole) return undefined
    const head = whole.indexOf('\n')
    return { ...(JSON.parse(whole.slice(0, head)) as PreviewSource), jpeg: Buffer.from(whole.slice(head + 1), 'base64') }
  }

  async #openSteps(id: string): Promise<OpenStep[]> {
    const fields = await translated(this.#redis.hkeys(keys.session(id)))
    const steps = fields.flatMap((field) => (field.startsWith('open:') ? [`${id}.${field.slice('open:'.length)}`] : []))
    const records = await translatedAll(
      steps.reduce(
        (pipeline, key) => pipeline.hmget(keys.step(key), 'attemptId', 'checkpoint', 'checkpointBefore'),
        this.#redis.pipeline(),
      ),
    )
    return steps.map((key, i) => {
      const [attemptId = null, ...checkpoints] = records[i] as (string | null)[]
      return { key, attemptId, checkpoints: checkpoints.flatMap((text) => (text ? [JSON.parse(text) as Checkpoint] : [])) }
    })
  }
}

/** The tensor `draft` of a checkpoint, RGB8; undefined where there is none. */
async function draftOf(bytes: Buffer): Promise<Pixels | undefined> {
  const { bodyFrom, places, tensors } = await readLayout({
    size: bytes.length,
    read: (at, length) => Promise.resolve(bytes.subarray(at, at + length)),
  })
  const place = places.find(({ name }) => name === 'draft')
  const [height, width] = tensors.get('draft')?.shape ?? []
  if (!place || height === undefined || width === undefined) return undefined
  return { rgb: bytes.subarray(bodyFrom + place.begin, bodyFrom + place.end), width, height }
}
