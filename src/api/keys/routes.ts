/** API keys over HTTP: made, listed and revoked by operators. */
import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import type { Context } from 'hono'
import { z } from 'zod'
import { apiError, keyError } from '../../errors.ts'
import { needs } from '../auth.ts'
import { refuseBody } from '../body.ts'
import type { ApiParts, App, AppEnv } from '../context.ts'
import { json, keyed, noQuery, problems } from '../route.ts'
import { AddKey, KeyView, KeyWithSecret, presentKey } from './views.ts'

const list = createRoute({
  method: 'get',
  path: '/keys',
  summary: 'List the API keys, oldest first',
  tags: ['keys'],
  ...keyed,
  middleware: needs('operate'),
  request: { query: noQuery },
  responses: { 200: json('All keys, without their secrets', z.strictObject({ keys: z.array(KeyView) })), ...problems() },
})

const add = createRoute({
  method: 'post',
  path: '/keys',
  summary: 'Make an API key',
  description: 'The answer is its only copy. With the first key the farm is closed to requests without one.',
  tags: ['keys'],
  ...keyed,
  middleware: needs('operate'),
  request: { query: noQuery, body: { required: true, content: { 'application/json': { schema: AddKey } } } },
  responses: { 201: json('The key', KeyWithSecret), ...problems() },
})

const revoke = createRoute({
  method: 'delete',
  path: '/keys/{id}',
  summary: 'Revoke an API key: it opens nothing any more, and its streams and waits end within two seconds',
  description: 'What it has submitted goes on. After the last key the farm stays closed, until `darkroom keys open`.',
  tags: ['keys'],
  ...keyed,
  middleware: needs('operate'),
  request: {
    params: z.object({ id: z.string().meta({ param: { name: 'id', in: 'path' }, description: 'id of the key' }) }),
    query: noQuery,
  },
  responses: { 204: { description: 'Revoked' }, ...problems(404) },
})

/** Who changes keys, as the audit log tells it. */
const by = (c: Context<AppEnv>) => ({ keyId: c.get('caller').keyId, requestId: c.get('requestId') })

export const keyRoutes = ({ keys }: ApiParts): App =>
  new OpenAPIHono<AppEnv>()
    .openapi(list, async (c) => c.json({ keys: (await keys.list()).map((key) => presentKey(key, c.get('caller').keyId)) }, 200))
    .openapi(add, async (c) => {
      const { name, scopes, weight } = c.req.valid('json')
      const { keyId, scopes: own } = c.get('caller')
      const beyond = scopes.filter((scope) => !own.has(scope))
      if (beyond.length > 0)
        throw apiError('forbidden', `the API key of the caller has not itself ${beyond.join(', ')}`, { field: 'scopes' })
      const { key, record } = await keys.add(name, scopes, weight, by(c))
      return c.json({ ...presentKey(record, keyId), key }, 201)
    })
    .openapi(revoke, async (c) => {
      await refuseBody(c)
      const { id } = c.req.valid('param')
      if (!(await keys.revoke(id, by(c)))) throw keyError('unknown', `there is no key ${JSON.stringify(id.slice(0, 64))}`)
      return c.body(null, 204)
    })
