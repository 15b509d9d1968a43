/** The API as a process: connects Redis, builds the engine, listens, and closes without losing an answer. */
import { randomUUID } from 'node:crypto'
import { setMaxListeners } from 'node:events'
import { createServer, type Server, STATUS_CODES } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { join } from 'node:path'
import { getRequestListener, RequestError } from '@hono/node-server'
import { KeyStore } from '../api-keys.ts'
import { checkStore } from '../artifacts/index-mark.ts'
import { FileArtifactStore } from '../artifacts/store.ts'
import type { Config } from '../config.ts'
import { apiError, configError } from '../errors.ts'
import type { Logger } from '../log.ts'
import { connect, untilReady } from '../redis.ts'
import { Engine, type EngineOptions } from '../engine/engine.ts'
import { createApp } from './app.ts'
import { isLoopback } from './auth.ts'
import type { ApiParts } from './context.ts'
import { describe } from './problem.ts'

const redisWaitMs = 10_000
const closeGraceMs = 5000

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

/** Serves the app on a port of the configured host; 0 takes a free one. */
export async function listen(parts: Omit<ApiParts, 'closing'>, port: number): Promise<RunningApi> {
  const closing = new AbortController()
  // Every open stream listens to it.
  setMaxListeners(0, closing.signal)
  const app = createApp({ ...parts, closing: closing.signal })
  /**
   * Answers a request that the app never gets, because its target or Host is no URL. Any other error here is a defect.
   */
  const errorHandler = (error: unknown): Response => {
    const requestId = randomUUID()
    const isMalformed = error instanceof RequestError
    if (!isMalformed) parts.log.error({ requestId, err: error }, 'request failed outside the app')
    const problem = describe(
      isMalformed
        ? apiError('malformed', `this is no valid request: ${error.message}`)
        : apiError('failed', 'the request failed inside the API'),
      requestId,
    )
    return new Response(JSON.stringify(problem), {
      status: problem.status,
      headers: { 'Content-Type': 'application/problem+json', 'X-Request-Id': requestId },
    })
  }
  const answer = getRequestListener(app.fetch, { errorHandler })
  const server = createServer((request, response) => void answer(request, response))
  server.on('clientError', refuse)
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

/** Answers a request that Node's parser refuses: broken HTTP, headers too large, a request that never ends. */
function refuse(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy()
    return
  }
  const status = error.code === 'HPE_HEADER_OVERFLOW' ? 431 : error.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 408 : 400
  const requestId = randomUUID()
  const title = STATUS_CODES[status]
  const body = JSON.stringify({
    ...describe(apiError('malformed', `this is no valid HTTP: ${error.message}`), requestId),
    status,
    title,
  })
  const head = [
    `HTTP/1.1 ${status} ${title}`,
    'Content-Type: application/problem+json',
    `Content-Length: ${Buffer.byteLength(body)}`,
    `X-Request-Id: ${requestId}`,
    'Connection: close',
  ]
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`)
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
