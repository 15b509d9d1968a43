/**
 * What a proxy leaves on a request. Behind one, every caller comes from this machine, so a request without a key must
 * look like one of a local program: it carries none of what proxies, balancers and content networks add, by whatever
 * name. A proxy that adds nothing cannot be told from a local program; docs/proxy.md shows how to set one up.
 */
import type { Context } from 'hono'
import type { AppEnv } from './context.ts'

const traces = [
  // RFC 7239, 9110, 8470, 8586, and their forerunners.
  /^(via|cdn-loop|max-forwards|early-data|front-end-https|x-request-start|x-scheme|x-url-scheme|x-host|x-served-by)$/,
  // Whose request it was, or where it was sent: X-Forwarded-For, X-Real-IP, CF-Connecting-IP, X-Original-URL …
  /forward|prox(y|ied)|(^|-)(original|originating|rewrite|gateway|ingress|balancer)(-|$)/,
  /(^|-)(ip|ips|addr|address)$/,
  // Of one maker: Envoy, Cloudflare, Fly, Amazon, Google, Azure …
  /^(cf|fly|fastly|cloudfront|akamai|incap|ngrok|tailscale|ssl-client|surrogate)-/,
  /^x-(amz|amzn|amazon|appengine|goog|google|cloud|azure|ms|arr|akamai|edge|envoy|fastly|fly|cf|nginx|nf|varnish|vercel|railway|render|sucuri|sigsci)(-|$)/,
  /^x-(ssl|client-cert|client-verify|accel|sendfile|traefik|haproxy|istio|kong|tyk|zscaler|bluecoat|iinfo)(-|$)/,
]

/** Name of what shows that the request came through a proxy; undefined for one as local programs send it. */
export function proxyTrace(c: Context<AppEnv>): string | undefined {
  // Local programs have spoken HTTP/1.1 for long; proxies speak 1.0 to what is behind them unless told otherwise.
  if (c.env.incoming?.httpVersion === '1.0') return 'HTTP/1.0'
  return Object.keys(c.req.header()).find((name) => traces.some((trace) => trace.test(name.replaceAll('_', '-'))))
}
