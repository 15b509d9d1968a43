/**
 * Pictures by their SHA-256, and the way for them in. HTTP serves no other bytes: no tensors, no checkpoints, nothing
 * that a browser would run.
 */
import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { z } from 'zod'
import { decodePicture, pictureLimits, pictureType, pictureTypes } from '../../artifacts/picture.ts'
import { artifactIdPattern } from '../../artifacts/store.ts'
import { thumbnailSide } from '../../artifacts/thumbnail.mjs'
import { Thumbnails } from '../../artifacts/thumbnail.ts'
import { artifactError, DarkroomError } from '../../errors.ts'
import type { Caller } from '../../api-keys.ts'
import { needs } from '../auth.ts'
import type { ApiParts, App, AppEnv } from '../context.ts'
import { sightOf } from '../policy.ts'
import { json, keyed, noQuery, problems } from '../route.ts'
import { isKnown, rangeOf, type ByteRange } from './conditional.ts'
import { fileOf, formType, PictureUrl } from './upload.ts'
import { tellingTexts } from '../../domains/postprocessing/texts/index.ts'
import { withTexts } from '../../artifacts/texts.ts'
import { pictureRequest } from './request.ts'
import { PictureRequestView, urlOf, UploadView } from './views.ts'

const bytes = z.string().meta({ type: 'string', format: 'binary' })
const content = Object.fromEntries(pictureTypes.map((type) => [type, { schema: bytes }]))

const { bytes: mostBytes, pixels: mostPixels } = pictureLimits

const upload = createRoute({
  method: 'post',
  path: '/artifacts',
  summary: 'Upload a picture',
  description: `A PNG, JPEG, WebP or AVIF file of at most ${mostBytes} bytes and ${mostPixels} pixels, as the body, as the file of a form, or by its URL where the operator allows its host. It is kept as a PNG of 8 bits in sRGB, upright, for an hour; longer while a session names it. Of its texts those are kept that tell of its request. The same picture again is the same artifact.`,
  tags: ['artifacts'],
  ...keyed,
  request: {
    query: noQuery,
    body: {
      content: { ...content, [formType]: { schema: z.object({ file: bytes }) }, 'application/json': { schema: PictureUrl } },
      required: true,
    },
  },
  responses: {
    201: { ...json('The picture', UploadView), headers: z.object({ Location: z.string() }) },
    ...problems(),
  },
})

const get = createRoute({
  method: 'get',
  path: '/artifacts/{sha256}',
  summary: 'Fetch a picture',
  description: `With \`size=${thumbnailSide}\` its thumbnail: a WebP of at most ${thumbnailSide} pixels a side.`,
  tags: ['artifacts'],
  ...keyed,
  middleware: needs('read'),
  request: {
    params: z.object({ sha256: z.string().meta({ description: '64 hex digits' }) }),
    query: z.strictObject({
      size: z
        .literal(String(thumbnailSide), `must be ${thumbnailSide}, which is the one size of thumbnails`)
        .optional()
        .meta({ description: 'pixels of the thumbnail’s longer side; left out: the picture itself' }),
    }),
    headers: z.object({
      'if-none-match': z.string().optional(),
      range: z
        .string()
        .optional()
        .meta({ description: 'one range of bytes; several are answered with the whole', example: 'bytes=0-1023' }),
      'if-range': z.string().optional(),
    }),
  },
  responses: {
    200: { description: 'The bytes; they never change', content },
    206: { description: 'The range of them that was asked for', content },
    304: { description: 'The caller has them already' },
    ...problems(404, 410, 416),
  },
})

const request = createRoute({
  method: 'get',
  path: '/artifacts/{sha256}/request',
  summary: 'Read the request of a picture',
  description:
    'From its receipt, of a picture that Darkroom made; else from what AUTOMATIC1111’s web UI, ComfyUI (by its stock nodes) or InvokeAI wrote into the file, as far as it goes.',
  tags: ['artifacts'],
  ...keyed,
  middleware: needs('read'),
  request: { params: get.request.params, query: noQuery },
  responses: { 200: json('The request', PictureRequestView), ...problems(404, 410) },
})

