/**
 * The picture of a model: what lies beside its file on this host, or the newest that was drawn with it here. Only its
 * thumbnail leaves: the file is a stranger's, so it is decoded as an upload is, and never served itself.
 */
import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { z } from 'zod'
import { decodePicture, pictureLimits } from '../../artifacts/picture.ts'
import { thumbnailSide } from '../../artifacts/thumbnail.mjs'
import { Thumbnails } from '../../artifacts/thumbnail.ts'
import { apiError } from '../../errors.ts'
import { readPicture, type PictureFile } from '../../models/beside.ts'
import { modelError } from '../../models/errors.ts'
import { kinds, type Kind } from '../../models/verdict.ts'
import type { PinnedInput } from '../../workflows/built-in/pinning.ts'
import { isKnown } from '../artifacts/conditional.ts'
import { needs } from '../auth.ts'
import type { ApiParts, App, AppEnv, EnginePort } from '../context.ts'
import { sightOf } from '../policy.ts'
import { keyed, problems } from '../route.ts'
import { modelParam } from './param.ts'

const type = 'image/webp'

const Of = z.strictObject({
  kind: z.enum(kinds).optional().meta({ description: 'which is meant, of several kinds with one name; left out: the one that draws' }),
})

const picture = createRoute({
  method: 'get',
  path: '/models/{model}/picture',
  summary: 'The picture of a model, as a thumbnail',
  description: `A WebP of at most ${thumbnailSide} pixels a side: of the picture that lies beside the model on the host of this API, as \`NAME.png\`, \`NAME.preview.png\`, or the same with \`jpg\`, \`jpeg\`, \`webp\` or \`avif\`; without one, of the newest picture that was drawn with the model and that the caller may see.`,
  tags: ['models'],
  ...keyed,
  middleware: needs('read'),
  request: { params: modelParam, query: Of, headers: z.object({ 'if-none-match': z.string().optional() }) },
  responses: {
    200: { description: 'The thumbnail', content: { [type]: { schema: z.string().meta({ type: 'string', format: 'binary' }) } } },
    304: { description: 'The caller has it already' },
    ...problems(404, 413, 415),
  },
})

/** Thumbnails that are kept, of some 5 KB each. */
const mostKept = 512
/** Models of one host whose pictures may wait to be decoded: one at a time, so uploads are not kept waiting. */
const mostWaiting = 64

/** Thumbnails by the file and its state; those of files that are no pictures fail as they did before. */
class ThumbnailsOfFiles {
  readonly #made = new Map<string, Promise<Uint8Array>>()
  #last: Promise<unknown> = Promise.resolve()
  #waiting = 0

