/**
 * An API as a process of its own: says its URL on standard output, ends on SIGTERM by having nothing left to do. Its
 * one argument is an `ApiSetup` as JSON.
 */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { startApi } from '../../src/api/server.ts'
import { readConfig } from '../../src/config.ts'
import { operations } from '../../src/domains/index.ts'
import type { OperationTable } from '../../src/domains/operation.ts'
import type { Times } from '../../src/engine/times.ts'
import { createLog } from '../../src/log.ts'
import { workflows, type Workflow } from '../../src/workflows/index.ts'
import { fatal } from './points.ts'

export interface ApiSetup {
  times: Times
  /** File URL of a module that exports further `workflows` and `operations`. */
  module?: string
  /** Folder of the crash points at which it dies. */
  points?: string
  sweeps?: boolean
}

/** What a `module` exports. */
export interface Further {
  workflows: Workflow[]
  operations: OperationTable
}

const config = readConfig()
const setup = JSON.parse(process.argv[2] ?? '') as ApiSetup
const further = setup.module === undefined ? { workflows: [], operations: {} } : ((await import(setup.module)) as Further)
const api = await startApi(config, createLog(config.logLevel, 'api'), {
  times: setup.times,
  workflows: [...workflows, ...further.workflows],
  operations: { ...operations, ...further.operations },
  sweeps: setup.sweeps,
  at: setup.points === undefined ? undefined : fatal(setup.points),
})
process.once('SIGTERM', () => void api.close())
// Collects what is garbage: how much memory a process has says little before.
process.on('SIGUSR2', () => {
  setFlagsFromString('--expose-gc')
  ;(runInNewContext('gc') as () => void)()
})
process.stdout.write(`${JSON.stringify({ ready: api.url })}\n`)
