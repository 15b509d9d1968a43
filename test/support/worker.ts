/**
 * A worker as a process of its own. Its one argument is a `WorkerSetup` as JSON; it says its id on standard output,
 * drains on SIGTERM, and says on SIGUSR2 what its Python child holds.
 */
import { readConfig } from '../../src/config.ts'
import { operations as builtIn } from '../../src/domains/index.ts'
import type { Times } from '../../src/engine/times.ts'
import { createLog } from '../../src/log.ts'
import { startWorker } from '../../src/workers/boot.ts'
import type { Stall } from '../../src/workers/python/stall.ts'
import { workflows as builtInWorkflows } from '../../src/workflows/index.ts'
import type { Further } from './api.ts'
import { fatal } from './points.ts'

export interface WorkerSetup {
  /** The Python child's program and arguments. */
  command: string[]
  /** Folder for attempt files. */
  attempts: string
  stall: Partial<Stall>
  /** Device memory in plain TypeScript. */
  plain: boolean
  times: Times
  /** File URL of a module that exports further `workflows` and `operations`. */
  module?: string
  /** Folder of the crash points at which it dies. */
  points?: string
  sweeps?: boolean
}

const setup = JSON.parse(process.argv[2] ?? '') as WorkerSetup
const further = setup.module === undefined ? { workflows: [], operations: {} } : ((await import(setup.module)) as Further)
const config = readConfig()
const say = (message: unknown): void => void process.stdout.write(`${JSON.stringify(message)}\n`)

const worker = await startWorker({
  config,
  log: createLog(config.logLevel, 'worker'),
  redisUrl: config.redisUrl ?? '',
  command: setup.command,
  attempts: setup.attempts,
  stall: setup.stall,
  native: { plain: setup.plain },
  times: setup.times,
  operations: { ...builtIn, ...further.operations },
  workflows: [...builtInWorkflows, ...further.workflows],
  sweeps: setup.sweeps,
  ...(setup.points !== undefined && { at: fatal(setup.points) }),
})
process.on('SIGUSR2', () => void worker.heartbeat().then((vitals) => say({ vitals })))
// A Redis that is away would keep BullMQ's connections, and so this process.
process.once('SIGTERM', () => void worker.drain().then(() => process.exit(0)))
void worker.ended.then(() => process.exit(1))
say({ ready: worker.id })
