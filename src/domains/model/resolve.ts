import { z } from 'zod'
import { operation } from '../operation.ts'
import { ModelPin } from '../values.ts'

/**
 * Makes sure that the pinned model is here and is still the one the session was accepted with.
 * @throws DarkroomError `model.unknown`, `model.changed`
 */
export const resolve = operation({
  lane: 'host',
  attempts: 3,
  timeoutMs: 120_000,
  input: z.strictObject({ model: ModelPin }),
  output: z.strictObject({ model: ModelPin, family: z.string() }),
  async run({ model }, tools) {
    const { family } = await tools.model(model.id, model.bodyHash)
    return { model, family }
  },
})
