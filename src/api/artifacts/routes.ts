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

const bytes = z.string().meta({ type: 'string', format: 'binary' })

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
    headers: z.object({ 'if-none-match': z.string().optional() }),
  },
  responses: {
    200: {
      description: 'The bytes; they never change',
      content: {
        'image/png': { schema: bytes },
        'image/jpeg': { schema: bytes },
        'image/webp': { schema: bytes },
        'image/avif': { schema: bytes },
      },
    },
    304: { description: 'The caller has them already' },
    ...problems(404, 410),
  },
})

export function artifactRoutes({ engine, artifacts }: ApiParts): App {
  return new OpenAPIHono<AppEnv>().openapi(get, async (c) => {
    const { sha256 } = c.req.valid('param')
    const isNamed = artifactIdPattern.test(sha256) && (await engine.names(sha256, sightOf(c.get('caller'))))
    if (!isNamed) throw unknownArtifact(sha256)

    const etag = `"${sha256}"`
    const cached = { ETag: etag, 'Cache-Control': 'private, max-age=31536000, immutable' }
    const known = c.req
      .valid('header')
      ['if-none-match']?.split(',')
      .map((tag) => tag.trim().replace(/^W\//, ''))
    if (known?.includes(etag)) return c.body(null, 304, cached)

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
      'Content-Length': String(artifact.size),
      'Content-Disposition': `inline; filename="${sha256.slice(0, 16)}.${type.slice('image/'.length)}"`,
      'Content-Security-Policy': "default-src 'none'; sandbox",
    }
    if (c.req.raw.method !== 'HEAD') return c.body(whole, 200, headers)
    await whole.cancel()
    return c.body(null, 200, headers)
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

/** By the bytes, not by a name: PNG, JPEG, WebP, AVIF. */
function imageType(head: Uint8Array): 'image/png' | 'image/jpeg' | 'image/webp' | 'image/avif' | undefined {
  const text = Buffer.from(head.subarray(0, 16)).toString('latin1')
  if (text.startsWith('\x89PNG\r\n\x1a\n')) return 'image/png'
  if (text.startsWith('\xff\xd8\xff')) return 'image/jpeg'
  if (text.startsWith('RIFF') && text.slice(8, 12) === 'WEBP') return 'image/webp'
  if (text.slice(4, 8) === 'ftyp' && ['avif', 'avis'].includes(text.slice(8, 12))) return 'image/avif'
  return undefined
}
