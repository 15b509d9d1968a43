import type { IncomingMessage, ServerResponse } from 'node:http'
import type { OpenAPIHono } from '@hono/zod-openapi'
import type { Caller, KeyStore } from '../api-keys.ts'
import type { ArtifactStore } from '../artifacts/store.ts'
import type { Config } from '../config.ts'
import type { Logger } from '../log.ts'
import type { Engine } from '../engine/engine.ts'
import type { Redis } from '../redis.ts'
import type { Accept } from './live/accept.ts'
import type { RequestRate } from './request-rate.ts'
import type { Slot, Slots } from './slots.ts'

/** The methods of the engine that the API calls. */
export type EnginePort = Pick<
  Engine,
  | 'start'
  | 'get'
  | 'list'
  | 'newest'
  | 'history'
  | 'receipt'
  | 'control'
  | 'change'
  | 'signal'
  | 'grant'
  | 'answer'
  | 'retry'
  | 'fork'
  | 'states'
  | 'export'
  | 'remove'
  | 'watch'
  | 'oversee'
  | 'sees'
  | 'upload'
  | 'workflows'
  | 'reloadWorkflows'
  | 'workers'
  | 'devices'
  | 'models'
  | 'policies'
  | 'pictureAnalytics'
  | 'runs'
  | 'bulk'
  | 'schedules'
  | 'counts'
  | 'webhooks'
  | 'deliveries'
  | 'previews'
  | 'items'
  | 'submittedBy'
  | 'confirm'
  | 'queues'
  | 'waiting'
  | 'dryRuns'
  | 'usage'
  | 'pauseQueue'
  | 'resumeQueue'
>

/** Parts that the routes use. `closing` aborts when the process shuts down: streams and waits end then. */
export interface ApiParts {
  engine: EnginePort
  artifacts: ArtifactStore
  keys: KeyStore
  redis: Redis
  rate: RequestRate
  slots: Slots
  config: Pick<Config, 'host' | 'allowedHosts' | 'allowedOrigins' | 'boardWrite' | 'keyDeviceS' | 'pictureHosts' | 'pictureNets'>
  log: Logger
  closing?: AbortSignal
}

/** Values that the middleware hands to the routes. */
export interface AppEnv {
  /** `accept`: of a request that would become a WebSocket. */
  Bindings: { incoming?: IncomingMessage; outgoing?: ServerResponse; accept?: Accept }
  /** `wait`: of a request that waits for its session. */
  Variables: { requestId: string; caller: Caller; wait?: Slot }
}

export type App = OpenAPIHono<AppEnv>
