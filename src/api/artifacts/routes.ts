/**
 * Pictures by their SHA-256. HTTP serves no other bytes: no tensors, no checkpoints, nothing that a browser would run.
 */
import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { z } from 'zod'
import { artifactIdPattern } from '../../artifacts/store.ts'
import { artifactError, type DarkroomError } from '../../errors.ts'
import { needs } from '../auth.ts'
import type { ApiParts, App, AppEnv } from '../context.ts'
import { sightOf } from '../policy.ts'
import { keyed, noQuery, problems } from '../route.ts'
import { isKnown, rangeOf, type ByteRange } from './conditional.ts'

const bytes = z.string().meta({ type: 'string', format: 'binary' })
const content = {
  'image/png': { schema: bytes },
  'image/jpeg': { schema: bytes },
  'image/webp': { schema: bytes },
  'image/avif': { schema: bytes },
}

const get = createRoute({
  method: 'get',
  path: '/artifacts/{sha256}',
  summary: 'Fetch a picture',
  tags: ['artifacts'],
  ...keyed,
  middleware: needs('read'),
  request: {
    params: z.object({ sha256: z.string().meta({ description: '64 hex digits' }) }),
    query: noQuery,
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

export function artifactRoutes({ engine, artifacts }: ApiParts): App {
  return new OpenAPIHono<AppEnv>().openapi(get, async (c) => {
    const { sha256 } = c.req.valid('param')
    const isNamed = artifactIdPattern.test(sha256) && (await engine.names(sha256, sightOf(c.get('caller'))))
    if (!isNamed) throw unknownArtifact(sha256)

    const etag = `"${sha256}"`
    const cached = { ETag: etag, 'Accept-Ranges': 'bytes', 'Cache-Control': 'private, max-age=31536000, immutable' }
    const { range: asked, 'if-range': ifRange, 'if-none-match': ifNoneMatch } = c.req.valid('header')
    if (isKnown(ifNoneMatch, etag)) return c.body(null, 304, cached)

    const artifact = await artifacts.open(sha256)
    if (!artifact) throw artifactError('missing', `artifact ${sha256} is not in the store`)
    const { head, whole } = await peek(artifact.stream)
    const type = imageType(head)
    if (!type) {
      await whole.cancel()
      throw unknownArtifact(sha256)
    }
    const headers = {
      ...cached,
      'Content-Type': type,
      'Content-Disposition': `inline; filename="${sha256.slice(0, 16)}.${type.slice('image/'.length)}"`,
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

/** By the bytes, not by a name: PNG, JPEG, WebP, AVIF. */
function imageType(head: Uint8Array): 'image/png' | 'image/jpeg' | 'image/webp' | 'image/avif' | undefined {
  const text = Buffer.from(head.subarray(0, 16)).toString('latin1')
  if (text.startsWith('\x89PNG\r\n\x1a\n')) return 'image/png'
  if (text.startsWith('\xff\xd8\xff')) return 'image/jpeg'
  if (text.startsWith('RIFF') && text.slice(8, 12) === 'WEBP') return 'image/webp'
  if (text.slice(4, 8) === 'ftyp' && ['avif', 'avis'].includes(text.slice(8, 12))) return 'image/avif'
  return undefined
}
