import type { IncomingMessage } from 'node:http'
import type { OpenAPIHono } from '@hono/zod-openapi'
import type { Caller, KeyStore } from '../api-keys.ts'
import type { ArtifactStore } from '../artifacts/store.ts'
import type { Config } from '../config.ts'
import type { Logger } from '../log.ts'
import type { Engine } from '../engine/engine.ts'

/** The methods of the engine that the API calls. */
export type EnginePort = Pick<
  Engine,
  | 'start'
  | 'get'
  | 'list'
  | 'history'
  | 'receipt'
  | 'control'
  | 'signal'
  | 'retry'
  | 'remove'
  | 'watch'
  | 'names'
  | 'workflows'
  | 'workers'
  | 'devices'
  | 'models'
  | 'submittedBy'
  | 'confirm'
  | 'ready'
  | 'queues'
>

/** Parts that the routes use. `closing` aborts when the process shuts down: streams and waits end then. */
export interface ApiParts {
  engine: EnginePort
  artifacts: ArtifactStore
  keys: KeyStore
  config: Pick<Config, 'host' | 'allowedHosts' | 'allowedOrigins' | 'boardWrite'>
  log: Logger
  closing?: AbortSignal
}

/** Values that the middleware hands to the routes. */
export interface AppEnv {
  Bindings: { incoming?: IncomingMessage }
  Variables: { requestId: string; caller: Caller }
}

export type App = OpenAPIHono<AppEnv>
