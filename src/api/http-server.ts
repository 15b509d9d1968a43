/** HTTP itself, before the app: what is no HTTP, how long a request may take, how long a connection stays. */
import { randomUUID } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { apiError, type DarkroomError } from '../errors.ts'
import { bareProblem } from './problem.ts'
import { malformation } from './well-formed.ts'

/** Of connections and requests; those of Node's options in its units. */
export const limits = {
  /**
   * Seconds that a connection may be idle, as clients are told: longer than usual ones keep it (Go's 90 s ask again by
   * themselves). It is closed some seconds later, so that a request already on its way is still answered.
   */
  idleS: 75,
  graceS: 5,
  maxHeaderSize: 16 * 1024,
  headersTimeout: 20_000,
  requestTimeout: 60_000,
  connectionsCheckingInterval: 2000,
  // Refused with a problem, as everything that is malformed.
  requireHostHeader: false,
}

interface Exchange {
  request: IncomingMessage
  response: ServerResponse
}

/** A server that hands on well-formed requests, and answers everything else with a problem. */
export function httpServer(
  answer: (request: IncomingMessage, response: ServerResponse) => void,
  { idleS, graceS, ...options }: typeof limits,
): Server {
  const inFlight = new WeakMap<Socket, Exchange[]>()
  const exchangesOf = (socket: Socket): readonly Exchange[] => inFlight.get(socket) ?? []

  const onRequest = (request: IncomingMessage, response: ServerResponse): void => {
    const { socket } = request
    const exchange = { request, response }
    inFlight.set(socket, [...exchangesOf(socket), exchange])
    // Node has just set the time that clients are told.
    response.once('finish', () => exchangesOf(socket).length === 1 && socket.setTimeout((idleS + graceS) * 1000))
    response.once('close', () =>
      inFlight.set(
        socket,
        exchangesOf(socket).filter((each) => each !== exchange),
      ),
    )
    closeUnread(request, response)
    const error = malformation(request)
    if (error) refuse(response, error)
    else answer(request, response)
  }

  const server = createServer(options, onRequest)
  // Whoever asks before sending a body is told to go on once the key has been looked at.
  server.on('checkContinue', onRequest)
  server.on('checkExpectation', (request: IncomingMessage, response: ServerResponse) => {
    const message = `Expect: ${JSON.stringify(String(request.headers.expect).slice(0, 100))} cannot be met`
    closeUnread(request, response)
    refuse(response, apiError('expectation_failed', message, { field: 'Expect' }))
  })
  server.on('connect', (_request: IncomingMessage, socket: Socket) => {
    const error = apiError('method_not_allowed', 'CONNECT is not possible: this is no proxy')
    writeProblem(socket, error, { Allow: 'GET, HEAD, POST, PUT, PATCH, DELETE' })
  })
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) => refuseBroken(error, socket, exchangesOf(socket)))
  server.keepAliveTimeout = idleS * 1000
  // The size of the headers is limited; a count would drop those beyond it in silence.
  server.maxHeadersCount = 0
  return server
}

/** Ends the connection with the answer, unless the body was read to its end: Node would read the rest of it. */
function closeUnread(request: IncomingMessage, response: ServerResponse): void {
  const { 'content-length': length = '0', 'transfer-encoding': encoding } = request.headers
  if (encoding === undefined && length === '0') return
  const { shouldKeepAlive } = response
  response.shouldKeepAlive = false
  request.once('end', () => (response.shouldKeepAlive = shouldKeepAlive))
}

/** Answers a request that the app never gets. */
function refuse(response: ServerResponse, error: DarkroomError): void {
  const { status, headers, body } = bareProblem(error, randomUUID())
  response.writeHead(status, headers).end(body)
}

const brokenAs: Record<string, 'headers_too_large' | 'timed_out'> = {
  HPE_HEADER_OVERFLOW: 'headers_too_large',
  ERR_HTTP_REQUEST_TIMEOUT: 'timed_out',
}

/**
 * Answers what Node's parser refuses: broken HTTP, headers too large, a request that never ends. An earlier request of
 * the connection that still waits for its answer would take this one for its own, so then the connection just ends.
 */
function refuseBroken(error: NodeJS.ErrnoException, socket: Socket, earlier: readonly Exchange[]): void {
  const isItsOwn = earlier.every(({ request, response }) => !request.complete && !response.headersSent)
  if (error.code === 'ECONNRESET' || !socket.writable || !isItsOwn) {
    socket.destroy()
    return
  }
  const reason = brokenAs[error.code ?? ''] ?? 'malformed'
  writeProblem(socket, apiError(reason, `this is no valid HTTP request: ${error.message}`))
}

/** Writes a whole response to a connection that has no other, and ends it. */
function writeProblem(socket: Socket, error: DarkroomError, more: Record<string, string> = {}): void {
  const { status, headers, body } = bareProblem(error, randomUUID())
  const lines = Object.entries({ ...headers, ...more, Connection: 'close' }).map(([name, value]) => `${name}: ${value}`)
  socket.end([`HTTP/1.1 ${status} ${STATUS_CODES[status]}`, ...lines, '', body].join('\r\n'))
}
