/**
 * From a request to a WebSocket. The request goes through the app as any other, so guard, keys and limits hold for it,
 * and a refusal has its problem document; the app says whether it becomes a connection.
 */
import { randomUUID } from 'node:crypto'
import { STATUS_CODES, type IncomingMessage, type Server } from 'node:http'
import type { Duplex } from 'node:stream'
import { WebSocketServer, type WebSocket } from 'ws'
import type { Logger } from '../../log.ts'
import type { App } from '../context.ts'
import { bareProblem } from '../problem.ts'
import { malformation } from '../well-formed.ts'
import type { Accept } from './accept.ts'

/** What a caller says at once at most, bytes. */
const maxPayload = 64 * 1024

/**
 * What a server does with requests to change the protocol. Messages are not compressed: most are a few hundred bytes,
 * and a compressor for each connection takes 300 kB.
 */
export function upgrades(server: Server, app: App, log: Logger): (incoming: IncomingMessage, socket: Duplex, head: Buffer) => void {
  const sockets = new WebSocketServer({ noServer: true, maxPayload, perMessageDeflate: false })
  return (incoming, socket, head) => {
    socket.on('error', (error) => log.debug({ err: error }, 'connection'))
    if (!isWebSocket(incoming)) return readAgain(server, incoming, socket, head)
    answer(sockets, app, incoming, socket, head).catch((error: unknown) => {
      log.error({ err: error }, 'a connection could not be opened')
      socket.destroy()
    })
  }
}

async function answer(sockets: WebSocketServer, app: App, incoming: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> {
  let hold: ((socket: WebSocket) => void) | undefined
  const accept: Accept = (how, ended) => {
    hold = how
    if (socket.destroyed) ended()
    else socket.once('close', ended)
  }
  const fault = malformation(incoming)
  if (fault) {
    const { status, headers, body } = bareProblem(fault, randomUUID())
    return void socket.end(await written(new Response(body, { status, headers })))
  }
  const headers = new Headers()
  for (let i = 0; i + 1 < incoming.rawHeaders.length; i += 2) headers.append(incoming.rawHeaders[i] ?? '', incoming.rawHeaders[i + 1] ?? '')
  const request = new Request(new URL(incoming.url ?? '/', `http://${incoming.headers.host}`), {
    method: incoming.method ?? 'GET',
    headers,
  })
  const response = await app.fetch(request, { incoming, accept })
  if (hold) sockets.handleUpgrade(incoming, socket, head, hold)
  else socket.end(await written(response))
}

const isWebSocket = ({ method, headers }: IncomingMessage): boolean =>
  method === 'GET' &&
  headers.upgrade?.toLowerCase() === 'websocket' &&
  headers['sec-websocket-version'] === '13' &&
  /^[+/0-9A-Za-z]{22}==$/.test(headers['sec-websocket-key'] ?? '')

/**
 * A server may ignore any other change of protocol (RFC 9110, 7.8), as of clients that offer HTTP/2. Node has left the
 * parsing of such a connection, so the request is put back without the offer.
 */
function readAgain(server: Server, { method, url, httpVersion, rawHeaders }: IncomingMessage, socket: Duplex, head: Buffer): void {
  const lines = [`${method} ${url} HTTP/${httpVersion}`]
  for (let i = 0; i + 1 < rawHeaders.length; i += 2)
    if (!/^(?:upgrade|connection|http2-settings)$/i.test(rawHeaders[i] ?? '')) lines.push(`${rawHeaders[i]}: ${rawHeaders[i + 1]}`)
  socket.unshift(Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'), head]))
  server.emit('connection', socket)
}

async function written(response: Response): Promise<Buffer> {
  const body = Buffer.from(await response.arrayBuffer())
  const headers = new Headers(response.headers)
  headers.set('Content-Length', String(body.byteLength))
  headers.set('Connection', 'close')
  const lines = [
    `HTTP/1.1 ${response.status} ${STATUS_CODES[response.status]}`,
    ...[...headers].map(([name, value]) => `${name}: ${value}`),
  ]
  return Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'), body])
}
