/** How a session's picture looks before it is there. */
import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { z } from 'zod'
import { ended } from '../../engine/session.ts'
import { safetyError } from '../../domains/postprocessing/safety/errors.ts'
import { sessionError } from '../../errors.ts'
import { isKnown } from '../artifacts/conditional.ts'
import { needs } from '../auth.ts'
import type { ApiParts, App, AppEnv } from '../context.ts'
import { seesAll, visibleSession } from '../policy.ts'
import { idParam, keyed, problems } from '../route.ts'

const preview = createRoute({
  method: 'get',
  path: '/sessions/{id}/preview',
  summary: 'Look at a picture that is being drawn',
  description:
    'The latest preview: small, at most 64 KiB, and renewed once a second at most. Of a paused picture, and of one whose worker has died, a draft from its checkpoint. ' +
    'Frames of the type `progress` say in `preview` after how many calls it looked so. 404 before the first, and once the session has ended. Where a policy judges the pictures, previews are for callers with the scope `operate`.',
  tags: ['sessions'],
  ...keyed,
  middleware: needs('read'),
  request: {
    params: idParam,
    query: z.strictObject({
      n: z
        .string()
        .regex(/^\d{1,15}$/, 'must be a whole number')
        .optional()
        .meta({ description: 'changes nothing but the address, so that a page asks again', type: 'integer' }),
    }),
    headers: z.object({ 'if-none-match': z.string().optional() }),
  },
  responses: {
    200: { description: 'The preview', content: { 'image/jpeg': { schema: z.string().meta({ type: 'string', format: 'binary' }) } } },
    304: { description: 'The caller has it already' },
    ...problems(404),
  },
})

export function previewRoutes({ engine }: ApiParts): App {
  return new OpenAPIHono<AppEnv>().openapi(preview, async (c) => {
    const { id, status, input } = await visibleSession(engine, c.req.valid('param').id, c.get('caller'))
    if (input['safety'] !== undefined && !seesAll(c.get('caller')))
      throw safetyError('withheld', `a policy has not judged the pictures of session ${id} yet`)
    if (ended.has(status)) throw sessionError('no_preview', `session ${id} has ${status}: nothing of it is under way`)
    const found = await engine.previews.of(id)
    const headers = found && { ETag: found.etag, 'Cache-Control': 'private, no-cache' }
    if (headers && isKnown(c.req.valid('header')['if-none-match'], headers.ETag)) return c.body(null, 304, headers)
    const jpeg = await found?.jpeg()
    if (!headers || !jpeg) throw sessionError('no_preview', `session ${id} has no preview yet`)
    return c.body(new Uint8Array(jpeg), 200, {
      ...headers,
      'Content-Type': 'image/jpeg',
      'Content-Security-Policy': "default-src 'none'; sandbox",
    })
  })
}
