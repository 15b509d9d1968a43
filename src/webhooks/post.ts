/** One POST to somebody else's server: to one address, without redirects, with an end in time. */
import type { LookupAddress } from 'node:dns'
import { request as overHttp, type ClientRequest, type IncomingMessage } from 'node:http'
import { request as overHttps } from 'node:https'
import { pinnedTo } from '../outgoing.ts'

/** What is sent. */
export interface Letter {
  url: URL
  /** The connection goes there and nowhere else, whatever the name resolves to by then. */
  address: LookupAddress
  headers: Record<string, string>
  body: string
}

export interface Answer {
  status: number
  /** What `Retry-After` says, seconds; undefined where it says nothing that can be read. */
  retryAfterS: number | undefined
}

/** @throws Error that says what went wrong: no connection, a certificate, `signal` was aborted */
export async function post({ url, address, headers, body }: Letter, signal: AbortSignal): Promise<Answer> {
  const send = url.protocol === 'https:' ? overHttps : overHttp
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const options = {
      method: 'POST',
      agent: false,
      lookup: pinnedTo(address),
      signal,
      headers: { ...headers, 'content-length': Buffer.byteLength(body) },
    }
    const sent: ClientRequest = send(url, options, resolve)
    sent.once('error', reject)
    sent.end(body)
  })
  // Its body says nothing that matters here, and may be without end.
  response.destroy()
  return { status: response.statusCode ?? 0, retryAfterS: secondsOf(response.headers['retry-after']) }
}

function secondsOf(header: string | undefined): number | undefined {
  if (header === undefined) return undefined
  const seconds = /^\d{1,9}$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1000
  return Number.isNaN(seconds) ? undefined : Math.max(0, Math.ceil(seconds))
}