  /** @throws DarkroomError `model.picture_too_large`, and as `decodePicture` */
  of(file: PictureFile): Promise<Uint8Array> {
    const key = `${file.real}\n${file.state}`
    const known = this.#made.get(key)
    this.#made.delete(key)
    const made = known ?? this.#inTurn(file)
    this.#made.set(key, made)
    for (const [oldest] of this.#made) if (this.#made.size > mostKept) this.#made.delete(oldest)
    // What was only busy, or could not be read, may be there the next time.
    if (!known) made.catch((error: unknown) => !isOfTheFile(error) && this.#made.delete(key))
    return made
  }

  async #inTurn(file: PictureFile): Promise<Uint8Array> {
    if (file.bytes > pictureLimits.bytes)
      throw modelError('picture_too_large', `the picture beside it has ${file.bytes} bytes, and ${pictureLimits.bytes} are the most`)
    if (this.#waiting >= mostWaiting) throw modelError('pictures_busy', `${mostWaiting} pictures of models wait to be decoded already`)
    this.#waiting++
    const turn = this.#last.then(async () => (await decodePicture(await readPicture(file), 'model')).thumbnail)
    this.#last = turn.catch(() => undefined).finally(() => this.#waiting--)
    return turn
  }
}

const isOfTheFile = (error: unknown): boolean =>
  /^(artifact\.(?!busy)|model\.picture_too_large)/.test((error as { code?: string }).code ?? '')

/** How many sessions back the newest picture of a model is looked for, and for how long the answer counts, ms. */
const [pageSize, mostPages, countsMs, mostSights] = [100, 5, 10_000, 64] as const

/** The newest picture of each model, by the key that may see it. */
export class Newest {
  readonly #known = new Map<string | null, { readAt: number; byModel: Promise<ReadonlyMap<string, string>> }>()
  readonly #engine: Pick<EnginePort, 'list'>

  constructor(engine: Pick<EnginePort, 'list'>) {
    this.#engine = engine
  }

  /** The SHA-256 of it; of a LoRA, the newest of the pictures that it changed. */
  async of(model: string, kind: Kind, keyId: string | null): Promise<string | undefined> {
    const now = performance.now()
    let known = this.#known.get(keyId)
    if (!known || now - known.readAt > countsMs) {
      known = { readAt: now, byModel: this.#read(keyId) }
      known.byModel.catch(() => this.#known.delete(keyId))
      this.#known.delete(keyId)
      this.#known.set(keyId, known)
      for (const [oldest] of this.#known) if (this.#known.size > mostSights) this.#known.delete(oldest)
    }
    return (await known.byModel).get(nameIn(kind === 'lora', model))
  }

  async #read(keyId: string | null): Promise<ReadonlyMap<string, string>> {
    const byModel = new Map<string, string>()
    for (let cursor: string | undefined, n = 0; n < mostPages; n++) {
      const page = await this.#engine.list({ workflow: 'image-generation', status: 'succeeded', keyId, cursor, limit: pageSize })
      for (const { input, output } of page.sessions) {
        const { model, adapters = [] } = input as Partial<Asked>
        const [image] = (output as { images?: { sha256: string }[] } | null)?.images ?? []
        if (!model || !image) continue
        for (const name of [nameIn(false, model), ...adapters.map((each) => nameIn(true, each.model.id))])
          if (!byModel.has(name)) byModel.set(name, image.sha256)
      }
      if (page.next === null) break
      cursor = page.next
    }
    return byModel
  }
}

/** An adapter may be called as a model is. */
const nameIn = (isAdapter: boolean, id: string): string => `${isAdapter ? 'adapter' : 'model'} ${id}`

/** Of a completed request. */
type Asked = Pick<z.infer<typeof PinnedInput>, 'model' | 'adapters'>

export function modelPictureRoutes({ engine, artifacts }: ApiParts): App {
  const thumbnails = new ThumbnailsOfFiles()
  const drawnThumbnails = new Thumbnails(artifacts)
  const newest = new Newest(engine)
  const bytesOf = async (stream: ReadableStream<Uint8Array>): Promise<Uint8Array> =>
    new Uint8Array(await new Response(stream).arrayBuffer())
  return new OpenAPIHono<AppEnv>().openapi(picture, async (c) => {
    const { model } = c.req.valid('param')
    const { kind } = c.req.valid('query')
    const found = (await engine.models.find(model)).find(({ entry }) => kind === undefined || entry.verdict.kind === kind)
    const named = JSON.stringify(model.slice(0, 200))
    if (!found) throw apiError('not_found', `there is no model ${named}`, { remedy: 'GET /v1/models lists all models.' })
    const file = await engine.models.pictureBeside(found)
    const sight = sightOf(c.get('caller'))
    const drawn = file ? undefined : await newest.of(found.id, found.entry.verdict.kind, sight)
    // The session, or its place among those of the key, may have gone since.
    const isSeen = drawn !== undefined && (await engine.sees(drawn, sight))
    const kept = isSeen ? await drawnThumbnails.open(drawn).catch(() => undefined) : undefined
    if (!file && !kept)
      throw modelError('no_picture', `no picture lies beside model ${named} on this host, and none was drawn with it lately`)
    const etag = `"${file ? Buffer.from(file.state).toString('base64url') : drawn}"`
    const headers = {
      ETag: etag,
      'Cache-Control': 'private, max-age=30',
      'Content-Security-Policy': "default-src 'none'; sandbox",
    }
    if (isKnown(c.req.valid('header')['if-none-match'], etag)) {
      await kept?.stream.cancel()
      return c.body(null, 304, headers)
    }
    const bytes = file ? await thumbnails.of(file) : kept && (await bytesOf(kept.stream))
    return c.body(new Uint8Array(bytes ?? []), 200, { ...headers, 'Content-Type': type })
  })
}
