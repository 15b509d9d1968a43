import { z } from 'zod'
import { operation } from '../operation.ts'
import { ModelPin, withOwnVae } from '../values.ts'

/**
 * Makes sure that the pinned model is still the one the session was accepted with.
 * @throws DarkroomError `model.missing`
 */
export const resolve = operation({
  lane: 'host',
  attempts: 3,
  timeoutMs: 120_000,
  needs: ({ model }) => ({ models: withOwnVae(model) }),
  input: z.strictObject({ model: ModelPin }),
  output: z.strictObject({ model: ModelPin, family: z.string() }),
  async run({ model }, tools) {
    const { family } = await tools.model(model)
    return { model, family }
  },
})
