/** A receiver of webhooks on this machine, which answers as the test says and keeps what it was sent. */
import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { eventually } from './wait.ts'

export interface Letter {
  path: string
  headers: IncomingHttpHeaders
  body: string
}

export interface Receiver extends AsyncDisposable {
  url: string
  port: number
  /** What came, in order. */
  letters: Letter[]
  /** How it answers from now on. */
  answers(how: (response: ServerResponse) => void): void
  /** Waits for the n-th letter. */
  letter(n: number): Promise<Letter>
}

export const status =
  (code: number, headers: Record<string, string> = {}) =>
  (response: ServerResponse): void =>
    void response.writeHead(code, headers).end()

export async function startReceiver(port = 0): Promise<Receiver> {
  const letters: Letter[] = []
  let answer = status(204)
  const server = createServer((request, response) => {
    void text(request).then((body) => {
      letters.push({ path: request.url ?? '', headers: request.headers, body })
      answer(response)
    })
  })
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
  const bound = (server.address() as AddressInfo).port
  return {
    url: `http://127.0.0.1:${bound}`,
    port: bound,
    letters,
    answers: (how) => {
      answer = how
    },
    letter: (n) => eventually(`letter ${n}`, () => Promise.resolve(letters[n - 1])),
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
