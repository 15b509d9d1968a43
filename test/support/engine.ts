/** An engine in the test's own process on a private Redis, without sweeps: nothing happens but what the test does. */
import { randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { readConfig, type Config } from '../../src/config.ts'
import { createLog } from '../../src/log.ts'
import { connect, type Redis } from '../../src/redis.ts'
import { AttemptPort, type Attempt } from '../../src/engine/attempt.ts'
import { Engine } from '../../src/engine/engine.ts'
import { operations } from '../../src/domains/index.ts'
import type { OperationTable } from '../../src/domains/operation.ts'
import { workflows, type Workflow } from '../../src/workflows/index.ts'
import type { AtPoint } from '../../src/engine/points.ts'
import { untilHashed, writeModel } from './model.ts'
import type { Node } from './program.ts'
import { defaultShards, startTestRedis, type TestRedis, type TestRedisOptions } from './redis.ts'

interface Further {
  shards?: number
  config?: Partial<Config>
  workflows?: Workflow[]
  operations?: OperationTable
  at?: AtPoint
  redis?: TestRedisOptions
}

export interface TestEngine extends AsyncDisposable {
  engine: Engine
  port: AttemptPort
  redis: Redis
  server: TestRedis
  /** Of its Redis, for further connections. */
  url: string
  folder: string
  /** Submits a picture; returns the session's id. */
  submit: (more?: Record<string, unknown>) => Promise<string>
  /** Submits a program, whose ledger is in the engine's folder; returns the session's id. */
  run: (program: Node) => Promise<string>
  /** Takes a session's step `<version>.<n>` under a dispatch number. */
  take: (id: string, suffix: string, dispatch?: number) => Promise<Attempt>
}

/** With further workflows and operations. */
export async function startEngine(further: Further = {}): Promise<TestEngine> {
  const server = await startTestRedis(further.redis)
  const folder = await mkdtemp(join(tmpdir(), 'darkroom-engine-'))
  await writeModel(join(folder, 'models'))
  const config = {
    ...readConfig({ DARKROOM_DATA: folder, DARKROOM_MODELS: join(folder, 'models') }),
    shards: further.shards ?? defaultShards,
    ...further.config,
  }
  const redis = connect(server.url, { patience: 'wait' })
  const subscriber = connect(server.url, { patience: 'wait' })
  const engine = new Engine({
    redis,
    subscriber,
    config,
    log: createLog('silent', 'test'),
    sweeps: false,
    workflows: [...workflows, ...(further.workflows ?? [])],
    operations: { ...operations, ...further.operations },
    at: further.at,
  })
  const port = new AttemptPort(engine, [])
  await untilHashed(engine)
  return {
    engine,
    port,
    redis,
    server,
    url: server.url,
    folder,
    submit: async (more = {}) => {
      const input = { prompt: 'a red circle', seed: 7 }
      const { session } = await engine.start({ workflow: 'image-generation', input, priority: 5, tags: [], keyId: null, ...more })
      return session.id
    },
    run: async (program) => {
      const input = { ledger: join(folder, 'ledger'), key: randomUUID(), program }
      return (await engine.start({ workflow: 'program', input, priority: 5, tags: [], keyId: null })).session.id
    },
    take: async (id, suffix, dispatch = 1) => {
      const taken = await port.take(`${id}.${suffix}.${dispatch}`, { worker: 'w', device: 'd', exactnessKey: '01234567' })
      if (taken.is !== 'taken') throw new Error(`step ${suffix} of ${id} is ${taken.is}`)
      return taken.attempt
    },
    [Symbol.asyncDispose]: async () => {
      await engine.close()
      redis.disconnect()
      subscriber.disconnect()
      await server.stop()
      await rm(folder, { recursive: true, force: true })
    },
  }
}
