/**
 * Keeps web pages away from the API. Listening on loopback alone does not: a page in a browser of this machine can send
 * requests there, and its host name can be made to resolve to it. So this runs before routing, for every method and
 * path.
 */
import type { MiddlewareHandler } from 'hono'
import type { Config } from '../config.ts'
import { apiError } from '../errors.ts'
import { isUpload, problemOfUploadType } from './artifacts/upload.ts'
import { hasPageKey } from './cookie.ts'
import type { AppEnv } from './context.ts'
import { mayComeKeyless } from './page.ts'
import { proxyTrace } from './proxy.ts'

const wildcards = new Set(['0.0.0.0', '::', '[::]'])
const bracket = (host: string): string => (host.includes(':') && !host.startsWith('[') ? `[${host}]` : host)

/**
 * @throws DarkroomError `api.host_refused`, `api.origin_refused`, `api.forwarded_refused`,
 * `api.unsupported_media_type`.
 */
export function guard(config: Pick<Config, 'host' | 'allowedHosts' | 'allowedOrigins'>): MiddlewareHandler<AppEnv> {
  const own = wildcards.has(config.host) ? [] : [bracket(config.host)]
  const hosts = new Set(['localhost', '127.0.0.1', '[::1]', ...own, ...config.allowedHosts].map((host) => host.toLowerCase()))
  const origins = new Set(config.allowedOrigins)

  return async (c, next) => {
    const host = c.req.header('host')?.toLowerCase() ?? ''
    const name = /^(\[[0-9a-f:.]+\]|[^:[\]]+)(?::\d{1,5})?$/.exec(host)?.[1]
    if (name === undefined || !(hosts.has(name) || hosts.has(host))) {
      throw apiError('host_refused', `this server does not answer to the Host ${JSON.stringify(host)}`, { field: 'Host' })
    }

    const origin = c.req.header('origin')
    const invited = origin !== undefined && origins.has(origin)
    if (origin !== undefined && !invited && !isSameOrigin(origin, host)) {
      throw apiError('origin_refused', `pages of ${JSON.stringify(origin)} may not call this server`, { field: 'Origin' })
    }
    if (c.req.header('sec-fetch-site') === 'cross-site' && !invited) {
      throw apiError('origin_refused', 'a page of another site sent this request', { field: 'Sec-Fetch-Site' })
    }

    const trace = c.req.header('authorization') === undefined && !hasPageKey(c) && !mayComeKeyless(c.req) ? proxyTrace(c) : undefined
    if (trace !== undefined) {
      throw apiError('forwarded_refused', `the request came through a proxy (${trace}) and carries no key`, { field: trace })
    }

    refuseForeignBody(c.req)
    await next()
  }
}

/**
 * Bodies are JSON: a page can send text/plain and forms without asking first, JSON it cannot. An upload may be a form;
 * that it is from here follows from its `Origin` alone, and it starts nothing.
 */
function refuseForeignBody(request: { method: string; path: string; header(name: string): string | undefined }): void {
  const type = request.header('content-type')
  const length = request.header('content-length')
  const hasBody = request.header('transfer-encoding') !== undefined || (length !== undefined && length !== '0')
  if (!hasBody && (type === undefined || request.method === 'GET' || request.method === 'HEAD')) return
  const essence = type?.split(';')[0]?.trim().toLowerCase()
  if (isUpload(request)) {
    const problem = problemOfUploadType(essence)
    const remedy = 'Send the file with its media type, not compressed, or a form with one field `file`.'
    if (problem !== undefined) throw apiError('unsupported_media_type', problem, { field: 'Content-Type', remedy })
  } else if (essence !== 'application/json') {
    const message = essence ? `a body of type ${JSON.stringify(essence)} is not accepted` : 'the body has no Content-Type'
    throw apiError('unsupported_media_type', message, { field: 'Content-Type' })
  }
  const encoding = request.header('content-encoding')?.toLowerCase()
  if (encoding !== undefined && encoding !== 'identity') {
    throw apiError('unsupported_media_type', `a body compressed with ${JSON.stringify(encoding)} is not accepted`, {
      field: 'Content-Encoding',
    })
  }
}

function isSameOrigin(origin: string, host: string): boolean {
  if (!/^https?:\/\//.test(origin) || !URL.canParse(origin)) return false
  const { host: originHost, protocol } = new URL(origin)
  return URL.canParse(`${protocol}//${host}`) && originHost === new URL(`${protocol}//${host}`).host
}
