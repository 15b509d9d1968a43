/**
 * An API as a process of its own: says its URL on standard output, ends on SIGTERM by having nothing left to do. Its one argument is an
 * `ApiSetup` as JSON.
 */
import { join } from 'node:path'
import { KeyStore } from '../../src/api-keys.ts'
import { listen, startApi, type RunningApi } from '../../src/api/server.ts'
import { FileArtifactStore } from '../../src/artifacts/store.ts'
import { readConfig } from '../../src/config.ts'
import { operations } from '../../src/domains/index.ts'
import type { OperationTable } from '../../src/domains/operation.ts'
import { createLog } from '../../src/log.ts'
import { connect, untilReady } from '../../src/redis.ts'
import { Engine } from '../../src/engine/engine.ts'
import { workflows, type Workflow } from '../../src/workflows/index.ts'
import { fatal } from './points.ts'
import { timesAt } from './times.ts'

export interface ApiSetup {
  /** File URL of a module that exports further `workflows` and `operations`. */
  module?: string
  /** Folder of the crash points at which it dies. */
  points?: string
  sweeps?: boolean
  /** The engine's times, as a share of the product's. */
  times?: number
}

const config = readConfig()
const log = createLog(config.logLevel, 'api')
const setup = JSON.parse(process.argv[2] ?? '') as ApiSetup
const isProduct = setup.module === undefined && setup.times === undefined
const api = isProduct ? await startApi(config, log) : await startWith(setup)
process.once('SIGTERM', () => void api.close())
process.stdout.write(`${JSON.stringify({ ready: api.url })}\n`)

async function startWith({ module, times = 1 }: ApiSetup): Promise<RunningApi> {
  const none = { workflows: [], operations: {} }
  const further = module === undefined ? none : ((await import(module)) as { workflows: Workflow[]; operations: OperationTable })
  const url = config.redisUrl ?? ''
  const redis = connect(url, { patience: 'fail' })
  const subscriber = connect(url, { patience: 'wait' })
  await untilReady(redis, 10_000)
  const artifacts = new FileArtifactStore(join(config.data, 'artifacts'))
  await artifacts.id()
  const engine = new Engine({
    redis,
    subscriber,
    config,
    log,
    workflows: [...workflows, ...further.workflows],
    operations: { ...operations, ...further.operations },
    sweeps: setup.sweeps,
    times: timesAt(times),
    ...(setup.points !== undefined && { at: fatal(setup.points) }),
  })
  const running = await listen({ engine, artifacts, keys: new KeyStore(redis), config, log }, config.port)
  return {
    ...running,
    close: async () => {
      await running.close()
      await engine.close()
      redis.disconnect()
      subscriber.disconnect()
    },
  }
}
