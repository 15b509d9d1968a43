/** Runs every scenario of the contract on the backend that the arguments name; a line of JSON each on stdout. */
import type { BackendName } from '../../src/domains/device-memory.ts'
import { openDeviceMemory } from '../../src/workers/device/native.ts'
import { contract } from './contract.ts'

const backend = process.argv[2] as BackendName
for (const [name, scenario] of Object.entries(contract)) {
  let problem: string | null = null
  try {
    await scenario(() => openDeviceMemory(backend))
  } catch (error) {
    problem = error instanceof Error ? (error.stack ?? error.message) : String(error)
  }
  process.stdout.write(`${JSON.stringify({ name, problem })}\n`)
}
