/** The audit log over HTTP, and the middleware that writes it. */
import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import type { MiddlewareHandler } from 'hono'
import { z } from 'zod'
import { Audit, keptEntries } from '../../audit.ts'
import { needs } from '../auth.ts'
import type { ApiParts, App, AppEnv } from '../context.ts'
import { json, keyed, pageLimit, problems } from '../route.ts'
import { AuditView, presentEntry } from './views.ts'

const list = createRoute({
  method: 'get',
  path: '/audit',
  summary: 'What callers with the scope `operate` have changed, the newest first',
  tags: ['health'],
  ...keyed,
  middleware: needs('operate'),
  request: { query: z.strictObject({ limit: pageLimit(keptEntries, 100) }) },
  responses: { 200: json('The newest entries', z.strictObject({ entries: z.array(AuditView) })), ...problems() },
})

export const auditRoutes = ({ redis }: ApiParts): App =>
  new OpenAPIHono<AppEnv>().openapi(list, async (c) => {
    const entries = await new Audit(redis).list(c.req.valid('query').limit)
    return c.json({ entries: entries.map(presentEntry) }, 200)
  })

/** Requests that work rather than operate: they make sessions, keep pictures, count. */
const work = new Set(['/v1/sessions', '/v1/artifacts', '/v1/bulk/count'])
/** The store of keys writes its own entries, in one transaction with the change. */
const isOfKeys = (path: string): boolean => path === '/v1/keys' || path.startsWith('/v1/keys/')

/**
 * Writes down each change that a caller with the scope `operate` makes, submissions aside. It is not acknowledged
 * before that.
 */
export function audited({ redis }: Pick<ApiParts, 'redis'>): MiddlewareHandler<AppEnv> {
  const audit = new Audit(redis)
  return async (c, next) => {
    await next()
    const { method, path } = c.req
    if (method === 'GET' || method === 'HEAD' || !c.res.ok || work.has(path) || isOfKeys(path)) return
    // None of what needs no key: a login, a signal by a token.
    const caller = c.get('caller') as AppEnv['Variables']['caller'] | undefined
    if (caller?.scopes.has('operate'))
      await audit.record({ keyId: caller.keyId, action: `${method} ${path}`, requestId: c.get('requestId') })
  }
}
