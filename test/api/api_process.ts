/**
 * An API as a process of its own, for tests that kill it: prints its URL, ends on SIGTERM by having nothing left to do.
 */
import { startApi } from '../../src/api/server.ts'
import { readConfig } from '../../src/config.ts'
import { createLog } from '../../src/log.ts'

const config = readConfig()
const api = await startApi(config, createLog(config.logLevel, 'api'))
process.once('SIGTERM', () => void api.close())
process.stdout.write(`${api.url}\n`)
