/** The API as a process: connects Redis, builds the engine, listens, and closes without losing an answer. */
import { randomUUID } from 'node:crypto'
import { setMaxListeners } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse, STATUS_CODES } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { join } from 'node:path'
import { getRequestListener, RequestError } from '@hono/node-server'
import { KeyStore } from '../api-keys.ts'
import { checkStore } from '../artifacts/index-mark.ts'
import { FileArtifactStore } from '../artifacts/store.ts'
import type { Config } from '../config.ts'
import { apiError, configError, type DarkroomError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { connect, untilReady } from '../redis.ts'
import { Engine, type EngineOptions } from '../engine/engine.ts'
import { createApp } from './app.ts'
import { isLoopback } from './auth.ts'
import type { ApiParts } from './context.ts'
import { bareProblem } from './problem.ts'
import { malformation } from './well-formed.ts'

const redisWaitMs = 10_000
const closeGraceMs = 5000

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

export interface RunningApi {
  url: string
  port: number
  /** Stops taking requests, ends the event streams, lets running requests finish for 5 s at most. */
  close(): Promise<void>
}

/**
 * Starts the API of a configuration; `config.redisUrl` says where Redis is.
 * @throws DarkroomError `config.invalid`, `redis.unavailable`, `artifact.not_shared`; `api.key_required` when it would
 * listen beyond this machine without a key.
 */
export async function startApi(
  config: Config,
  log: Logger,
  further: Omit<EngineOptions, 'redis' | 'subscriber' | 'config' | 'log'> = {},
): Promise<RunningApi> {
  const url = config.redisUrl
  if (url === undefined) throw configError('invalid', 'REDIS_URL is not set: `darkroom up` starts a Redis and sets it')
  const onError = (error: Error): void => log.warn({ err: error }, 'redis connection')
  const redis = connect(url, { patience: 'fail', onError })
  const subscriber = connect(url, { patience: 'wait', onError })
  const disconnect = (): void => {
    redis.disconnect()
    subscriber.disconnect()
  }
  try {
    await untilReady(redis, redisWaitMs)
    const keys = new KeyStore(redis)
    if (!isLoopback(config.host) && !(await keys.any())) {
      throw apiError('key_required', `DARKROOM_HOST is ${config.host}, which other machines can reach, and there is no API key`)
    }
    const artifacts = new FileArtifactStore(join(config.data, 'artifacts'))
    await checkStore(redis, artifacts)
    const engine = new Engine({ redis, subscriber, config, log, ...further })
    const api = await listen({ engine, artifacts, keys, config, log }, config.port).catch(async (error: unknown) => {
      await engine.close()
      throw error
    })
    log.info({ url: api.url }, 'listening')
    return {
      ...api,
      close: async () => {
        await api.close()
        await engine.close()
        disconnect()
      },
    }
  } catch (error) {
    disconnect()
    throw error
  }
}

/** Serves the app on a port of the configured host; 0 takes a free one. Tests shorten the limits. */
export async function listen(
  parts: Omit<ApiParts, 'closing'>,
  port: number,
  { idleS, graceS, ...options }: typeof limits = limits,
): Promise<RunningApi> {
  const closing = new AbortController()
  // Every open stream listens to it.
  setMaxListeners(0, closing.signal)
  const app = createApp({ ...parts, closing: closing.signal })
  const answer = getRequestListener(app.fetch, {
    // Here comes what is well-formed and yet no address, as the Host `0x7f.1`; anything else is a defect.
    errorHandler: (error: unknown): Response => {
      const requestId = randomUUID()
      const isAddress = !(error instanceof RequestError)
      if (isAddress) parts.log.error({ requestId, err: error }, 'request failed outside the app')
      const problem = isAddress
        ? apiError('failed', 'the request failed inside the API')
        : apiError('malformed', `this is no valid request: ${error.message}`)
      const { status, headers, body } = bareProblem(problem, requestId)
      return new Response(body, { status, headers })
    },
  })
  const server = createServer(options, (request, response) => {
    keepAlive(response, closing.signal.aborted ? undefined : idleS)
    const error = malformation(request)
    if (error) refuse(response, error)
    else void answer(request, response)
  })
  server.keepAliveTimeout = (idleS + graceS) * 1000
  // The size of the headers is limited; a count would drop those beyond it in silence.
  server.maxHeadersCount = 0
  const inFlight = watchRequests(server)
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) => refuseBroken(error, socket, inFlight(socket)))
  server.on('checkExpectation', (request: IncomingMessage, response: ServerResponse) => {
    const message = `Expect: ${JSON.stringify(String(request.headers.expect).slice(0, 100))} cannot be met`
    refuse(response, apiError('expectation_failed', message, { field: 'Expect' }))
  })
  server.on('connect', (_request: IncomingMessage, socket: Socket) => {
    writeProblem(socket, apiError('method_not_allowed', 'CONNECT is not possible: this is no proxy'), {
      Allow: 'GET, HEAD, POST, PUT, DELETE',
    })
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const isTaken = error.code === 'EADDRINUSE'
      reject(isTaken ? apiError('port_taken', `port ${port} of ${parts.config.host} is taken`, { cause: error }) : error)
    })
    server.listen(port, parts.config.host, resolve)
  })
  const { port: bound } = server.address() as AddressInfo
  const host = parts.config.host.includes(':') && !parts.config.host.startsWith('[') ? `[${parts.config.host}]` : parts.config.host
  return { url: `http://${host}:${bound}`, port: bound, close: () => close(server, closing) }
}

/** Lets the connection stay open, and says how long it may be idle: a client that knows does not use it just then. */
function keepAlive(response: ServerResponse, idleS: number | undefined): void {
  if (!response.shouldKeepAlive) return
  response.setHeader('Connection', idleS === undefined ? 'close' : 'keep-alive')
  if (idleS !== undefined) response.setHeader('Keep-Alive', `timeout=${idleS}`)
}

interface Exchange {
  request: IncomingMessage
  response: ServerResponse
}

/** The requests of each connection whose responses have not ended. */
function watchRequests(server: Server): (socket: Socket) => readonly Exchange[] {
  const open = new WeakMap<Socket, Exchange[]>()
  const watch = (request: IncomingMessage, response: ServerResponse): void => {
    const { socket } = request
    const exchange = { request, response }
    open.set(socket, [...(open.get(socket) ?? []), exchange])
    response.once('close', () => open.set(socket, open.get(socket)?.filter((each) => each !== exchange) ?? []))
  }
  server.prependListener('request', watch)
  return (socket) => open.get(socket) ?? []
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

/** Ends streams and waits by the signal, then idle connections, then after the grace the remaining ones. */
async function close(server: Server, closing: AbortController): Promise<void> {
  const closed = new Promise<void>((resolve) => server.close(() => resolve()))
  closing.abort()
  server.closeIdleConnections()
  const sweep = setInterval(() => server.closeIdleConnections(), 50)
  const grace = setTimeout(() => server.closeAllConnections(), closeGraceMs)
  await closed
  clearInterval(sweep)
  clearTimeout(grace)
}
