import { z } from 'zod'
import { operation } from '../operation.ts'
import { fileOf } from '../python-files.ts'
import { Exactness, Pass, Sha256 } from '../values.ts'
import { controlFiles, filesOfControl } from './control.ts'
import { classFacts, onDevice } from './device-step.ts'
import { filesOfReferences, referenceFiles } from './references.ts'

/** `enlarged`: it draws over latents that `inference.enlarge` has made, as much of them as `strength` says. */
const request = Pass.extend({ enlarged: z.literal(true).optional() })

/**
 * Noise to latents, call by call, with checkpoints on the way.
 * @throws DarkroomError `artifact.missing` when the latents of the picture are gone: the machine makes them again.
 */
export const denoise = operation({
  ...onDevice,
  timeoutMs: 24 * 3_600_000,
  /**
   * `conditioning` is a hint: without it, or with a broken one, the prompt is encoded again. `pictureLatents` are those
   * of the request's picture, or of the pass before.
   */
  input: request.extend({ conditioning: Sha256.nullable(), pictureLatents: Sha256.optional() }),
  /** `latents`: safetensors, [1, channels, height / scale, width / scale]. */
  output: z.strictObject({ latents: Sha256, exactness: Exactness }),
  python: {
    input: request,
    files: ['conditioning', 'pictureLatents', ...controlFiles, ...referenceFiles],
    makes: ['latents'],
    resumes: true,
  },
  async run({ conditioning, pictureLatents = null, ...given }, tools) {
    const { guidance, negativePrompt } = given
    // Not refused: programs send their usual one with every guidance.
    if (negativePrompt !== '' && guidance <= 1)
      await tools.note(`the negative prompt is not heard: guidance ${guidance} turns classifier-free guidance off`)
    if (given.class === 'fast') await tools.note('the picture is drawn in the class fast: its bytes are not promised')
    const files = { conditioning, pictureLatents, ...filesOfControl(given.control), ...filesOfReferences(given.references) }
    // Of what an edit is shown: encoded in tiles it has other bits.
    const isTiled = given.references !== undefined && given.memoryProfile === 'lowest-memory'
    const latents = fileOf(await tools.python(given, files), 'latents')
    return { latents, exactness: tools.exactnessWith({ ...classFacts(given), ...(isTiled && { tiling: true }) }) }
  },
})
