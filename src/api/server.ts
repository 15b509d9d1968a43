/** The API as a process: connects Redis, builds the engine, listens, and closes without losing an answer. */
import { randomUUID } from 'node:crypto'
import { setMaxListeners } from 'node:events'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
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
import { TraceExport } from '../engine/trace-export.ts'
import { WebhookSender } from '../webhooks/sender.ts'
import { createApp } from './app.ts'
import { isLoopback } from './auth.ts'
import type { ApiParts } from './context.ts'
import { httpServer, limits } from './http-server.ts'
import { upgrades } from './live/upgrade.ts'
import { bareProblem } from './problem.ts'
import { RequestRate } from './request-rate.ts'
import { Slots } from './slots.ts'

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
    if (!isLoopback(config.host) && (await keys.isOpen())) {
      throw apiError('key_required', `DARKROOM_HOST is ${config.host}, which other machines can reach, and there is no API key`)
    }
    const artifacts = new FileArtifactStore(join(config.data, 'artifacts'))
    await checkStore(redis, artifacts)
    const engine = new Engine({ redis, subscriber, config, log, ...further })
    await engine.openWorkflows().catch(async (error: unknown) => {
      await engine.close()
      throw error
    })
    const api = await listen({ engine, artifacts, keys, redis, config, log }, config.port).catch(async (error: unknown) => {
      await engine.close()
      throw error
    })
    const { webhooks, deliveries } = engine
    const sender = new WebhookSender({ webhooks, deliveries, config, log, tryMs: engine.times.webhookTryMs, at: further.at })
    const traces = new TraceExport({
      redis,
      config,
      log,
      get: (id) => engine.get(id),
      history: (id, after, limit) => engine.history(id, after, limit),
    })
    if (further.sweeps !== false) {
      sender.start()
      traces.start()
    }
    log.info({ url: api.url }, 'listening')
    return {
      ...api,
      close: async () => {
        await api.close()
        await Promise.all([sender.stop(), traces.stop()])
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
  parts: Omit<ApiParts, 'closing' | 'rate' | 'slots'> & { config: Config },
  port: number,
  connections = limits,
): Promise<RunningApi> {
  const closing = new AbortController()
  // Every open stream listens to it.
  setMaxListeners(0, closing.signal)
  const { redis, keys, config, log } = parts
  const slots = new Slots({ redis, keys, limits: config.limits, log })
  const rate = new RequestRate(redis, config.limits)
  const app = createApp({ ...parts, rate, slots, closing: closing.signal })
  const answer = getRequestListener(app.fetch, {
    // The listener's own cleanup would read what nobody asked for.
    autoCleanupIncoming: false,
    // Here comes what is well-formed and yet no address, as the Host `0x7f.1`; anything else is a defect.
    errorHandler: (error: unknown): Response => {
      const requestId = randomUUID()
      const isDefect = !(error instanceof RequestError)
      if (isDefect) log.error({ requestId, err: error }, 'request failed outside the app')
      const problem = isDefect
        ? apiError('failed', 'the request failed inside the API')
        : apiError('malformed', `this is no valid request: ${error.message}`)
      const { status, headers, body } = bareProblem(problem, requestId)
      return new Response(body, { status, headers })
    },
  })
  const server = httpServer((request, response) => void answer(request, response), connections)
  server.on('upgrade', upgrades(server, app, log))
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const isTaken = error.code === 'EADDRINUSE'
      reject(isTaken ? apiError('port_taken', `port ${port} of ${parts.config.host} is taken`, { cause: error }) : error)
    })
    server.listen(port, parts.config.host, resolve)
  })
  const { port: bound } = server.address() as AddressInfo
  const host = parts.config.host.includes(':') && !parts.config.host.startsWith('[') ? `[${parts.config.host}]` : parts.config.host
  return {
    url: `http://${host}:${bound}`,
    port: bound,
    close: async () => {
      await close(server, closing)
      await slots.close()
    },
  }
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
