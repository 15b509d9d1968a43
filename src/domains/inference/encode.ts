import { z } from 'zod'
import { operation } from '../operation.ts'
import { ImageRequest, Sha256 } from '../values.ts'
import { fileOf, onDevice } from './device-step.ts'

const input = ImageRequest.pick({ model: true, prompt: true, negativePrompt: true })

/** Text to conditioning. */
export const encode = operation({
  ...onDevice,
  timeoutMs: 600_000,
  input,
  /** `conditioning`: safetensors, `positive` and `negative`, [1, tokens, width] fp32. */
  output: z.strictObject({ conditioning: Sha256 }),
  python: { input, makes: ['conditioning'] },
  run: async (request, tools) => ({ conditioning: fileOf(await tools.python(request, {}), 'conditioning') }),
})
