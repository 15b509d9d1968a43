/**
 * What a webhook is sent, by Standard Webhooks (standardwebhooks.com): `webhook-id` is the same at each try, the
 * signature is made anew for each, because receivers refuse timestamps that are five minutes old.
 */
import type { Delivery } from './deliveries.ts'
import { signature } from './signature.ts'

const iso = (ms: number | null): string | null => (ms === null ? null : new Date(ms).toISOString())

/** The body, the same at each try. */
export function bodyOf({ session, status, endedAt, workflow, tags, output, error, retryOf, createdAt, startedAt }: Delivery): string {
  const times = { createdAt: iso(createdAt), startedAt: iso(startedAt), endedAt: iso(endedAt) }
  const data = { id: session, workflow, status, tags, output, error, retryOf, ...times }
  return JSON.stringify({ type: `session.${status}`, timestamp: iso(endedAt), data })
}

/** Headers of a try, signed by each of the secrets: while one is replaced, the old one counts as well. */
export function headersOf(session: string, body: string, secrets: readonly string[], nowMs: number): Record<string, string> {
  const id = `ended-${session}`
  const timestamp = String(Math.floor(nowMs / 1000))
  return {
    'content-type': 'application/json',
    'user-agent': 'Darkroom',
    'webhook-id': id,
    'webhook-timestamp': timestamp,
    'webhook-signature': secrets.map((secret) => signature(secret, id, timestamp, body)).join(' '),
  }
}