export function artifactRoutes({ engine, artifacts, config }: ApiParts): App {
  const app = new OpenAPIHono<AppEnv>()
  // Bytes, for which the document's schemas have no check: the decoder is it.
  app.openAPIRegistry.registerPath(upload)
  app.post(upload.path, needs('submit'), async (c) => {
    const file = await fileOf(c, config)
    const { png: pixels, thumbnail, ...picture } = await decodePicture(file, 'body')
    const png = withTexts(pixels, tellingTexts(file))
    const sha256 = await engine.upload({ png, thumbnail }, c.get('caller').keyId)
    const view = { sha256, mediaType: 'image/png' as const, bytes: png.byteLength, ...picture, url: urlOf(sha256) }
    return c.json(view, 201, { Location: view.url })
  })
  const mustSee = async (sha256: string, caller: Caller): Promise<void> => {
    const isNamed = artifactIdPattern.test(sha256) && (await engine.sees(sha256, sightOf(caller)))
    if (!isNamed) throw unknownArtifact(sha256)
  }
  const thumbnails = new Thumbnails(artifacts)
  const noThumbnail = (sha256: string, cause: unknown): DarkroomError =>
    cause instanceof DarkroomError
      ? cause
      : artifactError('no_thumbnail', `none can be made of picture ${sha256}: ${(cause as Error).message}`, { cause })
  app.openapi(request, async (c) => {
    const { sha256 } = c.req.valid('param')
    await mustSee(sha256, c.get('caller'))
    return c.json(await pictureRequest(await artifacts.read(sha256), engine.models), 200)
  })
  return app.openapi(get, async (c) => {
    const { sha256 } = c.req.valid('param')
    await mustSee(sha256, c.get('caller'))

    const { size } = c.req.valid('query')
    const suffix = size === undefined ? '' : `-${size}`
    const etag = `"${sha256}${suffix}"`
    const cached = { ETag: etag, 'Accept-Ranges': 'bytes', 'Cache-Control': 'private, max-age=31536000, immutable' }
    const { range: asked, 'if-range': ifRange, 'if-none-match': ifNoneMatch } = c.req.valid('header')
    if (isKnown(ifNoneMatch, etag)) return c.body(null, 304, cached)

    const thumbnail = async () =>
      thumbnails.open(sha256).catch((error: unknown) => {
        throw noThumbnail(sha256, error)
      })
    const artifact = await (size === undefined ? artifacts.open(sha256) : thumbnail())
    if (!artifact) throw artifactError('missing', `artifact ${sha256} is not in the store`)
    const { head, whole } = await peek(artifact.stream)
    const type = pictureType(head)
    if (!type) {
      await whole.cancel()
      throw unknownArtifact(sha256)
    }
    const headers = {
      ...cached,
      'Content-Type': type,
      'Content-Disposition': `inline; filename="${sha256.slice(0, 16)}${suffix}.${type.slice('image/'.length)}"`,
      'Content-Security-Policy': "default-src 'none'; sandbox",
    }
    if (c.req.raw.method === 'HEAD') {
      await whole.cancel()
      return c.body(null, 200, { ...headers, 'Content-Length': String(artifact.size) })
    }
    const range = rangeOf({ range: asked, ifRange }, etag, artifact.size)
    if (range === undefined) return c.body(whole, 200, { ...headers, 'Content-Length': String(artifact.size) })
    if (range === 'unsatisfiable') {
      await whole.cancel()
      c.header('Content-Range', `bytes */${artifact.size}`)
      throw artifactError('range', `the picture has ${artifact.size} bytes, none of which is in that range`, { field: 'Range' })
    }
    return c.body(part(whole, range), 206, {
      ...headers,
      'Content-Length': String(range.last - range.first + 1),
      'Content-Range': `bytes ${range.first}-${range.last}/${artifact.size}`,
    })
  })
}

const unknownArtifact = (id: string): DarkroomError => artifactError('unknown', `there is no picture ${JSON.stringify(id.slice(0, 64))}`)

/** The first bytes of a stream, and the stream with them still in front. */
async function peek(stream: ReadableStream<Uint8Array>): Promise<{ head: Uint8Array; whole: ReadableStream<Uint8Array> }> {
  const reader = stream.getReader()
  const first = await reader.read()
  let held = first.value
  const whole = new ReadableStream<Uint8Array>({
    async pull(controller) {
      if (held) {
        controller.enqueue(held)
        held = undefined
        return
      }
      const { done, value } = await reader.read()
      if (done) controller.close()
      else controller.enqueue(value)
    },
    cancel: (reason) => reader.cancel(reason),
  })
  return { head: first.value ?? new Uint8Array(), whole }
}

function part(whole: ReadableStream<Uint8Array>, { first, last }: ByteRange): ReadableStream<Uint8Array> {
  let at = 0
  return whole.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      transform(chunk, controller) {
        const bytesOf = chunk.subarray(Math.max(0, first - at), Math.max(0, last + 1 - at))
        if (bytesOf.length > 0) controller.enqueue(bytesOf)
        at += chunk.length
        if (at > last) controller.terminate()
      },
    }),
  )
}
