/** An API of its own for a test file: private Redis, real engine, real HTTP. Nothing is shared with other files. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { assign, setup } from 'xstate'
import { z } from 'zod'
import { KeyStore, type Scope } from '../../src/api-keys.ts'
import { listen, type RunningApi } from '../../src/api/server.ts'
import { FileArtifactStore } from '../../src/artifacts/store.ts'
import { readConfig, type Config } from '../../src/config.ts'
import { operations } from '../../src/domains/index.ts'
import { operation } from '../../src/domains/operation.ts'
import { createLog } from '../../src/log.ts'
import { connect, untilReady, type Redis } from '../../src/redis.ts'
import { AttemptPort, type Attempt } from '../../src/engine/attempt.ts'
import { Engine } from '../../src/engine/engine.ts'
import { defineWorkflow, workflows } from '../../src/workflows/index.ts'
import { step } from '../../src/workflows/step.ts'
import { ApiClient } from '../support/http.ts'
import { untilHashed, writeModel } from '../support/model.ts'
import { defaultShards, startTestRedis } from '../support/redis.ts'

/** A workflow of one step that no worker runs: tests take it and deliver its result themselves. */
const sketch = defineWorkflow({
  name: 'sketch',
  version: 1,
  title: 'Sketch',
  description: 'One step whose result is the output.',
  input: z.strictObject({ text: z.string().max(100) }),
  output: z.record(z.string(), z.unknown()),
  machine: setup({
    types: { context: {} as { output: Record<string, unknown> }, input: {} as { text: string }, output: {} as Record<string, unknown> },
    actors: { 'test.draw': step<{ text: string }, Record<string, unknown>>() },
  }).createMachine({
    id: 'sketch',
    context: { output: {} },
    initial: 'drawing',
    states: {
      drawing: {
        invoke: {
          id: 'draw',
          src: 'test.draw',
          input: { text: 'x' },
          onDone: { target: 'done', actions: assign({ output: ({ event }) => event.output }) },
        },
      },
      done: { type: 'final' },
    },
    output: ({ context }) => context.output,
  }),
  resources: { lanes: ['host'], note: 'nothing' },
})

const draw = operation({
  input: z.unknown(),
  output: z.unknown(),
  lane: 'host',
  attempts: 1,
  timeoutMs: 10_000,
  run: () => Promise.reject(new Error('tests run this step themselves')),
})

export interface Harness {
  api: RunningApi
  url: string
  client: ApiClient
  engine: Engine
  port: AttemptPort
  redis: Redis
  artifacts: FileArtifactStore
  keys: KeyStore
  config: Config
  /** For an API with limits of its own. */
  parts: Parameters<typeof listen>[0]
  /** A client with a new key of these scopes. */
  withKey(...scopes: Scope[]): Promise<ApiClient & { keyId: string; key: string }>
  /** Another API on the same Redis, as after a restart or beside the first. */
  another(over?: Partial<Config>): Promise<RunningApi>
  /** Takes the step of a new sketch session, as a worker would. */
  take(sessionId: string): Promise<Attempt>
  /** Ends a sketch session with a picture of these bytes; returns their SHA-256. */
  finish(sessionId: string, bytes?: Uint8Array): Promise<string>
  stopRedis(): Promise<void>
  stop(): Promise<void>
}

export async function startHarness(over: Partial<Config> = {}): Promise<Harness> {
  const folder = await mkdtemp(join(tmpdir(), 'darkroom-api-'))
  await writeModel(join(folder, 'models'))
  const server = await startTestRedis()
  const { url } = server
  const config: Config = {
    ...readConfig({
      DARKROOM_DATA: folder,
      DARKROOM_HOME: folder,
      DARKROOM_MODELS: join(folder, 'models'),
      DARKROOM_PORT: '0',
      REDIS_URL: url,
      DARKROOM_LOG: 'silent',
    }),
    shards: defaultShards,
    ...over,
  }
  const log = createLog('silent', 'api')
  const redis = connect(url, { patience: 'fail' })
  const subscriber = connect(url, { patience: 'wait' })
  await untilReady(redis, 10_000)
  const engine = new Engine({
    redis,
    subscriber,
    config,
    log,
    workflows: [...workflows, sketch],
    operations: { ...operations, 'test.draw': draw },
  })
  const port = new AttemptPort(engine, [])
  await untilHashed(engine)
  const artifacts = new FileArtifactStore(join(folder, 'artifacts'))
  await artifacts.id()
  const keys = new KeyStore(redis)
  const running: RunningApi[] = []
  const another = async (more: Partial<Config> = {}): Promise<RunningApi> => {
    const api = await listen({ engine, artifacts, keys, redis, config: { ...config, ...more }, log }, 0)
    running.push(api)
    return api
  }
  const take = async (sessionId: string): Promise<Attempt> => {
    const taken = await port.take(`${sessionId}.1.0.1`, { worker: 'w', device: 'd', exactnessKey: '01234567' })
    if (taken.is !== 'taken') throw new Error(`the step of ${sessionId} is ${taken.is}`)
    return taken.attempt
  }
  const api = await another()
  const stopRedis = (): Promise<void> => server.stop()
  return {
    api,
    url: api.url,
    client: new ApiClient(api.url),
    engine,
    port,
    redis,
    artifacts,
    keys,
    config,
    parts: { engine, artifacts, keys, redis, config, log },
    withKey: async (...scopes) => {
      const { key, record } = await keys.add('test', scopes)
      return Object.assign(new ApiClient(api.url, { key }), { keyId: record.id, key })
    },
    another,
    take,
    finish: async (sessionId, bytes = png) => {
      const sha256 = await artifacts.put(bytes, 'image')
      const image = { sha256, mediaType: 'image/png', width: 1, height: 1, seed: 1, bytes: bytes.byteLength }
      const artifact = { sha256, group: 'references' as const }
      await port.deliver(await take(sessionId), { output: { images: [image] }, artifacts: [artifact], stats: {} })
      return sha256
    },
    stopRedis,
    stop: async () => {
      await Promise.all(running.map((each) => each.close()))
      await engine.close()
      redis.disconnect()
      subscriber.disconnect()
      await stopRedis()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

/** One white pixel. */
export const png = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==', 'base64')

/** A small valid submission of a picture. */
export const picture = (input: Record<string, unknown> = {}): Record<string, unknown> => ({
  workflow: 'image-generation',
  input: { prompt: 'a red circle', width: 64, height: 64, steps: 2, seed: 7, ...input },
})

/** A submission whose step the test runs itself. */
export const sketchOf = (text: string, more: Record<string, unknown> = {}): Record<string, unknown> => ({
  workflow: 'sketch',
  input: { text },
  ...more,
})
