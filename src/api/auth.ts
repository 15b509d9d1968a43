/**
 * Middleware that finds the caller by the API key. On a farm that is open, which had no key since an operator opened
 * it, requests from this machine may do everything and need none.
 */
import type { Context, MiddlewareHandler } from 'hono'
import { scopes, type Caller, type KeyStore, type Scope } from '../api-keys.ts'
import { apiError } from '../errors.ts'
import { keyOfPage } from './cookie.ts'
import type { ApiParts, AppEnv } from './context.ts'
import { proxyTrace } from './proxy.ts'

const local: Caller = { keyId: null, scopes: new Set(scopes) }

/** Finds out who is calling, and counts the request. @throws DarkroomError `api.unauthorized`, `limit.requests`. */
export function authenticate({ keys, rate, log }: Pick<ApiParts, 'keys' | 'rate' | 'log'>): MiddlewareHandler<AppEnv> {
  let wasClosed = false
  return async (c, next) => {
    const caller = await callerOf(c, keys)
    if (!caller) {
      wasClosed = true
      throw await refusal(c, keys)
    }
    if (caller.keyId !== null) await rate.count(caller.keyId)
    else if (wasClosed) {
      wasClosed = false
      log.warn('this farm was opened: without a key, every user of this machine may do everything now')
    }
    c.set('caller', caller)
    await next()
  }
}

/**
 * Whose request it is, if anybody's. A key that a local program presents to an open farm is ignored: many a client must
 * send one.
 */
export async function callerOf(c: Context<AppEnv>, keys: KeyStore): Promise<Caller | undefined> {
  const key = presentedKey(c.req.header('authorization')) ?? keyOfPage(c)
  const record = key === undefined ? undefined : await keys.find(key)
  if (record) return { keyId: record.id, scopes: new Set(record.scopes) }
  return isLocal(c) && (await keys.isOpen()) ? local : undefined
}

async function refusal(c: Context<AppEnv>, keys: KeyStore): Promise<Error> {
  if (c.req.header('authorization') !== undefined) return apiError('unauthorized', 'the API key is not valid')
  if (keyOfPage(c) !== undefined) return apiError('unauthorized', 'the API key that this page was opened with is not valid any more')
  if (!isLocal(c)) return apiError('unauthorized', 'requests from other machines need an API key')
  if (await keys.any()) return apiError('unauthorized', 'the request carries no API key')
  const remedy = 'Make a key with `darkroom keys add`, or open the farm to every user of its machine with `darkroom keys open`.'
  return apiError('unauthorized', 'the request carries no API key; all there were are revoked', { remedy })
}

/** Route middleware: the caller must have the scope. @throws DarkroomError `api.forbidden`. */
export function needs(scope: Scope): MiddlewareHandler<AppEnv> {
  return async (c, next) => {
    if (!c.get('caller').scopes.has(scope)) throw apiError('forbidden', `the API key does not have the scope \`${scope}\``)
    await next()
  }
}

/** `Bearer KEY`, or `Basic` with the key as password: a browser asks its user for that one. */
function presentedKey(header: string | undefined): string | undefined {
  if (header === undefined) return undefined
  const [scheme = '', value = ''] = header.trim().split(/ +/, 2)
  if (scheme.toLowerCase() !== 'basic') return scheme.toLowerCase() === 'bearer' ? value : header
  const pair = Buffer.from(value, 'base64').toString('utf8')
  return pair.slice(pair.indexOf(':') + 1)
}

/** Whether a program on this machine sent the request itself. */
export function isLocal(c: Context<AppEnv>): boolean {
  const address = c.env.incoming?.socket.remoteAddress ?? ''
  return (address === '::1' || /^(::ffff:)?127\./.test(address)) && proxyTrace(c) === undefined
}

/** True for addresses that only this machine can reach. */
export const isLoopback = (host: string): boolean =>
  host === 'localhost' || host === '::1' || host === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(host)
