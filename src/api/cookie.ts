/**
 * The API key of somebody who looks at the page: a browser puts no header of a page's own on pictures and WebSockets,
 * so the page swaps the key for a cookie that no script can read. A browser sends it along whoever asks, so it counts
 * for requests of this server's own pages alone.
 */
import type { Context } from 'hono'
import { deleteCookie, getCookie, setCookie } from 'hono/cookie'
import type { AppEnv } from './context.ts'

/** Cookies know no ports: two farms of one host have two names. */
function nameOf(c: Context<AppEnv>): string {
  const port = /:(\d+)$/.exec(c.req.header('host') ?? '')?.[1]
  return port === undefined ? 'darkroom' : `darkroom_${port}`
}

/** Whether the page's key comes with the request, valid or not. */
export const hasPageKey = (c: Context<AppEnv>): boolean => getCookie(c, nameOf(c)) !== undefined

/**
 * The key, when a page of this server sends it. The guard has refused foreign pages; here those fall out that are of
 * the same site and another origin, and writes that do not say where they come from.
 */
export function keyOfPage(c: Context<AppEnv>): string | undefined {
  const key = getCookie(c, nameOf(c))
  const [origin, site] = [c.req.header('origin'), c.req.header('sec-fetch-site')]
  const isRead = (c.req.method === 'GET' || c.req.method === 'HEAD') && c.env.accept === undefined
  const isOwn =
    origin === undefined ? site === 'same-origin' || (isRead && (site === undefined || site === 'none')) : isOwnOrigin(origin, c)
  return isOwn ? key : undefined
}

/** An invited origin is another one: it sends its key by itself. */
const isOwnOrigin = (origin: string, c: Context<AppEnv>): boolean =>
  URL.canParse(origin) && new URL(origin).host === c.req.header('host')?.toLowerCase()

const options = (c: Context<AppEnv>) =>
  ({ httpOnly: true, sameSite: 'Strict', path: '/', secure: c.req.header('origin')?.startsWith('https:') ?? false }) as const

/** Until the browser is closed, or the key is revoked. */
export const rememberKey = (c: Context<AppEnv>, key: string): void => setCookie(c, nameOf(c), key, options(c))
export const forgetKey = (c: Context<AppEnv>): void => void deleteCookie(c, nameOf(c), options(c))
