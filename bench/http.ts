/**
 * The smallest HTTP client: keeps its connections, checks nothing but the status, so that what it takes itself hardly
 * counts.
 */
import { Agent, request as httpRequest } from 'node:http'

const agent = new Agent({ keepAlive: true })

export interface Timed {
  /** From the call until the last byte of the answer, ms. */
  ms: number
  text: string
}

/** @throws Error when the status is another */
export function timed(
  url: string,
  method: 'GET' | 'POST' | 'DELETE',
  expected: number,
  body?: object,
  more: Record<string, string> = {},
): Promise<Timed> {
  const payload = body === undefined ? undefined : JSON.stringify(body)
  const content = payload === undefined ? {} : { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(payload) }
  const from = performance.now()
  return new Promise((resolve, reject) => {
    const request = httpRequest(url, { agent, method, headers: { ...content, ...more } }, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => (text += chunk))
      response.on('error', reject)
      response.on('end', () => {
        if (response.statusCode === expected) resolve({ ms: performance.now() - from, text })
        else reject(new Error(`void: ${method} ${url} → ${response.statusCode} ${text}`))
      })
    })
    request.on('error', reject)
    request.end(payload)
  })
}
