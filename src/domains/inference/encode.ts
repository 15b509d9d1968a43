import { z } from 'zod'
import { operation } from '../operation.ts'
import { fileOf } from '../python-files.ts'
import { ImageRequest, Sha256 } from '../values.ts'
import { onDevice } from './device-step.ts'

const texts = { prompt: true, negativePrompt: true, promptSyntax: true, clipSkip: true } as const
const input = ImageRequest.pick({ model: true, ...texts, adapters: true, embeddings: true, memoryProfile: true })

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
