/** How a page comes to its API key, and who it then is. */
import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { scopes, type Scope } from '../../api-keys.ts'
import { apiError } from '../../errors.ts'
import { forgetKey, rememberKey } from '../cookie.ts'
import type { ApiParts, App, AppEnv } from '../context.ts'
import { json, keyed, noQuery, problems } from '../route.ts'
import { CallerView, LoginBody } from './views.ts'

const tags = ['login']

const enter = createRoute({
  method: 'post',
  path: '/login',
  summary: 'Swap an API key for a cookie',
  description: 'For pages: the cookie is `HttpOnly` and `SameSite=Strict`, and counts for requests of this server’s own pages alone.',
  tags,
  request: { query: noQuery, body: { required: true, content: { 'application/json': { schema: LoginBody } } } },
  responses: { 200: json('Who the caller is from now on', CallerView), ...problems() },
})

const who = createRoute({
  method: 'get',
  path: '/login',
  summary: 'Who the caller is',
  tags,
  ...keyed,
  request: { query: noQuery },
  responses: { 200: json('The caller', CallerView), ...problems() },
})

const leave = createRoute({
  method: 'delete',
  path: '/login',
  summary: 'Give the cookie back',
  tags,
  ...keyed,
  request: { query: noQuery },
  responses: { 204: { description: 'It is gone' }, ...problems() },
})

const inOrder = (granted: ReadonlySet<Scope>): Scope[] => scopes.filter((scope) => granted.has(scope))

export function loginRoutes({ keys }: ApiParts): App {
  return new OpenAPIHono<AppEnv>()
    .openapi(enter, async (c) => {
      const { key } = c.req.valid('json')
      const record = await keys.find(key)
      if (!record) throw apiError('unauthorized', 'the API key is not valid', { field: 'key' })
      rememberKey(c, key)
      return c.json({ keyId: record.id, scopes: inOrder(new Set(record.scopes)) }, 200)
    })
    .openapi(who, (c) => {
      const { keyId, scopes: granted } = c.get('caller')
      return c.json({ keyId, scopes: inOrder(granted) }, 200)
    })
    .openapi(leave, (c) => {
      forgetKey(c)
      return c.body(null, 204)
    })
}
