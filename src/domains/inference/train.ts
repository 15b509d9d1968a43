import { z } from 'zod'
import { operation } from '../operation.ts'
import { AdapterName, ImageRequest, PicturePin, Sha256 } from '../values.ts'
import { fileBytesOf, fileOf } from '../python-files.ts'
import { onDevice } from './device-step.ts'

/** Pictures that one LoRA is trained with. */
export const maxExamples = 200
export const Example = z.strictObject({ picture: PicturePin, caption: z.string() })
/** How what it has learned is shown: a picture every so many steps, and one of the end. */
export const Sample = ImageRequest.pick({ prompt: true, steps: true, guidance: true, sampler: true }).extend({ every: z.int().min(1) })

/** `width`, `height`: the size that pictures are brought to. `alpha` / `rank`: how much of the difference is added. */
const request = ImageRequest.pick({ model: true, width: true, height: true, seed: true, steps: true }).extend({
  name: AdapterName,
  examples: Example.array().min(1).max(maxExamples),
  rank: z.int().min(1),
  alpha: z.number().gt(0),
  learningRate: z.number().gt(0),
  /** Pictures a step. */
  batch: z.int().min(1),
  sample: Sample,
})

const told = z.strictObject({ loss: z.number().describe('mean of the last tenth of the steps') })

/** A network's fp32 factors with the moments of their optimizer, and what the pictures take, bytes at most. */
const checkpointBytes = 2 ** 30

/**
 * A LoRA from captioned pictures, step by step, with checkpoints on the way.
 * @throws DarkroomError `inference.request_unfit` for a model that no LoRA is trained for, `inference.diverged`
 */
export const train = operation({
  ...onDevice,
  needs: ({ model, ...size }) => ({ models: [model], fileBytes: fileBytesOf(size) + checkpointBytes }),
  timeoutMs: 7 * 24 * 3_600_000,
  input: request,
  /** `adapter`: under kohya’s names; `pixels`: the last sample, RGB, 8 bits each, width · height · 3 bytes. */
  output: told.extend({ adapter: Sha256, pixels: Sha256 }),
  python: {
    input: request,
    output: told,
    files: { numbered: 'picture' },
    makes: ['adapter', 'pixels'],
    resumes: true,
  },
  async run(given, tools) {
    const files = Object.fromEntries(given.examples.map(({ picture }, n) => [`picture${n}`, picture.sha256]))
    const result = await tools.python(given, files)
    return { ...told.parse(result.output), adapter: fileOf(result, 'adapter'), pixels: fileOf(result, 'pixels') }
  },
})
