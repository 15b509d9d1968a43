/**
 * Middleware that finds the caller by the API key. While no key is stored, requests from this machine may do
 * everything.
 */
import type { Context, MiddlewareHandler } from 'hono'
import { scopes, type Caller, type KeyStore, type Scope } from '../api-keys.ts'
import { apiError } from '../errors.ts'
import type { AppEnv } from './context.ts'
import { forwardedBy } from './guard.ts'

const local: Caller = { keyId: null, scopes: new Set(scopes) }

/** Finds out who is calling. @throws DarkroomError `api.unauthorized`. */
export function authenticate(keys: KeyStore): MiddlewareHandler<AppEnv> {
  return async (c, next) => {
    const key = presentedKey(c.req.header('authorization'))
    if (!(await keys.any())) {
      const proxy = forwardedBy(c.req)
      if (proxy !== undefined) throw apiError('unauthorized', `the request came through a proxy (${proxy}), and no API key is stored`)
      if (!isFromHere(c)) throw apiError('unauthorized', 'requests from other machines need an API key')
      // Clients of other services must send a key, whatever it is: where none exists, it says nothing.
      c.set('caller', local)
    } else if (key === undefined) throw apiError('unauthorized', 'the request carries no API key')
    else {
      const record = await keys.find(key)
      if (!record) throw apiError('unauthorized', 'the API key is not valid')
      c.set('caller', { keyId: record.id, scopes: new Set(record.scopes) })
    }
    await next()
  }
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

function isFromHere(c: Context<AppEnv>): boolean {
  const address = c.env.incoming?.socket.remoteAddress ?? ''
  return address === '::1' || /^(::ffff:)?127\./.test(address)
}

/** True for addresses that only this machine can reach. */
export const isLoopback = (host: string): boolean =>
  host === 'localhost' || host === '::1' || host === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(host)
