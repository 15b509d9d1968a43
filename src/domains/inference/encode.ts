import { z } from 'zod'
import { operation } from '../operation.ts'
import { fileOf } from '../python-files.ts'
import { ImageRequest, Sha256 } from '../values.ts'
import { onDevice } from './device-step.ts'
import { filesOfReferences, referenceFiles } from './references.ts'

const texts = { prompt: true, negativePrompt: true, promptSyntax: true, clipSkip: true } as const
/** `guidance`: no family needs a negative prompt at 1; sessions of an older version of Darkroom leave it out. */
const input = ImageRequest.pick({
  model: true,
  ...texts,
  guidance: true,
  references: true,
  adapters: true,
  embeddings: true,
  memoryProfile: true,
  class: true,
}).partial({ guidance: true })

/** A text encoder that sees pictures hands on a vector for each patch, of both texts: as much as these pixels. */
const roomOf = (pictures: number): { width?: number; height?: number } => (pictures > 0 ? { width: 4096, height: 1024 * pictures } : {})

/** Text to conditioning, with what an edit is shown. */
export const encode = operation({
  ...onDevice,
  needs: ({ references = [], ...rest }) => onDevice.needs({ ...rest, ...roomOf(references.length) }),
  timeoutMs: 600_000,
  input,
  /** `conditioning`: safetensors, `positive` and `negative`, [1, tokens, width] fp32. */
  output: z.strictObject({ conditioning: Sha256 }),
  python: { input, files: referenceFiles, makes: ['conditioning'] },
  run: async (request, tools) => ({
    conditioning: fileOf(await tools.python(request, filesOfReferences(request.references)), 'conditioning'),
  }),
})
