import { z } from 'zod'
import { operation } from '../operation.ts'
import { AdapterName, Count, Sha256 } from '../values.ts'

/**
 * Puts a LoRA that was made here into the last of the model folders of its worker's host, under `loras`.
 * @throws DarkroomError `model.exists`, `model.not_stored`, `artifact.missing` when the bytes are gone
 */
export const store = operation({
  lane: 'host',
  attempts: 3,
  timeoutMs: 600_000,
  input: z.strictObject({ adapter: Sha256, name: AdapterName }),
  output: z.strictObject({ name: z.string(), path: z.string(), bytes: Count }),
  run: async ({ adapter, name }, tools) => ({ name, ...(await tools.shelf.stored(name, await tools.artifacts.read(adapter))) }),
})
